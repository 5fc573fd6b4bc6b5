"""The page in a real browser: it fetches nothing, the slider moves everything, it fits every screen.

It needs the extra `browser` and `playwright install chromium`; without them these tests are skipped.
"""

from collections.abc import Iterator
from typing import Any

import pytest

SHOWN = "[...document.querySelectorAll('.at')].filter(e => e.checkVisibility())"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: the extra `browser`")
    with api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch()
        except api.Error as error:  # it is not downloaded, or a library of the system is missing
            pytest.skip(f"Chromium does not start: {error}")
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A blank page of its own for each test."""
    page = chromium.new_page(viewport={"width": 1200, "height": 900})
    yield page
    page.close()


@pytest.fixture
def address(written: Any) -> str:
    return str(written.path.resolve().as_uri())


def text_of(page: Any, selector: str) -> str:
    return str(page.locator(selector).first.inner_text())


def colour(page: Any, name: str) -> list[float]:
    """A variable of the style sheet as sRGB, 0 to 255."""
    script = """name => { const part = document.createElement('i'); part.style.color = `var(${name})`;
      document.body.append(part); const text = getComputedStyle(part).color; part.remove();
      return text.match(/[0-9.]+/g).map(Number); }"""
    return list(page.evaluate(script, name))


def luminance(rgb: list[float]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_it_loads_without_errors_and_without_the_network(page: Any, address: str) -> None:
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text))  # the browser's own entries too, as of the CSP
    page.goto(address)
    page.evaluate("document.fonts.ready.then(() => 1)")
    assert len(asked) >= 1
    assert all(url.startswith(("file:", "data:")) for url in asked)
    assert wrong == []


def test_the_keyboard_moves_the_slider(page: Any, address: str, written: Any) -> None:
    rows = written.facts["evaluation"]["resolutions"]
    page.goto(address)
    page.locator("#slider").focus()
    for key, size in (("ArrowLeft", "40"), ("ArrowLeft", "32"), ("ArrowLeft", "32"), ("End", "48"), ("Home", "32")):
        page.keyboard.press(key)
        assert text_of(page, ".reading").split() == [size, "px", f"{rows[size]['top1']:.1f}", "%"]
        assert set(page.evaluate(f"{SHOWN}.map(e => e.dataset.size)")) == {size}
        assert page.locator("#slider").get_attribute("aria-valuetext").startswith(f"{size} pixels")
        assert set(page.evaluate("[...document.querySelectorAll('.now')].map(e => e.dataset.size)")) == {size}
        widths = page.evaluate("[...document.images].filter(e => e.checkVisibility()).map(e => e.naturalWidth)")
        assert widths == [int(size)] * 5


def test_the_mouse_moves_it_too(page: Any, address: str) -> None:
    page.goto(address)
    for selector in ("tr[data-size='32']", "#ticks [data-size='40']", ".mark[data-size='48']"):
        page.locator(selector).first.dispatch_event("click")
        assert text_of(page, ".reading").split()[0] == selector.split("'")[1]
        assert page.locator("#slider").input_value() == str(("32", "40", "48").index(selector[-4:-2]))


def test_names_are_shown_as_they_are(page: Any, address: str, written: Any) -> None:
    page.goto(address)
    assert written.facts["classes"][0] in text_of(page, ".confusion")
    assert page.evaluate("document.scripts.length") == 2


@pytest.mark.parametrize("width", [375, 768, 1400])
def test_it_fits_the_screen(page: Any, address: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert (
        page.evaluate(
            "Math.min(...[...document.querySelectorAll('.card:not([hidden]) .frame')].map(e => e.clientWidth))"
        )
        > 120
    )
    page.evaluate("scrollTo(0, 1500)")
    assert page.evaluate("document.getElementById('bar').getBoundingClientRect().top") == 0


def test_the_filter_shows_the_photos_it_names(page: Any, address: str, written: Any) -> None:
    images = written.facts["examples"]["images"] + written.facts["examples"]["mistakes"]
    page.goto(address)
    for kind in ("wrong", "larger", "all"):
        page.locator(f"[name=photos][value={kind}]").check()
        for place, size in enumerate(("32", "40", "48")):
            page.evaluate(f"show({place})")
            names = page.evaluate(
                "[...document.querySelectorAll('.file')].filter(e => e.checkVisibility()).map(e => e.textContent)"
            )
            right = [
                [image["answers"]["network"][s][0] == image["target"] for s in ("32", "40", "48")] for image in images
            ]
            fits = {
                "wrong": [not row[place] for row in right],
                "larger": [not row[place] and any(row[place:]) for row in right],
                "all": [i < 5 for i in range(len(images))],
            }[kind]
            assert names == [image["name"] for image, fit in zip(images, fits, strict=True) if fit], (kind, size)
            assert page.locator("#none").is_visible() == (not names)


def test_without_scripts_all_sizes_can_be_read(chromium: Any, address: str) -> None:
    page = chromium.new_page(java_script_enabled=False)
    page.goto(address)
    assert [text.split()[2] for text in page.locator("h3:text('Predictions at')").all_inner_texts()] == [
        "48",
        "40",
        "32",
    ]
    assert not page.locator("#bar").is_visible()
    assert not page.locator(".choice").first.is_visible()
    page.close()


def test_images_can_be_seen_to_scale(page: Any, address: str) -> None:
    page.goto(address)
    share = "(e => e.clientWidth / e.parentNode.clientWidth)([...document.images].find(e => e.checkVisibility()))"
    page.evaluate("show(0)")
    assert page.evaluate(share) == 1
    page.evaluate("document.getElementById('to-scale').click()")
    assert page.evaluate(share) == pytest.approx(32 / 48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_the_page(page: Any, address: str, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto(address)
    background = luminance(colour(page, "--page"))
    assert (background < 0.1) == (scheme == "dark")
    for name in ("--ink", "--soft", "--right", "--wrong", *(f"--c{i}" for i in range(6))):
        lighter, darker = sorted((background, luminance(colour(page, name))), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, name


def test_on_paper_it_is_black_on_white(page: Any, address: str) -> None:
    page.emulate_media(media="print", color_scheme="dark")
    page.goto(address)
    assert colour(page, "--page") == [255, 255, 255]
    assert page.evaluate("getComputedStyle(document.getElementById('bar')).position") == "static"

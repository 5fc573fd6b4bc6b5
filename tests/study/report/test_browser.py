"""The page in a real browser: it fetches nothing, the slider moves everything, it fits every screen."""

from typing import Any

import pytest

SHOWN = "[...document.querySelectorAll('.at')].filter(e => e.checkVisibility())"


def text_of(browser: Any, selector: str) -> str:
    return str(browser.run(f"document.querySelector({selector!r}).innerText"))


def colour(browser: Any, name: str) -> list[float]:
    """A variable of the style sheet as sRGB, 0 to 255."""
    script = """(() => { const part = document.createElement('i'); part.style.color = 'var(NAME)';
      document.body.append(part); const text = getComputedStyle(part).color; part.remove();
      return text.match(/[0-9.]+/g).map(Number); })()""".replace("NAME", name)
    return list(browser.run(script))


def luminance(rgb: list[float]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_it_loads_without_errors_and_without_the_network(browser: Any, written: Any) -> None:
    browser.open(written.path)
    browser.run("document.fonts.ready.then(() => 1)")
    asked = [e["params"]["request"]["url"] for e in browser.events if e.get("method") == "Network.requestWillBeSent"]
    assert len(asked) >= 1
    assert all(url.startswith(("file:", "data:")) for url in asked)
    assert not [e for e in browser.events if e.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded")]


def test_the_keyboard_moves_the_slider(browser: Any, written: Any) -> None:
    rows = written.facts["evaluation"]["resolutions"]
    browser.open(written.path)
    browser.run("document.getElementById('slider').focus()")
    for key, size in (("ArrowLeft", "40"), ("ArrowLeft", "32"), ("ArrowLeft", "32"), ("End", "48"), ("Home", "32")):
        browser.press(key)
        assert text_of(browser, ".reading").split() == [size, "px", f"{rows[size]['top1']:.1f}", "%"]
        assert set(browser.run(f"{SHOWN}.map(e => e.dataset.size)")) == {size}
        assert browser.run("document.getElementById('slider').getAttribute('aria-valuetext')").startswith(
            f"{size} pixels"
        )
        now = browser.run("[...document.querySelectorAll('.now')].map(e => e.dataset.size)")
        assert set(now) == {size}
        widths = browser.run("[...document.images].filter(e => e.checkVisibility()).map(e => e.naturalWidth)")
        assert widths == [int(size)] * 5


def test_the_mouse_moves_it_too(browser: Any, written: Any) -> None:
    browser.open(written.path)
    for selector in ("tr[data-size='32']", "#ticks [data-size='40']", ".mark[data-size='48']"):
        browser.run(f"document.querySelector({selector!r}).dispatchEvent(new MouseEvent('click', {{bubbles: true}}))")
        assert text_of(browser, ".reading").split()[0] == selector.split("'")[1]
        assert browser.run("document.getElementById('slider').value") == str(("32", "40", "48").index(selector[-4:-2]))


def test_names_are_shown_as_they_are(browser: Any, written: Any) -> None:
    browser.open(written.path)
    assert written.facts["classes"][0] in text_of(browser, ".confusion")
    assert browser.run("document.scripts.length") == 2


@pytest.mark.parametrize("width", [375, 768, 1400])
def test_it_fits_the_screen(browser: Any, written: Any, width: int) -> None:
    browser.open(written.path, width=width)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("Math.min(...[...document.querySelectorAll('.frame')].map(e => e.clientWidth))") > 120
    browser.run("scrollTo(0, 1500)")
    assert browser.run("document.getElementById('bar').getBoundingClientRect().top") == 0


def test_images_can_be_seen_to_scale(browser: Any, written: Any) -> None:
    browser.open(written.path)
    share = "(e => e.clientWidth / e.parentNode.clientWidth)([...document.images].find(e => e.checkVisibility()))"
    browser.run("show(0)")
    assert browser.run(share) == 1
    browser.run("document.getElementById('to-scale').click()")
    assert browser.run(share) == pytest.approx(32 / 48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_the_page(browser: Any, written: Any, scheme: str) -> None:
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(written.path)
    page = luminance(colour(browser, "--page"))
    assert (page < 0.1) == (scheme == "dark")
    for name in ("--ink", "--soft", "--right", "--wrong", *(f"--c{i}" for i in range(6))):
        lighter, darker = sorted((page, luminance(colour(browser, name))), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, name
    browser.call("Emulation.setEmulatedMedia", features=[])


def test_on_paper_it_is_black_on_white(browser: Any, written: Any) -> None:
    browser.call(
        "Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    browser.open(written.path)
    assert colour(browser, "--page") == [255, 255, 255]
    assert browser.run("getComputedStyle(document.getElementById('bar')).position") == "static"
    browser.call("Emulation.setEmulatedMedia", media="", features=[])

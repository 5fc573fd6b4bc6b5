"""The written page against what the networks say, computed again with NumPy, and against its own JSON."""

import base64
import copy
import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import escape
from PIL import Image

from rsconvert import CheckpointError, ConfigError, evaluate
from rsconvert.data import evaluation_views, open_split
from rsconvert.evaluation import predict
from rsconvert.study.curves import accuracy_charts
from rsconvert.study.report.page import render, write_report

SIZES = ("48", "40", "32")
NASTY = "</script><script>alert('&\"')</script>"


class Elements(HTMLParser):
    """Every element as (tag, attributes, text inside)."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[list[str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))
        if tag not in ("meta", "img", "input", "br"):
            self._open.append(self.found[-1][2])

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for text in self._open:
            text.append(data)

    def all(self, tag: str, **wanted: str) -> Iterator[tuple[dict[str, str | None], str]]:
        for name, attributes, text in self.found:
            if name == tag and all(attributes.get(key) == value for key, value in wanted.items()):
                yield attributes, "".join(text)


@pytest.fixture(scope="module")
def page(written: Any) -> Elements:
    return Elements(written.path.read_text(encoding="utf-8"))


def test_the_json_on_the_page_is_what_was_returned(written: Any, page: Elements) -> None:
    ((_, text),) = page.all("script", id="facts")
    assert json.loads(text) == json.loads(json.dumps(written.facts))


def test_the_figures_are_those_of_evaluate(written: Any) -> None:
    options = {"baselines": {"<other>": written.other}, "per_class": True, "workers": 0}
    measured = evaluate(written.net, written.data, [48, 40, 32], **options).to_dict()
    assert json.dumps(written.facts["evaluation"], sort_keys=True) == json.dumps(measured, sort_keys=True)


@pytest.mark.parametrize("size", SIZES)
def test_the_figures_follow_from_the_logits(written: Any, size: str) -> None:
    found = predict({"network": written.net}, written.data, [48, 40, 32], keep_logits=True, workers=0)
    logits = found.answers["network"][int(size)].logits.double().numpy()
    targets = np.repeat([0, 1, 2], 6)
    sure = np.exp(logits - logits.max(1, keepdims=True))
    sure /= sure.sum(1, keepdims=True)
    best = logits.argmax(1)
    row = written.facts["evaluation"]["resolutions"][size]
    assert row["top1"] == pytest.approx(100 * np.mean(best == targets))
    assert row["per_class"] == pytest.approx([100 * np.mean(best[targets == c] == c) for c in range(3)])
    confusion = np.zeros((3, 3), dtype=int)
    np.add.at(confusion, (targets, best), 1)
    assert written.facts["confusion"][size] == confusion.tolist()
    for image in written.facts["examples"]["images"]:
        answer, confidence = image["answers"]["network"][size]
        assert (image["target"], answer) == (targets[image["index"]], best[image["index"]])
        assert confidence == pytest.approx(sure[image["index"], answer], abs=1e-5)


def test_the_table_shows_the_figures(written: Any, page: Elements) -> None:
    result = written.facts["evaluation"]
    for size in SIZES:
        row, other = result["resolutions"][size], result["baselines"]["<other>"]["resolutions"][size]
        text = next(text for _, text in page.all("tr", **{"data-size": size}))
        assert f"{row['top1']:.2f}" in text
        assert f"{row['multiply_adds'] / 1e6:.1f}" in text
        assert f"{other['top1']:.2f}{row['top1'] - other['top1']:+.2f}" in text
    assert f"{written.facts['any_path']:.1f} %" in written.path.read_text(encoding="utf-8")


def test_the_images_are_the_views_of_the_network(written: Any, page: Elements) -> None:
    samples = open_split(str(written.data), "val")
    examples = written.facts["examples"]
    drawn = [image["index"] for image in examples["images"] + examples["mistakes"]]
    shown = list(page.all("img"))
    assert len(shown) == (5 + 2) * 3
    for (attributes, _), (index, size) in zip(shown, ((i, s) for i in drawn for s in SIZES), strict=True):
        head, _, data = (attributes["src"] or "").partition(",")
        picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
        assert (head, picture.size) == ("data:image/jpeg;base64", (int(size), int(size)))
        (view,) = evaluation_views(samples.read(index)[0], [int(size)], crop_pct=0.875, interpolation="bilinear")
        assert np.abs(np.asarray(picture).astype(int) - view.permute(1, 2, 0).numpy()).mean() < 3
        assert (attributes["width"], attributes["height"]) == (size, size)


def test_one_size_is_shown_until_the_slider_moves(page: Elements) -> None:
    parts = [attributes for _, attributes, _ in page.found if "at" in (attributes.get("class") or "").split()]
    assert len(parts) > 3 * 5
    assert all(("hidden" in part) == (part["data-size"] != "48") for part in parts)


def test_the_slider_has_a_step_for_each_size(page: Elements) -> None:
    ((slider, _),) = page.all("input", id="slider")
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "2", "2")
    ticks = page.found[[attributes.get("id") for _, attributes, _ in page.found].index("ticks")]
    assert "".join(ticks[2]).split() == ["32", "40", "48"]
    assert "slider" in [attributes["for"] for attributes, _ in page.all("label") if "for" in attributes]


def test_the_page_fetches_nothing(written: Any, page: Elements) -> None:
    sources = [
        a[key] or "" for _, a, _ in page.found for key in ("src", "href", "srcset", "action", "data") if key in a
    ]
    assert len(sources) == 7 * 3
    assert all(source.startswith("data:") for source in sources)
    assert {tag for tag, _, _ in page.found}.isdisjoint({"link", "iframe", "object", "embed", "a"})
    text = written.path.read_text(encoding="utf-8")
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttpRequest", text)
    (policy,) = (a["content"] or "" for a, _ in page.all("meta", **{"http-equiv": "Content-Security-Policy"}))
    assert policy.startswith("default-src 'none'")
    ((_, script),) = ((a, text) for a, text in page.all("script") if "id" not in a)
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy


def test_names_cannot_break_the_page(written: Any, page: Elements) -> None:
    assert len(list(page.all("script"))) == 2
    assert "<script>alert" not in written.path.read_text(encoding="utf-8")
    assert any(NASTY in text for _, text in page.all("td")) or any(NASTY in text for _, text in page.all("th"))
    assert any("<other>" in text for _, text in page.all("th"))


def test_what_is_labelled_exists(page: Elements) -> None:
    names = [attributes["id"] for _, attributes, _ in page.found if "id" in attributes]
    assert len(names) == len(set(names))
    labels = {a[key] for _, a, _ in page.found for key in ("aria-labelledby", "for") if key in a}
    assert labels <= set(names)


def test_each_photo_has_its_file_name_and_what_the_filters_ask_for(written: Any, page: Elements) -> None:
    examples = written.facts["examples"]
    cards = list(page.all("figure", **{"class": "card"}))
    images = examples["images"] + examples["mistakes"]
    for place, ((card, text), image) in enumerate(zip(cards, images, strict=True)):
        right = [image["answers"]["network"][size][0] == image["target"] for size in SIZES]
        wrong = [size for size, fits in zip(SIZES, right, strict=True) if not fits]
        larger = [size for i, size in enumerate(SIZES) if not right[i] and any(right[:i])]
        assert (card["data-wrong"], card["data-larger"]) == (" ".join(wrong), " ".join(larger))
        assert image["name"] in text
        assert ("hidden" in card) == ("data-more" in card) == (place >= 5)
    assert all(image["index"] not in {one["index"] for one in examples["images"]} for image in examples["mistakes"])
    assert [a["value"] for a, _ in page.all("input", name="photos")] == ["all", "wrong", "larger"]


def test_rows_and_columns_of_the_confusion_have_names(written: Any, page: Elements) -> None:
    names = written.facts["classes"]
    assert [text for _, text in page.all("span", **{"class": "upright"})] == names * 3
    ((_, text), *_) = page.all("table", **{"class": "heat confusion"})
    assert [text.count(name) for name in names] == [2, 2, 2]


def test_another_seed_draws_others(written: Any, tmp_path: Path) -> None:
    drawn = []
    for seed in (3, 4):
        facts = write_report(
            written.net, written.data, tmp_path / "x.html", [32], examples=5, seed=seed, workers=0, batch_size=18
        )
        drawn.append([image["index"] for image in facts["examples"]["images"]])
    assert drawn[0] == [image["index"] for image in written.facts["examples"]["images"]]
    assert drawn[0] != drawn[1]


def test_what_makes_the_figures_meaningless_is_on_the_page(written: Any, tmp_path: Path) -> None:
    net = copy.deepcopy(written.net)
    net.at(48).classifier.bias.data[0] = float("nan")
    facts = write_report(net, written.data, tmp_path / "report.html", [48], examples=0, workers=0)
    assert facts["doubts"] == ["network at 48 gives logits that are not finite for 18 of 18 images"]
    assert f"Note: {facts['doubts'][0]}." in (tmp_path / "report.html").read_text()


def test_no_examples_leave_the_section_out(written: Any, tmp_path: Path) -> None:
    write_report(written.net, written.data, tmp_path / "x.html", [32], examples=0, workers=0)
    page = Elements((tmp_path / "x.html").read_text(encoding="utf-8"))
    assert list(page.all("img")) == []
    assert list(page.all("h2", id="examples")) == []


def test_mistakes_are_told(written: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="baseline is named network"):
        write_report(written.net, written.data, tmp_path / "x.html", baselines={"network": written.other})
    with pytest.raises(ConfigError, match="examples is -1"):
        write_report(written.net, written.data, tmp_path / "x.html", examples=-1)
    with pytest.raises(CheckpointError, match="nowhere"):
        write_report(written.net, written.data, tmp_path / "x.html", origin=tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_page(
    written: Any, tmp_path: Path, full_disk: Callable[[], AbstractContextManager[None]]
) -> None:
    (tmp_path / "x.html").write_text("old")
    with full_disk(), pytest.raises(CheckpointError, match=r"x\.html can't be written"):
        write_report(written.net, written.data, tmp_path / "x.html", [32], examples=2, workers=0)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def changed(written: Any, **more: Any) -> dict[str, Any]:
    facts = copy.deepcopy(written.facts) | more
    return facts | {"examples": {"seed": 0, "images": [], "mistakes": []}}


def rendered(facts: dict[str, Any]) -> str:
    """The page without examples and curves of accuracy."""
    return render(facts, [], [])


def test_what_is_no_number_is_null(written: Any) -> None:
    facts = changed(written)
    facts["evaluation"]["resolutions"]["32"]["calibration_error"] = float("nan")
    page = rendered(facts)
    assert '"calibration_error": null' in page
    assert "NaN" not in page


def test_a_run_shows_its_curves(written: Any) -> None:
    rows = [{"epoch": float(i), "loss": 3 - i, "score_48": 0.6, "top1_48": 50.0 + i, "lr": 0.1} for i in (1, 2)]
    page = rendered(changed(written, epochs=rows))
    titles = re.findall(r"<h3>(.*?)</h3>", page)
    assert {"Loss (sum over the resolutions)", "Top-1 after each epoch", "Importance scores"} <= set(titles)
    assert ">mean of the epoch (nats)<" in page
    assert "48: 51.00" in page
    assert 'id="training"' not in rendered(changed(written, epochs=None))


def test_an_epoch_that_was_not_measured_leaves_a_gap(written: Any) -> None:
    rows = [{"epoch": 1.0, "loss": 3.0, "top1_48": 50.0}, {"epoch": 2.0, "loss": 2.0}, {"top1_48": 1.0}]
    assert "48: 50.00" in rendered(changed(written, epochs=rows))
    without = [{"top1_48": 50.0}, {"epoch": math.nan, "top1_48": 50.0}, {"epoch": 1.0, "top1_48": math.inf}]
    assert "Top-1 after each epoch" not in rendered(changed(written, epochs=without))


@pytest.mark.parametrize(
    ("resolution", "state"), [("48", "trained"), ("40", "between 48 and 32"), ("64", "as at 48"), ("24x26", "as at 32")]
)
def test_a_row_says_where_its_set_comes_from(written: Any, resolution: str, state: str) -> None:
    facts = changed(written, sizes=[resolution], complementarity=[[0.0]])
    row = written.facts["evaluation"]["resolutions"]["40"]
    facts["evaluation"]["resolutions"] = {resolution: row}
    facts["evaluation"]["baselines"] = {}
    facts["confusion"] = {resolution: facts["confusion"]["40"]}
    page = rendered(facts)
    assert f'title="{resolution} pixels, {state}: top-1' in page
    assert 'id="complement"' not in page  # of one path alone


def test_many_classes_are_told_by_their_mistakes(written: Any) -> None:
    mistakes = {size: [(0, 1, 4)] for size in written.facts["sizes"]}
    page = rendered(changed(written, confusion=None, mistakes=mistakes))
    assert "Most confused pairs at 40 pixels" in page
    first, second, _ = (escape(name) for name in written.facts["classes"])
    pair = f'<td class="words">{first}</td><td class="words">{second}</td>'
    assert f"{pair}<td>4</td><td>6</td><td>67</td>" in page
    assert "Confusion matrix" not in page


def test_latencies_of_the_file_are_shown(written: Any) -> None:
    facts = changed(written)
    table = ((48, "plain", 1, 2.5), (48, "folded", 1, 2.25), (32, "plain", 1, 1.5))
    names = ("resolution", "form", "batch_size", "latency_ms")
    facts["network"]["costs"] = {"cpu; 2 threads": [dict(zip(names, row, strict=True)) for row in table]}
    page = rendered(facts)
    assert "plain, batch 1 (ms)</th><th" in page
    assert '<th scope="row">48</th><td>2.50</td><td>2.25</td>' in page
    assert '<th scope="row">32</th><td>1.50</td><td>–</td>' in page
    assert "<dd>1.50 ms</dd>" in page
    assert "Latency" not in rendered(changed(written))


def test_what_is_unknown_is_left_out(written: Any) -> None:
    facts = changed(written)
    facts["made"]["command"] = facts["evaluation"]["ensemble"] = None
    page = rendered(facts)
    assert "<code>rsconvert" not in page
    assert "None" not in re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.DOTALL)


def test_the_curves_are_those_of_the_other_figures(written: Any, page: Elements) -> None:
    measured = evaluate(written.net, written.data, [48, 40, 32], baselines={"<other>": written.other}, workers=0)
    charts = accuracy_charts({"this network": measured, **measured.baselines})
    shown = {attributes["aria-label"] for attributes, _ in page.all("svg", role="img")}
    assert shown == {f"{chart.title}: {chart.y_label} over {chart.x_label}" for chart in charts}
    told = [text for _, text in page.all("title") if ": " in text]
    assert told == [
        f"{curve.name}, {point.size}: {point.y:.2f}"
        for chart in charts
        for curve in chart.curves
        for point in curve.points
    ]
    marks = [a for a, _ in page.all("path") if (a.get("class") or "").startswith("mark ")]
    assert {attributes["data-size"] for attributes in marks} == {"40"}, "hollow marks are untrained"

import copy
import re
from typing import Any

import pytest

from rsconvert.study import render


def changed(written: Any, **more: Any) -> dict[str, Any]:
    facts = copy.deepcopy(written.facts) | more
    return facts | {"examples": {"seed": 0, "images": []}}


def test_what_is_no_number_is_null(written: Any) -> None:
    facts = changed(written)
    facts["evaluation"]["resolutions"]["32"]["calibration_error"] = float("nan")
    page = render(facts, [])
    assert '"calibration_error": null' in page
    assert "NaN" not in page


def test_a_run_shows_its_curves(written: Any) -> None:
    rows = [{"epoch": float(i), "loss": 3 - i, "score_48": 0.6, "top1_48": 50.0 + i, "lr": 0.1} for i in (1, 2)]
    page = render(changed(written, epochs=rows), [])
    titles = re.findall(r"<h3>(.*?)</h3>", page)
    assert {"Loss", "Importance scores"} <= set(titles)
    assert "48: 51.00" in page
    assert 'id="training"' not in render(changed(written, epochs=None), [])


def test_an_epoch_that_was_not_measured_leaves_a_gap(written: Any) -> None:
    rows = [{"epoch": 1.0, "loss": 3.0, "top1_48": 50.0}, {"epoch": 2.0, "loss": 2.0}]
    assert "48: 50.00" in render(changed(written, epochs=rows), [])


@pytest.mark.parametrize(
    ("resolution", "state"), [("48", "trained"), ("40", "between 48 and 32"), ("64", "as at 48"), ("24x26", "as at 32")]
)
def test_a_row_says_where_its_set_comes_from(written: Any, resolution: str, state: str) -> None:
    facts = changed(written, sizes=[resolution], complementarity=[[0.0]])
    row = written.facts["evaluation"]["resolutions"]["40"]
    facts["evaluation"]["resolutions"] = {resolution: row}
    facts["evaluation"]["baselines"] = {}
    facts["confusion"] = {resolution: facts["confusion"]["40"]}
    page = render(facts, [])
    assert f'title="{resolution} pixels, {state}: top-1' in page
    assert 'id="complement"' not in page  # of one path alone


def test_many_classes_are_told_by_their_mistakes(written: Any) -> None:
    mistakes = {size: [(0, 1, 4)] for size in written.facts["sizes"]}
    page = render(changed(written, confusion=None, mistakes=mistakes), [])
    assert "Most frequent mistakes at 40 pixels" in page
    assert "Confusion matrix" not in page


def test_latencies_of_the_file_are_shown(written: Any) -> None:
    facts = changed(written)
    table = ((48, "plain", 1, 2.5), (48, "folded", 1, 2.25), (32, "plain", 1, 1.5))
    names = ("resolution", "form", "batch_size", "latency_ms")
    facts["network"]["costs"] = {"cpu; 2 threads": [dict(zip(names, row, strict=True)) for row in table]}
    page = render(facts, [])
    assert "plain, batch 1 (ms)</th><th" in page
    assert '<th scope="row">48</th><td>2.50</td><td>2.25</td>' in page
    assert '<th scope="row">32</th><td>1.50</td><td>–</td>' in page
    assert "<dd>1.50 ms</dd>" in page
    assert "Latency" not in render(changed(written), [])


def test_what_is_unknown_is_left_out(written: Any) -> None:
    facts = changed(written)
    facts["made"]["command"] = facts["evaluation"]["ensemble"] = None
    page = render(facts, [])
    assert "<code>rsconvert" not in page
    assert "None" not in re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.DOTALL)

"""Comparison: means, deviations and gains against NumPy's; what the lines are made of."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsconvert.settings import FinetuneConfig
from rsconvert.study.comparison.findings import Comparison, mean_deviation, tabulate
from rsconvert.study.comparison.plan import plan_comparison
from rsconvert.study.comparison.runs import complete
from rsconvert.surgery import SwitchableModel


def cells(table: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {row[0]: row[1:] for row in rows}


def test_a_deviation_is_the_samples_own() -> None:
    values = [80.0, 82.5, 81.0]
    assert mean_deviation(dict(enumerate(values))) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert mean_deviation({3: 80.0}) == (80.0, None)


def test_the_table_tells_means_deviations_and_what_was_not_trained(found: Comparison) -> None:
    table = cells(found.table())
    assert table["top-1 (%) at pixels"] == ["32", "24", "16", "mean"]
    assert table["multiply-adds (M)"] == ["4.0", "2.2", "1.0", ""]
    assert table["I-Nets"] == ["81.0 ± 1.4", "", "60.5 ± 0.7", "70.8 ± 1.1"]
    assert table["I-32"] == ["81.0 ± 1.4", "*70.5 ± 0.7*", "*49.5 ± 0.7*", "*65.2 ± 0.4*"]
    # (83 + 66)/2 and (82 + 69)/2: the mean over 32 and 16, the network's own resolutions, per seed.
    mean = np.mean([[83, 66], [82, 69]], axis=1)
    assert table["RS-Net"][3] == f"{mean.mean():.1f} ± {mean.std(ddof=1):.1f}"


def test_gains_are_differences_within_a_seed(found: Comparison) -> None:
    line = found.lines[2]
    assert found.gains(line) == {32: {0: 3.0, 5: 0.0}, 16: {0: 6.0, 5: 8.0}}
    assert found.gains(found.lines[0]) == {}
    table = cells(found.gain_table())
    assert table["gain (points) at pixels"] == ["32", "24", "16", "mean"]
    assert table["RS-Net"] == ["+1.5 ± 2.1", "", "+7.0 ± 1.4", "+4.2 ± 0.4"]
    assert table["I-32"][:3] == ["+0.0 ± 0.0", "", "*-11.0 ± 1.4*"]
    assert "I-Nets" not in table


def test_plain_data_holds_every_number(found: Comparison) -> None:
    facts = json.loads(json.dumps(found.to_dict()))
    top1 = facts["methods"]["rsnet"]["top1"]["16"]
    assert top1 == {"mean": 67.5, "deviation": pytest.approx(np.std([66, 69], ddof=1)), "seeds": {"0": 66.0, "5": 69.0}}
    assert facts["methods"]["rsnet"]["gain"]["16"]["mean"] == 7.0
    assert facts["methods"]["inets"]["gain"] == {}
    assert facts["runs"][0]["scores"][-1] == {"32": 0.6, "16": 0.4}
    assert (facts["count"], facts["seeds"]) == (200, [0, 5])


def test_lines_are_read_from_the_finished_runs(
    net: SwitchableModel, photos: str, tmp_path: Path, settings: Any
) -> None:
    config: FinetuneConfig = settings(lr=0.1)
    choice: dict[str, Any] = {"methods": ["inets", "one-size"], "seeds": (0, 1), "resolutions": (32, 24, 20, 16)}
    plan = plan_comparison(net, photos, tmp_path / "out", config, **choice)
    assert tabulate(plan).table().count("\n") == 5
    plan.write_settings()
    for run in plan.runs[:5]:
        complete(plan, run)
    found = tabulate(plan)
    held = [json.loads((plan.folder / f"inets-{r}/seed-0/result.json").read_text()) for r in (32, 24, 16)]
    inets, native, one_size = found.lines
    assert found.seeds == (0, 1)
    assert (inets.trained, native.trained, one_size.trained) == ((32, 24, 16), (32,), (32,))
    assert {r: by_seed[0] for r, by_seed in inets.top1.items()} == {
        r: result["resolutions"][str(r)]["top1"] for r, result in zip((32, 24, 16), held, strict=True)
    }
    assert {r: by_seed[0] for r, by_seed in native.top1.items()} == {
        r: held[0]["resolutions"][str(r)]["top1"] for r in (32, 24, 20, 16)
    }
    assert inets.top1[32] == native.top1[32]
    assert (inets.top1[32].keys(), inets.top1[16].keys()) == ({0, 1}, {0})
    assert (native.title, native.name, native.method.name) == ("I-32", "inet-32", "inets")
    assert [(run.method, len(run.scores)) for run in found.runs][-2:] == [("one-size", 1), ("inets", 1)]
    assert [method.name for method in found.learning] == ["one-size"]

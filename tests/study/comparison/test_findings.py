"""Comparison: means, deviations and gains against NumPy's; what the lines are made of."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rsconvert.evaluation import mean_interval
from rsconvert.settings import FinetuneConfig
from rsconvert.study.comparison.findings import Comparison, Line, mean_deviation, tabulate
from rsconvert.study.comparison.methods import another_network
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
    assert table["RS-Net"] == ["(+1.5 ± 2.1)", "", "+7.0 ± 1.4", "+4.2 ± 0.4"]
    assert table["I-32"][:3] == ["(+0.0 ± 0.0)", "", "*-11.0 ± 1.4*"]
    assert "I-Nets" not in table


# Of 200 images the first 160 and 120 for the I-Nets, the first 180 and the last 150 for the RS-Net, of one seed.
RIGHT = {
    "inets": {32: torch.arange(200) < 160, 16: torch.arange(200) < 120},
    "rsnet": {32: torch.arange(200) < 180, 16: torch.arange(200) >= 50},
}


@pytest.fixture
def one_seed(found: Comparison) -> Comparison:
    lines = []
    for line in (found.lines[0], found.lines[2]):
        hits = {r: {0: right.to(torch.uint8)} for r, right in RIGHT[line.name].items()}
        top1 = {r: {0: 100 * float(held[0].double().mean())} for r, held in hits.items()}
        lines.append(replace(line, score=top1, second=top1, hits=hits))
    return replace(found, seeds=(0,), lines=tuple(lines))


def test_of_one_seed_the_interval_is_that_of_the_images(one_seed: Comparison) -> None:
    rsnet = one_seed.lines[1]
    low, high = mean_interval(RIGHT["rsnet"][32].double(), (0.0, 1.0))
    assert low < 90 < high
    table = cells(one_seed.table())
    assert table["RS-Net"][0] == f"90.0 ± {(high - low) / 2:.1f}"
    both = (RIGHT["rsnet"][32].double() + RIGHT["rsnet"][16].double()) / 2
    low, high = mean_interval(both, (0.0, 1.0))
    assert table["RS-Net"][3] == f"82.5 ± {(high - low) / 2:.1f}"
    gain = one_seed.gain(rsnet, 32)
    assert gain is not None
    assert gain.interval == mean_interval(RIGHT["rsnet"][32].double() - RIGHT["inets"][32].double(), (-1.0, 1.0))
    assert (gain.mean, gain.deviation, gain.resolved) == (10.0, None, True)
    facts = one_seed.to_dict()["methods"]["rsnet"]
    assert facts["gain"]["32"]["interval"] == list(gain.interval)
    assert facts["gain"]["32"]["resolved"] is True
    assert "interval" not in facts["top5"]["32"]


def test_a_gain_within_its_interval_is_not_resolved(one_seed: Comparison) -> None:
    inets, rsnet = one_seed.lines
    few = RIGHT["inets"][32].clone()
    few[160:163] = True  # three images more of 200, McNemar p = 0.25
    close = replace(rsnet, score={32: {0: 81.5}}, hits={32: {0: few.to(torch.uint8)}})
    text = cells(replace(one_seed, lines=(inets, close)).gain_table())["RS-Net"][0]
    assert text.startswith("(+1.5 ± ")
    assert text.endswith(")")


def test_another_network_stands_next_to_the_largest_path_of_no_higher_cost(one_seed: Comparison) -> None:
    inets, rsnet = one_seed.lines
    costs = {32: 4_000_000, 24: 2_250_000, 16: 1_000_000}
    method = another_network("narrow", 32)
    right = {32: {0: (torch.arange(200) < 140).to(torch.uint8)}}
    narrow = Line(method.name, "narrow", method, (32,), {32: {0: 70.0}}, {32: {0: 99.0}}, {32: 1_500_000}, right)
    tiny = replace(narrow, title="tiny", multiply_adds={32: 900_000})
    lines = (inets, replace(rsnet, multiply_adds=costs), narrow, tiny)
    table = cells(replace(one_seed, lines=lines).other_table().as_markdown())
    assert table["network"] == ["multiply-adds (M)", "top-1 (%)", "RS-Net"]
    low, high = mean_interval(RIGHT["rsnet"][16].double() - right[32][0].double(), (-1.0, 1.0))
    assert table["narrow"][2] == f"at 16 (1.0 M): (+5.0 ± {(high - low) / 2:.1f})"
    assert (table["narrow"][0], table["tiny"][2]) == ("1.5", "")


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
    assert {r: by_seed[0] for r, by_seed in inets.score.items()} == {
        r: result["resolutions"][str(r)]["top1"] for r, result in zip((32, 24, 16), held, strict=True)
    }
    assert {r: by_seed[0] for r, by_seed in native.score.items()} == {
        r: held[0]["resolutions"][str(r)]["top1"] for r in (32, 24, 20, 16)
    }
    assert inets.score[32] == native.score[32]
    assert (inets.score[32].keys(), inets.score[16].keys()) == ({0, 1}, {0})
    assert (native.title, native.name, native.method.name) == ("I-32", "inet-32", "inets")
    assert [(run.method, len(run.scores)) for run in found.runs][-2:] == [("one-size", 1), ("inets", 1)]
    assert [method.name for method in found.learning] == ["one-size"]

"""The report of a cascade from figures made up by hand: which path it is compared with, the ratios, its text."""

from dataclasses import replace

import pytest

from rsconvert.evaluation import Paired
from rsconvert.runtime.cascade_report import CascadeReport, Outcome, PathFigures
from rsconvert.runtime.thresholds import Fitted

REPORT = CascadeReport(
    aim={"top1": 72.0},
    seed=3,
    fit=Fitted((24, 48), (0.75,), 72.5, 6e6),
    fit_count=21,
    measured=Outcome(20, 70.0, (48.1, 85.5), 69.0, 6e6, 0.5, {24: 60.0, 48: 40.0}),
    paths={
        48: PathFigures(73.0, 75.0, 10_000_000, 0.8, False),
        36: PathFigures(71.0, 70.0, 8_000_000, 0.625, True),
        24: PathFigures(60.0, 55.0, 4_000_000, 0.25, False),
    },
    pairs={48: Paired(1, 2, 1.0), 36: Paired(3, 3, 1.0), 24: Paired(9, 1, 0.021)},
)


def test_it_is_compared_with_the_cheapest_path_as_good() -> None:
    assert (REPORT.best, REPORT.rival) == (48, 36)
    assert REPORT.ratios(36) == {"multiply_adds": 0.75, "milliseconds": 0.8}
    better = replace(REPORT, measured=replace(REPORT.measured, top1=80.0))
    assert (better.best, better.rival) == (48, 48), "no path is as good, so the best one"


def test_of_equally_good_paths_the_cheapest_is_the_best() -> None:
    paths = {r: replace(path, top1=70.0) for r, path in REPORT.paths.items()}
    assert replace(REPORT, paths=paths).best == 24


def test_the_text_has_a_row_per_path_and_says_what_differs() -> None:
    lines = str(REPORT).splitlines()
    assert [line.split() for line in lines[1:5]] == [
        ["48", "73.00", "75.00", "10.0", "0.800", "1"],
        ["36", "71.00", "70.00", "8.0", "0.625", "1", "interpolated"],
        ["24", "60.00", "55.00", "4.0", "0.250", "0.021"],
        ["cascade", "72.50", "70.00", "6.0", "0.500"],
    ]
    assert lines[5:] == [
        "p: how likely a gap as wide to the cascade is between equals (McNemar, on the same images)",
        "20 images measured, 21 others of the fit (seed 3)",
        "cascade: 24 if sure by 0.7500, then 48",
        "answered: 60.0 % at 24, 40.0 % at 48",
        "top-1 70.00 (95 %: 48.1-85.5); 69.00 with a view per stage",
        "against 36, the cheapest path as good: +0.00 points (not significant, p 1), multiply-adds x 0.75, time x 0.80",
        "against 48, the best path: -5.00 points (not significant, p 1), multiply-adds x 0.60, time x 0.62",
        "right alone: only the cascade 1, only 48 2",
    ]


@pytest.mark.parametrize(
    ("top1", "multiply_adds", "p_value", "instead"),
    [
        (70.0, 6e6, 0.02, None),
        (70.0, 6e6, 0.05, 24),  # the only path that costs no more may be as good
        (70.0, 8e6, 0.02, 36),
        (75.0, 1.1e7, 0.02, 48),
        (80.0, 1.1e7, 0.02, None),
        (80.0, 1.1e7, 0.06, 48),
        (54.0, 4.1e6, 0.02, 24),
    ],
)
def test_it_gains_if_every_path_that_costs_no_more_is_worse_beyond_chance(
    top1: float, multiply_adds: float, p_value: float, instead: int | None
) -> None:
    pairs = dict.fromkeys(REPORT.paths, Paired(9, 1, p_value))
    other = replace(REPORT, pairs=pairs, measured=replace(REPORT.measured, top1=top1, multiply_adds=multiply_adds))
    assert (other.instead, other.gains) == (instead, instead is None)
    assert ("no gain" in str(other)) is not other.gains


def test_a_path_that_may_be_as_good_is_named_with_its_gap() -> None:
    doubtful = replace(REPORT, pairs=dict.fromkeys(REPORT.paths, Paired(5, 2, 0.45)))
    assert str(doubtful).splitlines()[-1] == (
        "no gain on these images: the path 24 alone costs no more and is not significantly worse "
        "(-15.00 points, p 0.45)"
    )


def test_a_tiny_p_is_not_printed_as_zero() -> None:
    sure = replace(REPORT, pairs=dict.fromkeys(REPORT.paths, Paired(60, 1, 1e-16)))
    assert "against 48, the best path: -5.00 points (significant, p < 0.001)" in str(sure)


def test_data_is_plain_and_keeps_the_record() -> None:
    facts = REPORT.to_dict()
    assert facts["measured"]["answered"] == {"24": 60.0, "48": 40.0}
    assert facts["measured"]["top1_interval"] == [48.1, 85.5]
    assert facts["rival"] == {"resolution": 36, "ratios": {"multiply_adds": 0.75, "milliseconds": 0.8}}
    assert {name: facts[name] for name in REPORT.record()} == REPORT.record()

"""Importance scores out of summaries: means and deviations by NumPy, and what is no summary."""

from pathlib import Path

import numpy as np
import pytest

from rsconvert.errors import CheckpointError, ConfigError
from rsconvert.study.importance import importance, mean_scores, plot_importance, read_scores

SCORES = np.array([[[0.2, 0.3, 0.5], [0.3, 0.3, 0.4], [0.6, 0.3, 0.1]], [[0.4, 0.3, 0.3], [0.4, 0.4, 0.2], [0, 0, 1]]])


def run(folder: Path, scores: np.ndarray, names: str = "score_64,score_48,score_32") -> Path:
    folder.mkdir()
    rows = [f"{epoch},0.5,{','.join(map(str, row))},81.0" for epoch, row in enumerate(scores.tolist(), start=1)]
    (folder / "summary.csv").write_text("\n".join([f"epoch,loss,{names},top1_64", *rows]) + "\n")
    return folder


def values(scores: dict[int, dict[int, float]]) -> list[list[float]]:
    return [list(row.values()) for row in scores.values()]


def test_one_run_has_no_deviation(tmp_path: Path) -> None:
    result = importance([run(tmp_path / "a", SCORES[0])])
    assert (result.runs, result.resolutions, result.deviation) == (1, (64, 48, 32), None)
    assert list(result.mean) == [1, 2, 3]
    np.testing.assert_allclose(values(result.mean), SCORES[0])
    assert result.to_dict()["mean"]["1"] == {"64": 0.2, "48": 0.3, "32": 0.5}
    assert result.falling


def test_several_runs_have_mean_and_deviation_over_the_epochs_of_all(tmp_path: Path) -> None:
    result = importance([run(tmp_path / "a", SCORES[0]), run(tmp_path / "b", SCORES[1][:2])])
    assert list(result.mean) == [1, 2]
    np.testing.assert_allclose(values(result.mean), SCORES[:, :2].mean(0))
    assert result.deviation is not None
    np.testing.assert_allclose(values(result.deviation), SCORES[:, :2].std(0, ddof=1))
    assert not result.falling, "two scores are equal"
    table = result.table()
    assert (len(table.titles), {len(row) for row in table.rows}) == (7, {7})
    assert "do not fall" in table.note


@pytest.mark.parametrize(
    ("last", "words"),
    [
        ([[0.5, 0.3, 0.2]], "fall with the resolution"),
        ([[0.335, 0.333, 0.332]], "are equal"),
        ([[0.34, 0.336, 0.324]], "do not fall with the resolution beyond noise"),
        ([[1.0]], "are equal"),
        ([[0.6, 0.2, 0.2], [0.4, 0.4, 0.2]], "do not fall with the resolution beyond noise"),
        ([[0.6, 0.3, 0.1], [0.58, 0.31, 0.11]], "fall with the resolution"),
    ],
)
def test_equal_scores_do_not_fall(last: list[list[float]], words: str) -> None:
    sides = (64, 48, 32)
    result = mean_scores([[dict(zip(sides, row, strict=False))] for row in last])
    assert result.table().note == f"Runs: {len(last)}. At the end the scores {words}."


def test_a_run_counts_once(tmp_path: Path) -> None:
    folder = run(tmp_path / "a", SCORES[0])
    with pytest.raises(ConfigError, match=r"a is given twice"):
        importance([folder, tmp_path / "." / "a"])


def test_other_resolutions_have_no_mean(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"b has the resolutions \(64, 48, 16\)"):
        importance([run(tmp_path / "a", SCORES[0]), run(tmp_path / "b", SCORES[0], "score_64,score_48,score_16")])


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "epoch\n1\n",
        "epoch,score_64\n",
        "epoch,score_x\n1,1\n",
        "epoch,score_64\n1\n",
        "epoch,score_64\n1,1\n2,\n",
    ],
)
def test_what_is_no_summary_is_named(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "summary.csv").write_text(text)
    with pytest.raises(CheckpointError, match=r"summary\.csv holds no importance scores"):
        importance([tmp_path])


def test_the_curves_are_the_scores(tmp_path: Path) -> None:
    result = importance([run(tmp_path / "a", SCORES[0]), run(tmp_path / "b", SCORES[1])])
    (axes,) = plot_importance(result).axes
    equal, *curves = axes.lines
    assert set(equal.get_ydata()) == {1 / 3}
    assert [line.get_label() for line in curves] == ["64", "48", "32"]
    np.testing.assert_allclose([line.get_ydata() for line in curves], SCORES.mean(0).T)
    assert len(axes.collections) == 3


def test_a_damaged_summary_is_named(tmp_path: Path) -> None:
    (tmp_path / "summary.csv").write_text("epoch,score_64\n1,x\n")
    with pytest.raises(CheckpointError, match=r"summary\.csv is damaged"):
        read_scores(tmp_path)

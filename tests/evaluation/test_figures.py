from pathlib import Path

import pytest

from rsconvert.evaluation import Accuracy, Evaluation
from rsconvert.evaluation.figures import plot_accuracy

CURVES = {
    name: Evaluation(100, {r: Accuracy(gain + r / 4, 99.0, r * r, r == 48) for r in (64, 48, 32)}, None)
    for name, gain in (("ordinary", 0.0), ("switchable", 5.0))
}


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml")])
def test_a_figure_is_written_in_the_format_of_its_name(tmp_path: Path, name: str, start: bytes) -> None:
    plot_accuracy(CURVES, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)


def test_a_figure_names_its_axes_and_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "none"}):
        plot_accuracy(CURVES, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert all(word in text for word in ("ordinary", "switchable", "top-1 (%)", "resolution (pixels)", "multiply-adds"))

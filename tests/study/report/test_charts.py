import re

import pytest

from rsconvert.study.report.charts import HEIGHT, WIDTH, Chart, Series, draw


def chart(*series: Series, **more: object) -> Chart:
    return draw(series, title="t", x_label="x", y_label="y", **more)  # type: ignore[arg-type]


def test_points_lie_where_the_ticks_say() -> None:
    drawn = chart(Series("a", [(96, 70.0), (128, 75.0), (224, 90.0)]), x_ticks=[96, 128, 224])
    ticks = {text: place for place, text in drawn.y_ticks}
    marks = drawn.curves[0].marks
    assert [mark.y for mark in marks] == [ticks["70"], ticks["75"], ticks["90"]]
    assert [mark.x for mark in marks] == [place for place, _ in drawn.x_ticks]
    assert (marks[1].x - marks[0].x) / (marks[2].x - marks[0].x) == pytest.approx(32 / 128, abs=0.002)
    assert drawn.curves[0].line == "M" + "L".join(f"{mark.x:g} {mark.y:g}" for mark in marks)


def test_everything_is_inside_the_box() -> None:
    drawn = chart(Series("a", [(0, 1e-3), (7, 3e5)], [(0, 2), (2e5, 4e5)]), Series("b", [(3, -50.0)]))
    numbers = [float(n) for c in drawn.curves for n in re.findall(r"-?[\d.]+", c.line + c.band)]
    assert min(numbers) >= 0
    assert max(numbers) <= max(WIDTH, HEIGHT)
    for curve in drawn.curves:
        assert all(drawn.left <= m.x <= drawn.right and drawn.top <= m.y <= drawn.bottom for m in curve.marks)


def test_the_band_goes_there_and_back() -> None:
    (curve,) = chart(Series("a", [(0, 5.0), (1, 6.0)], [(4, 6), (5, 7)])).curves
    xs = [float(x) for x in re.findall(r"[ML]([\d.]+) ", curve.band)]
    ys = [float(y) for y in re.findall(r" ([\d.]+)", curve.band)]
    assert xs == [xs[0], xs[1], xs[1], xs[0]]
    assert ys[0] < ys[3]  # higher values lie further up
    assert ys[1] < ys[2]
    assert curve.band.endswith("Z")


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(71.4, 93.9, "70 75 80 85 90 95"), (0, 1, "0 0.2 0.4 0.6 0.8 1"), (90, 90, "90"), (0.0, 4e6, "0 1e+06 2e+06")],
)
def test_ticks_are_round_numbers(low: float, high: float, ticks: str) -> None:
    told = " ".join(text for _, text in chart(Series("a", [(0, low), (1, high)])).y_ticks)
    assert told.startswith(ticks)


def test_one_epoch_alone_is_a_chart() -> None:
    drawn = chart(Series("a", [(1, 2.5)]), whole=True)
    assert [text for _, text in drawn.x_ticks] == ["1"]
    assert drawn.left < drawn.curves[0].marks[0].x < drawn.right


def test_epochs_are_whole_numbers() -> None:
    drawn = chart(Series("a", [(1, 2.5), (2, 3.5), (3, 4)]), whole=True)
    assert [text for _, text in drawn.x_ticks] == ["1", "2", "3"]


def test_labels_that_would_touch_are_left_out() -> None:
    drawn = chart(Series("a", [(x, x) for x in (32, 128, 132, 224)]), x_ticks=[224, 132, 128, 32])
    assert [text for _, text in drawn.x_ticks] == ["32", "128", "224"]


def test_marks_know_their_size() -> None:
    (curve,) = chart(Series("a", [(1, 2), (3, 4)], sizes=["32", "64"], hollow=[True, False])).curves
    assert [(mark.size, mark.hollow, mark.value) for mark in curve.marks] == [("32", True, 2), ("64", False, 4)]

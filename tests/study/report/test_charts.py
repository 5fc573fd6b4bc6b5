import re

import pytest

from rsconvert.study.curves import Chart, Curve, Point
from rsconvert.study.report.charts import Drawing


def curve(*points: tuple[float, float], intervals: tuple[tuple[float, float], ...] = (), band: bool = True) -> Curve:
    spans = intervals or (None,) * len(points)
    return Curve("a", tuple(Point(x, y, span) for (x, y), span in zip(points, spans, strict=True)), band=band)


def drawing(*curves: Curve, x_label: str = "x", x_ticks: tuple[float, ...] = ()) -> Drawing:
    return Drawing(Chart("t", x_label, "y", curves, x_ticks))


def places(drawn: Drawing) -> list[tuple[float, float]]:
    return [(drawn.across(p.x), drawn.up(p.y)) for one in drawn.chart.curves for p in one.points]


def test_points_lie_where_the_ticks_say() -> None:
    drawn = drawing(curve((96, 70.0), (128, 75.0), (224, 90.0)), x_ticks=(96, 128, 224))
    ticks = {text: place for place, text in drawn.y_ticks}
    xs, ys = zip(*places(drawn), strict=True)
    assert list(ys) == [ticks["70"], ticks["75"], ticks["90"]]
    assert list(xs) == [place for place, _ in drawn.x_ticks]
    assert (xs[1] - xs[0]) / (xs[2] - xs[0]) == pytest.approx(32 / 128, abs=0.002)
    assert drawn.line(drawn.chart.curves[0]) == "M" + "L".join(f"{x:g} {y:g}" for x, y in places(drawn))


def test_everything_is_inside_the_box() -> None:
    drawn = drawing(curve((0, 1e-3), (7, 3e5), intervals=((0, 2), (2e5, 4e5))), curve((3, -50.0)))
    numbers = [float(n) for c in drawn.chart.curves for n in re.findall(r"-?[\d.]+", drawn.line(c) + drawn.interval(c))]
    assert min(numbers) >= 0
    assert max(numbers) <= 480
    assert all(drawn.left <= x <= drawn.right and drawn.top <= y <= drawn.bottom for x, y in places(drawn))


def test_the_band_goes_there_and_back() -> None:
    one = curve((0, 5.0), (1, 6.0), intervals=((4, 6), (5, 7)))
    band = drawing(one).interval(one)
    xs = [float(x) for x in re.findall(r"[ML]([\d.]+) ", band)]
    ys = [float(y) for y in re.findall(r" ([\d.]+)", band)]
    assert xs == [xs[0], xs[1], xs[1], xs[0]]
    assert ys[0] < ys[3]  # higher values lie further up
    assert ys[1] < ys[2]
    assert band.endswith("Z")


def test_bars_go_from_the_lowest_to_the_highest() -> None:
    one = Curve("a", (Point(0, 5.0, (4, 6)), Point(1, 5.0)))
    drawn = drawing(one)
    assert drawn.interval(one) == f"M{drawn.across(0):g} {drawn.up(4):g}V{drawn.up(6):g}"
    assert drawn.interval(curve((0, 5.0))) == drawn.interval(curve((0, 5.0), band=False)) == ""


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(71.4, 93.9, "70 75 80 85 90 95"), (0, 1, "0 0.2 0.4 0.6 0.8 1"), (90, 90, "90"), (0.0, 4e6, "0 1e+06 2e+06")],
)
def test_ticks_are_round_numbers(low: float, high: float, ticks: str) -> None:
    shown = " ".join(text for _, text in drawing(curve((0, low), (1, high))).y_ticks)
    assert shown.startswith(ticks)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_epochs_are_whole_numbers(count: int) -> None:
    drawn = drawing(curve(*((epoch, 2.5 + epoch) for epoch in range(1, count + 1))), x_label="epoch")
    assert [text for _, text in drawn.x_ticks] == ["1", "2", "3"][:count]
    assert drawn.left < places(drawn)[0][0] < drawn.right


def test_labels_that_would_touch_are_left_out() -> None:
    drawn = drawing(curve(*((x, x) for x in (32, 128, 132, 224))), x_ticks=(32, 128, 132, 224))
    assert [text for _, text in drawn.x_ticks] == ["32", "128", "224"]

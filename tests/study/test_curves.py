"""The curves of accuracy: what is drawn is what was measured."""

import numpy as np
import pytest

from rsconvert.evaluation import Accuracy, Evaluation
from rsconvert.study.curves import Curve, Point, accuracy_charts, dense_resolutions, over_resolution, plot_accuracy

SIZES = (64, 48, 32)


def curve(gain: float, *trained: int) -> Evaluation:
    rows = {
        r: Accuracy(gain + r / 4, 99.0, 1000 * r * r, r not in trained, (gain + r / 4 - 2, gain + r / 4 + 3))
        for r in SIZES
    }
    return Evaluation(100, dict(rows), None)


CURVES = {"ordinary": curve(0, 64), "switchable": curve(5, 64, 32)}


def test_dense_resolutions_hold_the_trained_ones_and_stay_between_them() -> None:
    assert dense_resolutions((224, 192, 160, 128, 96)) == tuple(range(224, 95, -16))
    assert dense_resolutions((100, 60), 16) == (100, 92, 76, 60)
    assert dense_resolutions((64,)) == (64,)


def test_both_panels_show_the_figures() -> None:
    left, right = plot_accuracy(CURVES).axes
    assert (left.get_ylabel(), left.get_xlabel()) == ("top-1 (%)", "resolution (pixels); hollow: not trained")
    assert left.get_xticks().tolist() == [32, 64], "the trained ones of either network"
    assert right.get_xlabel() == "multiply-adds (millions)"
    for axes, xs in ((left, [32, 48, 64]), (right, [1.024, 2.304, 4.096])):
        lines = {line.get_label(): line for line in axes.lines}
        for name, gain in (("ordinary", 0), ("switchable", 5)):
            np.testing.assert_allclose(lines[name].get_xdata(), xs)
            np.testing.assert_allclose(lines[name].get_ydata(), [gain + 8, gain + 12, gain + 16])


def test_intervals_are_a_band_of_the_first_network_and_bars_of_the_others() -> None:
    left, _ = plot_accuracy(CURVES).axes
    band, bars = left.collections
    (path,) = band.get_paths()
    expected = {(r, r / 4 + side) for r in SIZES for side in (-2, 3)}
    assert expected <= {tuple(point) for point in np.asarray(path.vertices).tolist()}
    ends = [np.asarray(path.vertices).tolist() for path in bars.get_paths()]
    assert ends == [[[r, 5 + r / 4 - 2], [r, 5 + r / 4 + 3]] for r in (32, 48, 64)]


def test_hollow_marks_are_untrained() -> None:
    left, _ = plot_accuracy({"switchable": CURVES["switchable"]}).axes
    line, hollow = left.lines
    assert [line.get_xdata()[i] for i in line.get_markevery()] == [32, 64]  # type: ignore[union-attr, index]
    assert (list(hollow.get_xdata()), hollow.get_markerfacecolor(), hollow.get_linestyle()) == ([48], "white", "None")


def test_charts_hold_what_every_figure_shows() -> None:
    sides, costs = accuracy_charts(CURVES)
    assert (sides.x_label, sides.y_label, sides.x_ticks) == (
        "resolution (pixels); hollow: not trained",
        "top-1 (%)",
        (32, 64),
    )
    assert (costs.x_label, costs.y_label, costs.x_ticks) == ("multiply-adds (millions)", "top-1 (%)", ())
    ordinary, switchable = sides.curves
    assert (ordinary.style, ordinary.band, switchable.style, switchable.band) == (0, True, 2, False)
    assert switchable.points == (
        Point(32, 13, (11, 16), "32", False),
        Point(48, 17, (15, 20), "48", True),
        Point(64, 21, (19, 24), "64", False),
    )
    assert [point.x for point in costs.curves[1].points] == [1.024, 2.304, 4.096]


def test_a_height_and_a_width_lie_at_their_resolution() -> None:
    rows = {(32, 50): Accuracy(50.0, 99.0, 1), 48: Accuracy(60.0, 99.0, 2)}
    sides, _ = accuracy_charts({"net": Evaluation(10, dict(rows), None)})
    assert [(point.x, point.size) for point in sides.curves[0].points] == [(40, "32x50"), (48, "48")]


def test_ticks_are_where_a_curve_was_trained() -> None:
    curves = [Curve("a", (Point(32, 1.0), Point(48, 2.0, hollow=True))), Curve("b", (Point(64, 1.0),), 1)]
    assert over_resolution(curves).x_ticks == (32, 64)


def test_several_i_nets_are_one_curve_over_multiply_adds() -> None:
    figure = plot_accuracy({"net": curve(5, *SIZES), "I-64": curve(1, 64), "I-32": curve(2, 32)})
    left, right = figure.axes
    assert {"net", "I-64", "I-32"} <= {line.get_label() for line in left.lines}
    lines = {line.get_label(): line for line in right.lines}
    assert not {"I-64", "I-32"} & lines.keys()
    (own,) = (line for name, line in lines.items() if str(name).startswith("I-Nets"))
    np.testing.assert_allclose(own.get_xdata(), [1.024, 4.096])
    np.testing.assert_allclose(own.get_ydata(), [10, 17])
    colours = [line.get_color() for line in (*left.lines, own) if not str(line.get_label()).startswith("_")]
    assert len(set(colours)) == 4, "the curve through all has none of theirs"
    (legend,) = figure.legends
    assert [text.get_text()[:6] for text in legend.texts] == ["net", "I-64", "I-32", "I-Nets"]


@pytest.mark.parametrize("count", [1, 8])
def test_any_number_of_networks_is_drawn(count: int) -> None:
    plot_accuracy({f"net {i}": curve(i, 64) for i in range(count)}).draw_without_rendering()


def test_rows_without_an_interval_are_drawn() -> None:
    plain = Evaluation(10, {r: Accuracy(50.0, 99.0, r * r) for r in SIZES}, None)
    plot_accuracy({"net": plain, "other": plain}).draw_without_rendering()

"""What one resolution gets right and another wrong: counted again in NumPy from logits."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import AxesImage

from rsconvert.data import Samples
from rsconvert.errors import ConfigError, DataError
from rsconvert.evaluation import Predictions, predict
from rsconvert.study.complementarity import (
    Complementarity,
    complementarity,
    own_resolutions,
    plot_complementarity,
    right_answers,
)
from rsconvert.surgery import SwitchableModel

# The module, whose name its function has in the package.
module = sys.modules["rsconvert.study.complementarity"]

# Four images: what the three paths get right.
BY_HAND = {24: (1, 1, 1, 0), 16: (1, 0, 0, 0), 12: (0, 1, 0, 0)}


def counted(right: Mapping[int, np.ndarray]) -> dict[tuple[str, str], float]:
    """The matrix in percent, entry by entry."""
    return {(str(i), str(j)): 100 * float(np.mean(right[i] & ~right[j])) for i in right for j in right}


def flat(result: dict[str, Any]) -> dict[tuple[str, str], float]:
    return {(i, j): share for i, row in result["right_wrong"].items() for j, share in row.items()}


def right_of(found: Predictions, name: str, size: int) -> np.ndarray:
    logits = found.answers[name][size].logits
    assert logits is not None
    right: np.ndarray = logits.double().numpy().argmax(1) == found.targets.numpy()
    return right


@pytest.fixture
def by_hand() -> Complementarity:
    return complementarity({r: torch.tensor(right, dtype=torch.bool) for r, right in BY_HAND.items()})


def test_the_shares_by_hand(by_hand: Complementarity) -> None:
    assert by_hand.right_wrong == {24: {24: 0, 16: 50, 12: 50}, 16: {24: 0, 16: 0, 12: 25}, 12: {24: 0, 16: 25, 12: 0}}
    assert by_hand.top1 == {24: 75, 16: 25, 12: 25}
    assert (by_hand.count, by_hand.right_anywhere, by_hand.right_everywhere) == (4, 75, 0)
    assert by_hand.to_dict()["right_wrong"]["24"] == {"24": 0, "16": 50, "12": 50}


def test_the_table_has_a_row_for_the_right_resolution(by_hand: Complementarity) -> None:
    table = by_hand.table()
    assert table.titles == ["right at", "wrong at 24", "wrong at 16", "wrong at 12", "top-1"]
    assert table.rows[0] == [24, None, 50, 50, 75]
    assert "4 images" in table.note


def test_one_network_at_its_trained_resolutions(network: Callable[..., SwitchableModel], samples: Samples) -> None:
    net = network(24, 16, 12)
    found = predict({"net": net}, samples, (24, 16, 12), workers=0, keep_logits=True)
    right = {r: right_of(found, "net", r) for r in (24, 16, 12)}
    result = complementarity(right_answers(own_resolutions({"net": net}), samples, workers=0)).to_dict()
    assert flat(result) == pytest.approx(counted(right))
    assert result["top1"] == pytest.approx({str(r): 100 * right[r].mean() for r in right})
    stacked = np.stack(list(right.values()))
    assert result["right_anywhere"] == pytest.approx(100 * stacked.any(0).mean())
    assert result["right_everywhere"] == pytest.approx(100 * stacked.all(0).mean())
    assert len(set(counted(right).values())) > 3, "the paths must differ to tell them apart"


def test_several_networks_each_at_its_own_resolution(network: Callable[..., SwitchableModel], samples: Samples) -> None:
    nets = {"a": network(16, seed=2), "b": network(24, 12, seed=3), "20": network(24, 16, seed=4).extract(24)}
    own = own_resolutions(nets)
    assert list(own.items()) == [(24, nets["b"]), (20, nets["20"]), (16, nets["a"])]
    found = {r: predict({"net": net}, samples, [r], workers=0, keep_logits=True) for r, net in own.items()}
    result = complementarity(right_answers(own, samples, workers=0))
    assert list(result.top1) == [24, 20, 16]
    assert flat(result.to_dict()) == pytest.approx(counted({r: right_of(found[r], "net", r) for r in own}))


def test_another_order_of_the_images_is_refused(
    network: Callable[..., SwitchableModel], samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = list(range(len(samples)))
    readings = iter([samples.subset(order), samples.subset(order[::-1])])
    monkeypatch.setattr(
        module, "predict", lambda nets, _, *rest, **options: predict(nets, next(readings), *rest, **options)
    )
    with pytest.raises(DataError, match="another order"):
        right_answers({24: network(24), 16: network(16)}, samples, workers=0)


def test_a_name_that_is_a_number_chooses_the_resolution(network: Callable[..., SwitchableModel]) -> None:
    net = network(24, 16)
    assert own_resolutions({"net": net}) == {24: net, 16: net}
    assert own_resolutions({"16": net}) == {16: net}


def test_a_network_must_stand_for_one_resolution(network: Callable[..., SwitchableModel]) -> None:
    net = network(16)
    with pytest.raises(ConfigError, match="network b stands for 16"):
        own_resolutions({"a": net, "b": network(16, 12)})
    with pytest.raises(ConfigError, match="network b stands for no resolution"):
        own_resolutions({"a": net, "b": net.extract(16)})


def test_the_matrices_share_one_scale_of_colours(by_hand: Complementarity) -> None:
    other = complementarity({r: torch.tensor(right[::-1], dtype=torch.bool) for r, right in list(BY_HAND.items())[:2]})
    figure = plot_complementarity({"before": by_hand, "after": other})
    *panels, bar = figure.axes
    assert [axes.get_title() for axes in panels] == ["before", "after"]
    assert [axes.images[0].get_clim() for axes in panels] == [(0, 50)] * 2
    image = panels[0].images[0]
    assert isinstance(image, AxesImage)
    shown = np.ma.filled(np.ma.asarray(image.get_array()), np.nan)
    np.testing.assert_array_equal(shown, [[np.nan, 50, 50], [0, np.nan, 25], [0, 25, np.nan]])
    assert [text.get_text() for text in panels[0].texts][:3] == ["–", "50.0", "50.0"]
    left, right = image.axes.get_xlim()
    bottom, top = image.axes.get_ylim()
    assert left > right, "the first resolution, the largest, is on the right"
    assert bottom > top, "and at the top"
    assert bar.get_ylabel() == "images (%)"


def test_paths_that_never_differ_can_be_drawn() -> None:
    same = torch.ones(3, dtype=torch.bool)
    plot_complementarity({"all right": complementarity({2: same, 1: same})}).draw_without_rendering()

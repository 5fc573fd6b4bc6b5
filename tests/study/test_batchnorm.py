"""What the sets hold: each row by NumPy from the tensors of the file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from rsconvert import save
from rsconvert.errors import UnsupportedModelError
from rsconvert.study import batchnorm_sets, plot_batchnorm
from rsconvert.surgery import SwitchableModel, make_switchable

TENSORS = ("weight", "bias", "running_mean", "running_var")


def test_every_row_is_that_of_the_file(network: Callable[..., SwitchableModel], tmp_path: Path) -> None:
    net = network(32, 24, 16)
    save(net, tmp_path / "net.safetensors")
    tensors = load_file(tmp_path / "net.safetensors")
    result = batchnorm_sets(net)
    assert [(row.layer, row.tensor, row.resolution) for row in result.rows] == [
        (layer, tensor, r) for layer in ("bn1", "bn2") for tensor in TENSORS for r in (32, 24, 16)
    ]
    for row in result.rows:
        native = tensors[f"{row.layer}.{row.tensor}"].astype(float)
        own = native if row.resolution == 32 else tensors[f"{row.layer}.at.{row.resolution}.{row.tensor}"].astype(float)
        assert (row.mean, row.deviation) == pytest.approx((own.mean(), own.std()))
        scale = np.sqrt((own @ own + native @ native) / 2)
        assert row.distance == pytest.approx(np.sqrt(((own - native) ** 2).sum()) / scale)
    both = [row.distance for row in result.rows if (row.tensor, row.resolution) == ("bias", 16)]
    assert result.to_dict()["mean_distance"]["16"]["bias"] == pytest.approx(np.mean(both))
    assert len(result.data().as_csv().splitlines()) == 1 + 24


def test_distances_tell_equal_opposite_and_zero_sets(tiny: type) -> None:
    net = make_switchable(tiny(), (32, 16))
    bns = dict(net.switchable_bns())
    with torch.no_grad():
        for bn, factor in ((bns["bn1"], -1), (bns["bn2"], 1)):
            bn.sets[1].weight.mul_(factor)
        bns["bn2"].sets[1].bias.zero_()
        bns["bn2"].sets[0].bias.zero_()
    rows = {(r.layer, r.tensor): r.distance for r in batchnorm_sets(net).rows if r.resolution == 16}
    assert rows["bn1", "weight"] == pytest.approx(2)
    assert rows["bn2", "weight"] == rows["bn2", "bias"] == 0


@pytest.mark.parametrize(
    ("norm", "tensors"),
    [
        (lambda c: nn.BatchNorm2d(c, affine=False), TENSORS[2:]),
        (lambda c: nn.BatchNorm2d(c, track_running_stats=False), TENSORS[:2]),
        (FrozenBatchNorm2d, TENSORS),
    ],
)
def test_a_tensor_that_a_layer_lacks_has_no_row(tiny: type, norm: Callable[..., nn.Module], tensors: tuple) -> None:
    result = batchnorm_sets(make_switchable(tiny(norm), (32, 16)))
    assert {row.tensor for row in result.rows} == set(tensors)
    plot_batchnorm(result).draw_without_rendering()
    assert result.table().rows[0].count("") == 4 - len(tensors)


def test_a_network_with_one_set_for_all_is_refused(tiny: type) -> None:
    with pytest.raises(UnsupportedModelError, match="one BN set for all"):
        batchnorm_sets(make_switchable(tiny(), (32, 16), private=False))


def test_curves_are_means_above_and_distances_below(network: Callable[..., SwitchableModel]) -> None:
    result = batchnorm_sets(network(32, 24, 16))
    panels = plot_batchnorm(result).axes
    assert [axes.get_title() for axes in panels[:4]] == ["γ", "β", "μ", "σ²"]
    for column, tensor in enumerate(TENSORS):
        for line, r in enumerate((32, 24, 16)):
            rows = [row for row in result.rows if (row.tensor, row.resolution) == (tensor, r)]
            np.testing.assert_allclose(panels[column].lines[line].get_ydata(), [row.mean for row in rows])
            np.testing.assert_allclose(panels[4 + column].lines[line].get_ydata(), [row.distance for row in rows])
    assert panels[4].lines[0].get_clip_on() is False, "the native curve lies on the axis"


@pytest.mark.parametrize(("factor", "scale"), [(1, "linear"), (1000, "log")])
def test_variances_that_differ_tenfold_have_a_logarithmic_axis(tiny: type, factor: float, scale: str) -> None:
    net = make_switchable(tiny(), (32, 16))
    dict(net.switchable_bns())["bn1"].sets[1].running_var.mul_(factor)
    assert plot_batchnorm(batchnorm_sets(net)).axes[3].get_yscale() == scale

"""Statistics over batches against NumPy and against torch's own running average."""

import contextlib

import numpy as np
import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from rsconvert.calibration.statistics import MovingAverage, Population, normalizing_by_batch
from rsconvert.errors import TrainingError

SHAPES = {
    nn.BatchNorm1d: [(5, 4), (2, 4, 7), (3, 4)],
    nn.BatchNorm2d: [(2, 4, 5, 3), (7, 4, 1, 2), (1, 4, 2, 2)],
    nn.BatchNorm3d: [(2, 4, 3, 3, 3), (1, 4, 2, 1, 2)],
    BatchNormAct2d: [(2, 4, 5, 3), (1, 4, 6, 1)],
}


def batches(kind: type[nn.Module], offset: float = 0.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) * (i + 1) + i + offset for i, shape in enumerate(SHAPES[kind])]


def channels(x: Tensor) -> np.ndarray:
    return x.double().numpy().swapaxes(0, 1).reshape(4, -1)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", SHAPES)
def test_the_population_is_that_of_numpy(kind: type[nn.Module], affine: bool) -> None:
    bn, found = kind(4, affine=affine).eval(), Population()
    with normalizing_by_batch(bn, "bn", found):
        for x in batches(kind):
            bn(x)
    values = np.concatenate([channels(x) for x in batches(kind)], axis=1)
    np.testing.assert_allclose(found.mean.numpy(), values.mean(1), rtol=1e-12)
    np.testing.assert_allclose(found.variance.numpy(), values.var(1), rtol=1e-12)
    assert found.batches == len(SHAPES[kind])


def test_a_mean_far_from_zero_does_not_cancel() -> None:
    """E[x²] - E[x]² as written would lose all its digits."""
    generator, found = torch.Generator().manual_seed(0), Population()
    parts = [torch.randn(50, 1, generator=generator, dtype=torch.float64) + 1e6 for _ in range(20)]
    for part in parts:
        found.add(50, part.mean(0), part.var(0, correction=0))
    assert found.variance.item() == pytest.approx((torch.cat(parts) - 1e6).var(correction=0).item(), rel=1e-9)


@pytest.mark.parametrize("momentum", [0.1, 0.003, None])
@pytest.mark.parametrize("kind", SHAPES)
def test_the_moving_average_is_that_of_torch(kind: type[nn.Module], momentum: float | None) -> None:
    bn, reference = (kind(4, momentum=momentum).eval() for _ in range(2))
    found = MovingAverage(bn)
    with normalizing_by_batch(bn, "bn", found):
        for x in batches(kind):
            torch.testing.assert_close(bn(x), reference.train()(x))
    torch.testing.assert_close(found.mean.float(), reference.running_mean)
    torch.testing.assert_close(found.variance.float(), reference.running_var)


def test_the_batchnorm_is_left_as_it_was() -> None:
    bn = nn.BatchNorm2d(4).eval()
    bn.running_mean.fill_(-0.0)
    before = {name: tensor.numpy().tobytes() for name, tensor in bn.state_dict().items()}
    with contextlib.suppress(KeyboardInterrupt), normalizing_by_batch(bn, "bn", Population()):
        bn(torch.full((1, 4, 1, 2), torch.nan))
        raise KeyboardInterrupt
    assert {name: tensor.numpy().tobytes() for name, tensor in bn.state_dict().items()} == before
    assert not bn._forward_pre_hooks


def test_one_value_per_channel_has_no_variance() -> None:
    bn, found = nn.BatchNorm2d(4).eval(), Population()
    with normalizing_by_batch(bn, "layer.bn at 96", found):
        bn(torch.rand(0, 4, 1, 1))
        assert found.batches == 0
        bn(input=torch.rand(2, 4, 1, 1))
        with pytest.raises(TrainingError, match=r"layer.bn at 96 gets one value per channel .*Take more images"):
            bn(torch.rand(1, 4, 1, 1))

"""Mixture: share · start + (1 - share) · trained, by NumPy; what has no start is the trained."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from rsconvert.models import classifier_keys
from rsconvert.surgery import SwitchableModel
from rsconvert.training.step.mixture import Mixture

MakeNet = Callable[..., SwitchableModel]


def trained(net: SwitchableModel) -> None:
    """Move every value in place, as training does."""
    generator = torch.Generator().manual_seed(1)
    for value in net.state_dict().values():
        value += torch.randn(value.shape, generator=generator).to(value) if value.is_floating_point() else 3


@pytest.mark.parametrize("new", [False, True])
def test_values_lie_between_start_and_trained(make_net: MakeNet, new: bool) -> None:
    net = make_net()
    head = classifier_keys(net.at(net.native))
    net.source = replace(net.source, new_classifier=tuple(head) if new else ())
    before = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    mixture = Mixture(net, 0.25)
    trained(net)
    mixture.update(net)
    for name, value in mixture.net.state_dict().items():
        after = net.state_dict()[name].numpy()
        without_start = name == "rsconvert.alpha" or after.dtype == np.int64 or (new and name in head)
        wanted = after if without_start else 0.25 * before[name] + 0.75 * after
        np.testing.assert_allclose(value.numpy(), wanted, atol=1e-6, err_msg=name)


def test_what_did_not_move_keeps_its_bits(make_net: MakeNet) -> None:
    net = make_net()
    mixture = Mixture(net, 0.3)
    mixture.update(net)
    for name, value in mixture.net.state_dict().items():
        assert torch.equal(value, net.state_dict()[name]), name
        assert value.data_ptr() != net.state_dict()[name].data_ptr(), name

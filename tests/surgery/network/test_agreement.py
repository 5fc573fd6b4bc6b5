"""Agreement: a path that was changed alone, or that is in another mode, is refused with its place and the way out."""

import pytest
import torch
from torch import nn

from rsconvert.errors import UnsupportedModelError
from rsconvert.surgery import make_switchable
from rsconvert.surgery.network.agreement import Agreement, check_batchnorms
from rsconvert.surgery.network.layer import SwitchableBN
from rsconvert.surgery.network.parts import Part, make_part


@pytest.fixture
def part() -> Part:
    """A stand-in for two blocks with a BatchNorm each, which share a convolution."""
    layer, conv = SwitchableBN(nn.BatchNorm2d(2), (64, 48)), nn.Conv2d(2, 2, 1)
    twins = [nn.Sequential(conv, one) for one in layer.sets]
    return make_part(twins, {"0": conv, "1": layer}, "layer1")


def test_paths_as_they_were_noted_pass(part: Part) -> None:
    agreement = Agreement((part,), (64, 48))
    for place in (0, 1):
        agreement.check(place)


@pytest.mark.parametrize("place", [0, 1])
def test_a_child_of_one_twin_alone_is_refused_in_its_path(place: int, part: Part) -> None:
    agreement = Agreement((part,), (64, 48))
    part._rs_twins[place]._modules["0"] = nn.Identity()
    agreement.check(1 - place)
    with pytest.raises(UnsupportedModelError, match=rf"^layer1 of net\.at\({(64, 48)[place]}\) has other modules"):
        agreement.check_children(place)
    with pytest.raises(UnsupportedModelError, match="has other modules"):
        agreement.check(place)


def test_another_mode_of_one_twin_is_refused_before_a_run_and_not_before_a_save(part: Part) -> None:
    agreement = Agreement((part,), (64, 48))
    part._rs_twins[1].eval()
    for place in (0, 1):
        agreement.check_children(place)
        with pytest.raises(UnsupportedModelError, match=r"^layer1 is in train mode in some paths and in eval mode"):
            agreement.check(place)


def test_a_batchnorm_outside_of_every_set_is_named(tiny) -> None:
    net = make_switchable(tiny(), (64, 48))
    check_batchnorms(net)
    net.fc = nn.Sequential(net.fc)
    dict.__setitem__(net.fc._modules, "1", nn.BatchNorm1d(5))
    with pytest.raises(UnsupportedModelError, match=r"^fc\.1 is a BatchNorm that all resolutions share"):
        check_batchnorms(net)
    shared = make_switchable(tiny(), (64, 48), private=False)
    check_batchnorms(shared)
    assert torch.is_tensor(shared(torch.ones(2, 3, 64, 64)))

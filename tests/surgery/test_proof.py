"""The proof: what it scrambles, and the planted mistakes that it catches."""

import copy

import pytest
import timm
import torch
from torch import nn

from rsconvert.errors import UnsupportedModelError
from rsconvert.models import Source
from rsconvert.surgery import SwitchableModel, assemble
from rsconvert.surgery.proof import prove
from rsconvert.surgery.survey import survey

RESOLUTIONS = (64, 48, 32)
EXACT = dict.fromkeys(RESOLUTIONS, True)


def proved(model: nn.Module, net: SwitchableModel) -> dict[int, bool]:
    return prove(survey(model, Source(), net.resolutions), net)


@pytest.fixture(params=["tiny", "resnet10t", "test_efficientnet"])
def model(request, tiny) -> nn.Module:
    return tiny() if request.param == "tiny" else timm.create_model(request.param, num_classes=4)


def test_a_right_conversion_is_exact(model) -> None:
    assert proved(model, assemble(model, RESOLUTIONS)) == EXACT


def test_neither_side_is_changed(model) -> None:
    net = assemble(model.train(), RESOLUTIONS)
    before = copy.deepcopy((model.state_dict(), net.state_dict()))
    proved(model, net)
    for old, module in zip(before, (model, net), strict=True):
        assert all(torch.equal(old[key], value) for key, value in module.state_dict().items())
        assert module.training
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def test_swapped_paths_are_caught(model) -> None:
    net = assemble(model, RESOLUTIONS)
    net._paths[48], net._paths[32] = net._paths[32], net._paths[48]
    made_so(net)
    assert proved(model, net) == {64: True, 48: False, 32: False}


def made_so(net: SwitchableModel) -> None:
    """Let a mistake look as if the network had been made with it, not changed afterwards."""
    net._rs_note()


def swap_one_set(net: SwitchableModel, resolution: int, name: str, bn: nn.Module) -> None:
    owner, _, child = name.rpartition(".")
    net.at(resolution).get_submodule(owner)._modules[child] = bn
    made_so(net)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_every_single_wrong_set_is_caught(resolution: int, tiny) -> None:
    """One BatchNorm of one path: the set of another resolution, or an unconverted copy."""
    model = tiny()
    for name in ("bn1", "bn2"):
        other = {64: 48, 48: 32, 32: 64}[resolution]
        for wrong in (None, copy.deepcopy(model.get_submodule(name))):
            net = assemble(model, RESOLUTIONS)
            swap_one_set(net, resolution, name, wrong or dict(net.switchable_bns())[name].bn_set(other))
            assert proved(model, net) == EXACT | {resolution: False}


def test_a_wrong_set_anywhere_in_a_residual_network_is_caught() -> None:
    """timm starts the last γ of a block at zero: without scrambling, these would be invisible."""
    model = timm.create_model("resnet10t", num_classes=4)
    names = [name for name, _ in assemble(model, (64, 32)).switchable_bns()]
    assert len(names) > 10
    for name in names:
        net = assemble(model, (64, 32))
        swap_one_set(net, 32, name, dict(net.switchable_bns())[name].native)
        assert proved(model, net) == {64: True, 32: False}, name


def test_a_classifier_of_zeros_hides_nothing(tiny) -> None:
    model = tiny()
    nn.init.zeros_(model.fc.weight)
    nn.init.zeros_(model.fc.bias)
    net = assemble(model, RESOLUTIONS)
    assert proved(model, net) == EXACT
    net._paths[48] = net._paths[64]
    made_so(net)
    assert proved(model, net) == EXACT | {48: False}


def test_a_lost_activation_is_caught() -> None:
    model = timm.create_model("test_efficientnet", num_classes=4)
    net = assemble(model, (64, 32))
    net.at(32).bn1.act = nn.Identity()
    assert proved(model, net) == {64: True, 32: False}


def test_a_layer_that_a_path_skips_is_refused(tiny) -> None:
    model = tiny()
    net = assemble(model, RESOLUTIONS)
    net.at(48).bn2 = nn.Identity()
    made_so(net)
    with pytest.raises(UnsupportedModelError, match="at 48 the path runs other BatchNorms than the source: bn2"):
        proved(model, net)


def test_a_dispatch_to_a_wrong_path_is_refused(tiny) -> None:
    model = tiny()
    net = assemble(model, RESOLUTIONS)
    net.__dict__["forward"] = net.at(64).forward
    with pytest.raises(UnsupportedModelError, match=r"no tensor of the model|other BatchNorms"):
        proved(model, net)


def test_an_output_without_a_finite_number_proves_nothing(tiny) -> None:
    model = tiny()
    nn.init.constant_(model.fc.weight, float("nan"))
    with pytest.raises(UnsupportedModelError, match="at 64 the output of the source holds no finite number"):
        proved(model, assemble(model, RESOLUTIONS))


def test_single_nans_equal_themselves(tiny) -> None:
    model = tiny()
    with torch.no_grad():
        model.fc.weight[0, 0] = float("nan")
        model.fc.bias[1] = float("inf")
    assert proved(model, assemble(model, RESOLUTIONS)) == EXACT


def test_nested_outputs_are_compared_throughout() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.one, self.two = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x):
            x = self.conv(x)
            return {"size": x.shape[-1], "maps": (self.one(x), [self.two(x), None])}

    model, net = Nested(), assemble(Nested(), (64, 32))
    net.load_state_dict(assemble(model, (64, 32)).state_dict())
    assert proved(model, net) == {64: True, 32: True}
    net.at(32).two = net.at(64).two
    made_so(net)
    assert proved(model, net) == {64: True, 32: False}

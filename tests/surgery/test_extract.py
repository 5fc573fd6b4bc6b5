"""Families that fuse their branches: a path taken out does so, and the network it came from notices nothing."""

import copy
import functools

import pytest
import timm
import torch
from torch import Tensor, nn

from rsconvert.models import create_model
from rsconvert.surgery import SwitchableModel, batchnorms, make_switchable

# The smallest of each family, the sizes, and the arguments that build it for them. LeViT takes one size only.
FAMILIES = {
    "repvgg_a0": ((96, 64), {}),
    "mobileone_s0": ((64, 32), {}),
    "fastvit_t8": ((96, 64), {}),
    "levit_128s": ((96,), {"img_size": 96}),
    "efficientvit_m0": ((96, 64), {}),
    "repghostnet_050": ((96, 64), {}),
    "repvit_m0_9": ((96, 64), {}),
    "tiny_vit_5m_224": ((96, 64), {}),
}
# They keep their attention biases, gathered in eval mode, in an attribute.
CACHING = ("levit_128s", "efficientvit_m0", "tiny_vit_5m_224")


def source(name: str) -> nn.Module:
    return create_model(name, num_classes=10, model_kwargs=FAMILIES[name][1])


@functools.cache
def converted(name: str) -> SwitchableModel:
    return make_switchable(source(name), FAMILIES[name][0])


def convert(name: str) -> SwitchableModel:
    return copy.deepcopy(converted(name))


def fused(plain: nn.Module) -> nn.Module:
    """Fuse by the model's own method, else by timm's walk over the modules that have one."""
    return plain.fuse() if hasattr(plain, "fuse") else timm.utils.reparameterize_model(plain, inplace=True)


def error(got: Tensor, wanted: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    return ((got - wanted).abs().max() / wanted.abs().max()).item()


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_a_path_taken_out_fuses_and_the_network_stays(name, write_all, image) -> None:
    net = write_all(convert(name)).eval()
    wanted = {r: net.at(r)(image(r)) for r in net.resolutions}
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    for resolution in net.resolutions:
        plain = fused(net.extract(resolution))
        assert len(batchnorms(plain)) < len(batchnorms(net.at(resolution)))
        assert error(plain(image(resolution)), wanted[resolution]) < 1e-4
    assert all(torch.equal(net.at(r)(image(r)), wanted[r]) for r in net.resolutions)
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())
    assert all(parameter.requires_grad for parameter in net.parameters())


@torch.no_grad()
def test_the_outputs_of_two_sets_differ(write_all, image) -> None:
    net = write_all(convert("repvgg_a0")).eval()
    large, small = (fused(net.extract(r)) for r in net.resolutions)
    assert error(large(image(64)), small(image(64))) > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("name", ["repvgg_a0", "repvit_m0_9"])
def test_an_interpolated_path_fuses(name, write_all, image) -> None:
    net = write_all(convert(name)).eval()
    assert error(fused(net.extract(80))(image(80)), net.at(80)(image(80))) < 1e-4


def test_a_network_trains_on_after_a_fusion(write_all, image) -> None:
    net = write_all(convert("repvgg_a0"))
    fused(net.extract(64).eval())
    sum(output.square().mean() for output in net(views=[image(r) for r in net.resolutions])).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == ["rsconvert.alpha"]


@pytest.mark.parametrize("name", CACHING)
def test_a_path_that_ran_with_gradients_is_taken_out(name, image) -> None:
    net = convert(name).eval()
    wanted = [net(image(r)) for r in net.resolutions]
    twin = copy.deepcopy(net)
    for resolution, output in zip(net.resolutions, wanted, strict=True):
        assert error(fused(net.extract(resolution))(image(resolution)), output) < 1e-4
        assert torch.equal(twin.at(resolution)(image(resolution)), output)


def test_a_model_that_ran_with_gradients_is_converted(image) -> None:
    model = source("levit_128s").eval()
    wanted = model(image(96))
    assert torch.equal(make_switchable(model, (96,)).at(96)(image(96)), wanted)


@torch.no_grad()
@pytest.mark.parametrize("name", CACHING)
def test_what_a_path_keeps_follows_the_network(name, image) -> None:
    net = convert(name).eval()
    for key, parameter in net.named_parameters():
        if key.endswith("attention_biases"):
            nn.init.normal_(parameter)
    x, fresh = image(net.native), source(name).eval()
    net(x)
    net.bfloat16()
    net(x.bfloat16())
    net.float()
    fresh.load_state_dict(net.at(net.native).state_dict())
    assert torch.equal(net(x), fresh(x))

"""What users do to a network by walking it: on every path the same as on a plain model, or refused in one line."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.utils.prune as prune
from timm.layers import DropPath
from timm.utils.model import freeze_batch_norm_2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrizations

from rsconvert.errors import UnsupportedModelError
from rsconvert.surgery import SwitchableModel, batchnorms, make_switchable
from rsconvert.zoo import create_model

# A ResNet, a family of fused BatchNorms with activation, one whose position tables follow the resolution.
NETWORKS = {
    "resnet10t": ("resnet10t", {"drop_path_rate": 0.1, "drop_rate": 0.1}, (64, 48, 32)),
    "test_efficientnet": ("test_efficientnet", {"drop_path_rate": 0.1, "drop_rate": 0.1}, (64, 48, 32)),
    "levit": ("levit_128s", {"drop_path_rate": 0.1}, (96, 64)),
}
Idiom = Callable[[nn.Module], object]


class LoRA(nn.Module):
    """A low-rank update beside a layer."""

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.layer, self.scale = layer, nn.Parameter(torch.full((1,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * (1 + self.scale)


@pytest.fixture(scope="module", params=NETWORKS)
def made(request) -> SwitchableModel:
    name, kwargs, resolutions = NETWORKS[request.param]
    torch.manual_seed(0)
    return make_switchable(create_model(name, num_classes=4, model_kwargs=kwargs), resolutions)


@pytest.fixture
def net(made, write_all) -> SwitchableModel:
    return write_all(copy.deepcopy(made)).eval()


def applied(idiom: Idiom, model: nn.Module) -> None:
    torch.manual_seed(1)
    idiom(model)


def outputs(model: nn.Module, resolution: int, batch: int = 4) -> Tensor:
    image = torch.randn(batch, 3, resolution, resolution, generator=torch.Generator().manual_seed(resolution))
    torch.manual_seed(2)
    return model(image)


def inner(model: nn.Module, kind: type[nn.Module]) -> tuple[nn.Module, str, nn.Module]:
    """Return the parent, the name and the module of a class that lies deep inside."""
    found = [name for name, m in model.named_modules() if type(m) is kind and name.count(".") > 1]
    owner, _, name = found[len(found) // 2].rpartition(".")
    return model.get_submodule(owner), name, model.get_submodule(found[len(found) // 2])


def every(kind: type[nn.Module], change: Callable[[nn.Module], object]) -> Idiom:
    return lambda model: [change(m) for m in list(model.modules()) if isinstance(m, kind)]


def replace_by_lora(model: nn.Module) -> None:
    parent, name, layer = inner(model, nn.Conv2d)
    setattr(parent, name, LoRA(layer))


def replace_every_linear(model: nn.Module) -> None:
    for name, module in [*model.named_modules()]:
        if type(module) is nn.Linear:
            owner, _, child = name.rpartition(".")
            setattr(model.get_submodule(owner), child, LoRA(module))


def another_convolution(model: nn.Module) -> None:
    parent, name, old = inner(model, nn.Conv2d)
    parent.add_module(name, nn.Conv2d(old.in_channels, old.out_channels, 1, old.stride, groups=old.groups))
    parent.get_submodule(name).padding = (0, 0)


def scale_output(module: nn.Module, args: object, output: Tensor) -> Tensor:
    return output * 1.5


def middle(model: nn.Module) -> nn.Module:
    """Return a block that holds BatchNorms."""
    blocks = [
        m
        for n, m in model.named_modules()
        if n.count(".") == 1 and any(isinstance(c, nn.Conv2d) or hasattr(c, "bn") for c in m.children())
    ]
    return blocks[-1] if blocks else next(m for n, m in model.named_modules() if n.endswith("blocks.0"))


def init(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.normal_(module.weight, std=0.02)
    elif isinstance(module, _BatchNorm):
        nn.init.constant_(module.weight, 0.7)


def set_drop(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.4
        if isinstance(module, nn.Dropout):
            module.p = 0.3


IDIOMS: dict[str, Idiom] = {
    "eval of every BatchNorm": every(_BatchNorm, lambda m: m.eval()),
    "momentum": every(_BatchNorm, lambda m: setattr(m, "momentum", 0.5)),
    "averaging statistics": every(_BatchNorm, lambda m: setattr(m, "momentum", None)),
    "frozen affine": every(_BatchNorm, lambda m: m.requires_grad_(False)),
    "reset statistics": every(_BatchNorm, lambda m: m.reset_running_stats()),
    "timm's freeze": freeze_batch_norm_2d,
    "drop rates": set_drop,
    "apply": lambda model: model.apply(init),
    "eval of a part": lambda model: middle(model).eval(),
    "freezing a part": lambda model: middle(model).requires_grad_(False),
    "half of a part": lambda model: middle(model).double().float(),
    "hook on a part": lambda model: middle(model).register_forward_hook(scale_output),
    "pre-hook on a part": lambda model: middle(model).register_forward_pre_hook(lambda m, a: (a[0] * 0.5, *a[1:])),
    "hook on a leaf": lambda model: inner(model, nn.Conv2d)[2].register_forward_hook(scale_output),
    "LoRA": replace_by_lora,
    "LoRA on every linear layer": replace_every_linear,
    "another convolution": another_convolution,
    "prune": lambda model: prune.l1_unstructured(inner(model, nn.Conv2d)[2], "weight", 0.5),
    "weight norm": lambda model: parametrizations.weight_norm(inner(model, nn.Conv2d)[2]),
    "root setting": lambda model: setattr(model, "drop_rate", 0.7),
}


@pytest.mark.parametrize("idiom", IDIOMS.values(), ids=IDIOMS)
def test_an_idiom_does_on_every_path_what_it_does_on_a_plain_model(idiom: Idiom, net) -> None:
    plain = {resolution: net.extract(resolution).train() for resolution in net.resolutions}
    applied(idiom, net.train())
    for resolution, model in plain.items():
        applied(idiom, model)
        path = net.at(resolution)
        assert modes(path) == modes(model)
        assert learning(path) == learning(model)
        assert torch.equal(outputs(path, resolution), outputs(model, resolution))
        assert path.state_dict().keys() == model.state_dict().keys()
        assert all(torch.equal(value, path.state_dict()[key]) for key, value in model.state_dict().items())
    net.eval()
    for resolution, model in plain.items():
        assert torch.equal(outputs(net, resolution), outputs(model.eval(), resolution))


def modes(model: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in model.named_modules()}


def learning(model: nn.Module) -> dict[str, bool]:
    return {name: parameter.requires_grad for name, parameter in model.named_parameters()}

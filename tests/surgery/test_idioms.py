"""What users do to a network by walking it: on every path the same as on a plain model, or refused in one line."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.utils.prune as prune
from timm.layers import BatchNormAct2d, DropPath, convert_sync_batchnorm
from timm.utils.model import freeze_batch_norm_2d
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrizations

import rsconvert
from rsconvert.errors import NamelessModelWarning, ResolutionError, UnsupportedModelError
from rsconvert.models import create_model
from rsconvert.surgery import SwitchableLayer, SwitchableModel, make_switchable
from rsconvert.surgery.network.parts import Part

DROPS = {"drop_path_rate": 0.1, "drop_rate": 0.1}
THIN = {"embed_dim": (16,) * 3, "num_heads": (2,) * 3, "key_dim": 8, "depth": (2, 1, 1), "drop_path_rate": 0.1}
BOTH = ("bn", "head")
# A ResNet, a family of BatchNorms fused with their activation, one whose position tables follow the resolution; the
# last with private classifiers.
NETWORKS = {
    "resnet10t": ("resnet10t", DROPS, (64, 48, 32), True),
    "test_efficientnet": ("test_efficientnet", DROPS, (64, 48, 32), True),
    "levit": ("levit_128s", THIN, (96, 64), True),
    "private classifiers": ("test_efficientnet", DROPS, (64, 48, 32), BOTH),
}
Idiom = Callable[[nn.Module], object]


@pytest.fixture(scope="module", params=NETWORKS)
def made(request) -> SwitchableModel:
    name, kwargs, resolutions, private = NETWORKS[request.param]
    torch.manual_seed(0)
    return make_switchable(create_model(name, num_classes=4, model_kwargs=kwargs), resolutions, private=private)


@pytest.fixture
def net(made, write_all) -> SwitchableModel:
    return write_all(copy.deepcopy(made)).eval()


@pytest.fixture
def resnet(write_all) -> SwitchableModel:
    return write_all(make_switchable(create_model("resnet10t", num_classes=4), (64, 48))).eval()


class LoRA(nn.Module):
    """A learnt change beside a layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.scale = layer, nn.Parameter(torch.full((1,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * (1 + self.scale)


def inner(model: nn.Module) -> tuple[nn.Module, str, nn.Module]:
    """Return the parent, the name and the module of a convolution that lies deep inside."""
    found = [name for name, m in model.named_modules() if type(m) is nn.Conv2d and name.count(".") > 1]
    name = found[len(found) // 2]
    return model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], model.get_submodule(name)


def part(model: nn.Module) -> nn.Module:
    """Return a block that holds BatchNorms, with drop path where there is any."""
    blocks = {"ResNet": "layer3.0", "EfficientNet": "blocks.3.0", "LevitDistilled": "stages.0.blocks.1"}
    path = model.at(model.native) if isinstance(model, SwitchableModel) else model
    return model.get_submodule(blocks[type(path).__name__])


def every(kind: type[nn.Module], change: Callable[..., object]) -> Idiom:
    return lambda model: [change(m) for m in list(model.modules()) if isinstance(m, kind)]


def replace_by_lora(model: nn.Module) -> None:
    owner, name, layer = inner(model)
    setattr(owner, name, LoRA(layer))


def replace_every_linear(model: nn.Module) -> None:
    for name, module in [*model.named_modules()]:
        if type(module) is nn.Linear:
            owner, _, child = name.rpartition(".")
            setattr(model.get_submodule(owner), child, LoRA(module))


def another_convolution(model: nn.Module) -> None:
    owner, name, old = inner(model)
    new = nn.Conv2d(old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding, groups=old.groups)
    owner.add_module(name, new)


def scaled(module: nn.Module, args: object, output: Tensor) -> Tensor:
    return output * 1.5


def halved(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (args[0] * 0.5, *args[1:])


def initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Linear):  # without a draw, of which private classifiers would take several
        nn.init.eye_(module.weight)
    elif isinstance(module, _BatchNorm):
        nn.init.constant_(module.weight, 0.7)


def add_and_clear_hooks(model: nn.Module) -> None:
    part(model).register_forward_hook(scaled)
    inner(model)[2].register_forward_hook(scaled)
    for module in model.modules():
        module._forward_hooks.clear()
    part(model).register_forward_hook(halved_output)


def halved_output(module: nn.Module, args: object, output: Tensor) -> Tensor:
    return output * 0.5


def drop_more(model: nn.Module) -> None:
    model.drop_rate = 0.9
    for module in model.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.9
        elif isinstance(module, nn.Dropout):
            module.p = 0.9


IDIOMS: dict[str, Idiom] = {
    "eval of every BatchNorm": every(_BatchNorm, lambda m: m.eval()),
    "momentum": every(_BatchNorm, lambda m: setattr(m, "momentum", 0.5)),
    "averaging statistics": every(_BatchNorm, lambda m: setattr(m, "momentum", None)),
    "eps": every(_BatchNorm, lambda m: setattr(m, "eps", 0.1)),
    "frozen affine": every(_BatchNorm, lambda m: m.requires_grad_(False)),
    "reset statistics": every(_BatchNorm, lambda m: m.reset_running_stats()),
    "timm's freeze": freeze_batch_norm_2d,
    "drop rates": drop_more,
    "apply": lambda model: model.apply(initialise),
    "eval of a part": lambda model: part(model).eval(),
    "freezing a part": lambda model: part(model).requires_grad_(False),
    "hook on a part": lambda model: part(model).register_forward_hook(scaled),
    "pre-hook on a part": lambda model: part(model).register_forward_pre_hook(halved),
    "hook on a leaf": lambda model: inner(model)[2].register_forward_hook(scaled),
    "hook on every BatchNorm": every(_BatchNorm, lambda m: m.register_forward_hook(scaled)),
    "hooks cleared": add_and_clear_hooks,
    "LoRA": replace_by_lora,
    "LoRA on every linear layer": replace_every_linear,
    "another convolution": another_convolution,
    "prune": lambda model: prune.l1_unstructured(inner(model)[2], "weight", 0.5),
    "weight norm": lambda model: parametrizations.weight_norm(inner(model)[2], dim=None),
}


def modes(model: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in model.named_modules()}


def learning(model: nn.Module) -> dict[str, bool]:
    return {name: parameter.requires_grad for name, parameter in model.named_parameters()}


def run(model: nn.Module, resolution: int) -> Tensor:
    image = torch.randn(4, 3, resolution, resolution, generator=torch.Generator().manual_seed(resolution))
    torch.manual_seed(2)
    return model(image)


def behaviour(model: nn.Module, resolution: int) -> tuple[object, object, Tensor, dict[str, Tensor]]:
    """Return modes, what learns, the output of a step in train mode, and all tensors after it."""
    told = modes(model), learning(model), run(model, resolution).detach()
    return *told, {name: tensor.clone() for name, tensor in model.state_dict().items()}


def alike(one: tuple, other: tuple) -> bool:
    same = one[:2] == other[:2] and torch.equal(one[2], other[2]) and one[3].keys() == other[3].keys()
    return same and all(torch.equal(tensor, other[3][name]) for name, tensor in one[3].items())


def applied(idiom: Idiom, model: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    idiom(model)
    return model


@pytest.mark.parametrize("idiom", IDIOMS.values(), ids=IDIOMS)
def test_an_idiom_does_on_every_path_what_it_does_on_a_plain_model(idiom: Idiom, net) -> None:
    plain = {resolution: net.extract(resolution).train() for resolution in net.resolutions}
    if idiom is replace_every_linear and any(net.switchable_heads()):
        with pytest.raises(UnsupportedModelError, match="a layer of the same class and shapes"):
            idiom(net)
        return
    untouched = {resolution: behaviour(copy.deepcopy(model), resolution) for resolution, model in plain.items()}
    applied(idiom, net.train())
    for resolution, model in plain.items():
        wanted = behaviour(applied(idiom, model), resolution)
        assert alike(behaviour(net.at(resolution), resolution), wanted)
        assert not alike(untouched[resolution], wanted), "the idiom shows on a plain model"
    net.eval()
    for resolution, model in plain.items():
        assert torch.equal(run(net, resolution), run(model.eval(), resolution))


def test_synchronised_batchnorms_take_the_places_of_all_sets(net, tmp_path) -> None:
    wanted = {resolution: run(net, resolution) for resolution in net.resolutions}
    keys = net.state_dict().keys()
    convert_sync_batchnorm(net)
    for resolution, output in wanted.items():
        kinds = {type(m).__name__ for m in net.at(resolution).modules() if isinstance(m, _BatchNorm)}
        assert kinds <= {"SyncBatchNorm", "SyncBatchNormAct"}
        assert torch.equal(run(net, resolution), output)
    assert net.state_dict().keys() == keys
    rsconvert.save(net, tmp_path / "net.safetensors")
    again = rsconvert.load(tmp_path / "net.safetensors")
    assert all(torch.equal(run(again, resolution), output) for resolution, output in wanted.items())


def test_a_walk_meets_every_module_that_runs(net) -> None:
    seen = set(net.modules())
    children: set[nn.Module] = set()
    net.apply(children.add)
    assert children == seen
    for place, resolution in enumerate(net.resolutions):
        inside = tuple(f"{name}." for name, _ in net.switchable_layers())
        for name, module in net.at(resolution).named_modules():
            if name.startswith(inside):
                assert module in seen
                continue
            shown = net.get_submodule(name)
            if isinstance(shown, SwitchableLayer):
                assert shown.sets[place] is module
                assert module in seen
            elif isinstance(shown, Part):
                assert shown._rs_twins[place] is module
                assert isinstance(shown, type(module)) or shown is net
            else:
                assert shown is module


def test_counters_see_the_path_that_runs(resnet) -> None:
    """As profilers count: hooks on every leaf of a known class, sums by name."""
    calls: dict[int, list[str]] = {64: [], 48: []}
    for resolution, names in calls.items():
        handles = [
            m.register_forward_hook(lambda *_, name=name, names=names: names.append(name))
            for name, m in resnet.named_modules()
            if type(m) in (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
        ]
        run(resnet, resolution)
        for handle in handles:
            handle.remove()
    convolutions = [name for name, m in resnet.named_modules() if type(m) in (nn.Conv2d, nn.Linear)]
    for resolution, place in ((64, "native"), (48, "at.48")):
        batchnorms = [f"{name}.{place}" for name, _ in resnet.switchable_bns()]
        assert sorted(calls[resolution]) == sorted([*convolutions, *batchnorms])


@pytest.mark.parametrize("place", ["", "layer2.0", "layer2.0.conv1", "conv1.1"])
def test_hooks_of_every_kind_run_once_on_every_path_and_are_taken_away(place: str, resnet) -> None:
    every(nn.ReLU, lambda m: setattr(m, "inplace", False))(resnet)  # full backward hooks take no other
    module, seen = resnet.get_submodule(place), []
    kinds = ("forward_pre_hook", "forward_hook", "full_backward_pre_hook", "full_backward_hook")
    handles = [getattr(module, f"register_{kind}")(lambda *_, kind=kind: seen.append(kind)) for kind in kinds]
    for resolution in (64, 48):
        resnet(torch.randn(2, 3, resolution, resolution, requires_grad=True)).sum().backward()
        assert seen == list(kinds)
        seen.clear()
    for handle in handles:
        handle.remove()
    with module.register_forward_hook(lambda *_, **__: seen.append("keyword"), with_kwargs=True):
        run(resnet.at(48), 48)
    run(resnet, 48)
    assert seen == ["keyword"]


class Recorder:
    """Counts by a method, as tools that draw activations do."""

    def __init__(self) -> None:
        self.calls = 0

    def hook(self, *_: object) -> None:
        self.calls += 1


def test_a_method_of_an_object_is_called_at_untrained_sizes_too(net) -> None:
    recorder = Recorder()
    for module in (part(net), inner(net)[2]):
        module.register_forward_hook(recorder.hook)
    for count, resolution in enumerate((net.resolutions[0], net.resolutions[-1], 80), start=1):
        run(net, resolution)
        assert recorder.calls == 2 * count


def test_registries_of_hooks_are_those_of_every_path(resnet) -> None:
    for module in (resnet, resnet.layer2[0]):
        module.register_forward_hook(scaled)
        module._forward_hooks.clear()
        key = module.register_forward_hook(scaled).handles[0].id
        if module is not resnet:
            del module._forward_hooks[key]
    assert not any(m._forward_hooks for r in (64, 48) for m in resnet.at(r).modules() if m is not resnet.at(r))


def test_a_setting_by_name_reaches_every_path(resnet) -> None:
    resnet.layer2[0].drop_path = nn.Identity()
    resnet.layer1[0].bn1.momentum = 0.3
    resnet.drop_rate = 0.25
    resnet.layer3.eval()
    for resolution in (64, 48):
        path = resnet.at(resolution)
        assert type(path.layer2[0].drop_path) is nn.Identity
        assert path.layer1[0].bn1.momentum == 0.3
        assert path.drop_rate == resnet.drop_rate == 0.25
    assert resnet.layer1[0].bn1.momentum == 0.3


def test_a_classifier_is_replaced_on_every_path_and_the_file_needs_it_too(resnet, tmp_path) -> None:
    resnet.fc = nn.Linear(512, 2)
    assert all(run(resnet.at(r), r).shape == (4, 2) for r in (64, 48))
    assert run(resnet, 56).shape == (4, 2)
    with pytest.warns(NamelessModelWarning, match="modules of the network were replaced"):
        rsconvert.save(resnet, tmp_path / "net.safetensors")
    plain = create_model("resnet10t")
    plain.fc = nn.Linear(512, 2)
    again = rsconvert.load(tmp_path / "net.safetensors", model=plain)
    assert torch.equal(run(again, 48), run(resnet, 48))


def test_an_adapter_learns_by_what_every_path_sees(resnet) -> None:
    replace_by_lora(resnet)
    adapter = next(m for m in resnet.modules() if isinstance(m, LoRA))
    outputs = resnet.train()(views=[torch.randn(2, 3, r, r) for r in (64, 48)])
    gradients = [torch.autograd.grad(out.square().sum(), adapter.scale, retain_graph=True)[0] for out in outputs]
    assert all(gradient.abs() > 0 for gradient in gradients)


REFUSED: dict[str, tuple[Callable[[SwitchableModel], object], str]] = {
    "a BatchNorm replaced": (lambda net: setattr(net.layer1[0], "bn1", nn.Identity()), "holds tensors of each"),
    "a block replaced": (lambda net: setattr(net, "layer1", nn.Identity()), "holds tensors of each resolution"),
    "a block wrapped": (lambda net: setattr(net, "layer1", nn.Sequential(net.layer1)), "holds tensors of each"),
    "a block deleted": (lambda net: net.layer1.__delitem__(0), "holds tensors of each resolution"),
    "a new BatchNorm": (lambda net: setattr(net, "fc", nn.BatchNorm1d(3)), "which holds a BatchNorm"),
    "a child through the registry": (lambda net: net.layer1[0]._modules.update(bn1=None), "holds tensors of each"),
    "another set": (lambda net: net.bn1.add_module("native", nn.BatchNorm2d(3)), "BatchNorm of as many channels"),
    "a set taken away": (lambda net: net.bn1.at.__delitem__("48"), "BatchNorm of as many channels"),
    "a tensor of one set": (lambda net: nn.init.zeros_(net.layer1[0].bn2.weight), "which has one per resolution"),
    "a parameter of one set": (
        lambda net: setattr(net.bn1, "weight", nn.Parameter(torch.ones(64))),
        "which has one per resolution",
    ),
    "forward of a block": (lambda net: setattr(net.layer1[0], "forward", lambda x: x), "whose paths run their own"),
    "compiling a block": (lambda net: net.layer1[0].compile(), "whose paths run their own"),
    "weight norm of a BatchNorm": (lambda net: parametrizations.weight_norm(net.bn1), "has one per resolution"),
    "a buffer of one set": (lambda net: net.bn1.register_buffer("extra", torch.ones(1)), "has one per resolution"),
    "a deleted tensor": (lambda net: delattr(net.bn1, "bias"), "has one per resolution"),
    "forward of the network": (lambda net: setattr(net, "forward", lambda x: x), "whose paths run their own"),
    "scripting": (torch.jit.script, r"Script net\.extract"),
    "DataParallel's copies": (lambda net: net._replicate_for_data_parallel(), "Use DistributedDataParallel"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=REFUSED)
def test_what_can_not_reach_every_path_is_refused_in_one_line(change: Idiom, words: str, resnet) -> None:
    before = run(resnet, 48)
    with pytest.raises((UnsupportedModelError, ValueError), match=words) as caught:
        change(resnet)
    assert "\n" not in str(caught.value)
    assert torch.equal(run(resnet, 48), before)


@pytest.mark.parametrize("place", ["layer1.0", ""])
def test_sharding_is_refused_with_the_way_out(place: str, resnet, process_group) -> None:
    with pytest.raises(UnsupportedModelError, match="DistributedDataParallel"):
        fully_shard(resnet.get_submodule(place))


@pytest.mark.parametrize(
    "call",
    [
        lambda net: net.layer1(torch.zeros(1, 64, 16, 16)),
        lambda net: nn.Sequential(*list(net.children())[:4])(torch.zeros(1, 3, 64, 64)),
        lambda net: net.layer1[0].bn1(torch.zeros(1, 64, 16, 16)),
    ],
)
def test_a_part_does_not_run_without_a_path(call: Idiom, resnet) -> None:
    with pytest.raises(ResolutionError, match=r"a path runs one of them\. Call net\.at\(resolution\)"):
        call(resnet)


@pytest.mark.parametrize(
    "use",
    [lambda net: run(net, 48), lambda net: net.state_dict(), lambda net: rsconvert.save(net, "never.safetensors")],
)
def test_a_path_changed_alone_is_refused_by_what_comes_next(use: Idiom, resnet) -> None:
    path = resnet.at(48)
    path.layer1[0].conv1 = LoRA(path.layer1[0].conv1)
    with pytest.raises(UnsupportedModelError, match=r"layer1\.0 of net\.at\(48\) has other modules than the network"):
        use(resnet)


def test_groups_by_module_meet_every_tensor_once(net) -> None:
    """As optimizers split what decays: no parameter twice, every BatchNorm's among those of BatchNorms."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for module in net.modules():
        for parameter in module.parameters(recurse=False):
            groups[isinstance(module, _BatchNorm)].append(parameter)
    every_one = [*groups[True], *groups[False]]
    assert len(every_one) == len({id(p) for p in every_one}) == len(list(net.parameters()))
    sets = [one for _, bn in net.switchable_bns() for one in bn.sets]
    assert {id(p) for one in sets for p in one.parameters()} == {id(p) for p in groups[True]}


def test_a_walk_over_registries_meets_the_native_set_too(resnet) -> None:
    def freeze(module: nn.Module) -> None:
        for child in module._modules.values():
            if isinstance(child, _BatchNorm):
                child.eval()
            elif child is not None:
                freeze(child)

    freeze(resnet.train())
    for resolution in (64, 48):
        assert not any(m.training for m in resnet.at(resolution).modules() if isinstance(m, _BatchNorm))


def test_settings_inside_containers_and_slices_are_those_of_every_path(resnet) -> None:
    resnet.layer2[:1].eval()
    assert [resnet.at(r).layer2[0].training for r in (64, 48)] == [False, False]
    assert type(resnet.layer2[:1]) is nn.Sequential
    names = dict(resnet.named_parameters())
    image = torch.randn(2, 3, 48, 48)
    zeroed = {name: torch.zeros_like(p) if "layer1.0.bn1.at.48" in name else p for name, p in names.items()}
    resnet.eval()
    assert not torch.equal(torch.func.functional_call(resnet, zeroed, image), resnet(image))
    assert names.keys() <= resnet.state_dict().keys()


def test_another_activation_of_fused_batchnorms_is_in_the_state(write_all) -> None:
    net = make_switchable(create_model("test_efficientnet", num_classes=4), (64, 48)).eval()
    every(BatchNormAct2d, lambda m: setattr(m, "act", nn.PReLU()))(net)
    twin = copy.deepcopy(net)
    with torch.no_grad():
        every(nn.PReLU, lambda m: m.weight.fill_(0.7))(twin)
    net.load_state_dict(twin.state_dict())
    for resolution in (64, 48):
        assert torch.equal(run(net, resolution), run(twin, resolution))


def test_a_batchnorm_in_a_shared_module_is_refused_by_what_comes_next(resnet) -> None:
    resnet.fc = nn.Sequential(nn.Linear(512, 4))
    resnet.fc.append(nn.BatchNorm1d(4))
    for use in (resnet.train, resnet.state_dict):
        with pytest.raises(UnsupportedModelError, match=r"fc\.1 is a BatchNorm that all resolutions share"):
            use()


def test_two_modes_at_once_are_refused(resnet) -> None:
    resnet.train()
    resnet.at(48).eval()
    run(resnet.at(48), 48)
    with pytest.raises(UnsupportedModelError, match=r"in train mode in some paths .* Call net\.train\(\) or net\.eval"):
        run(resnet, 48)
    assert run(resnet.train(), 48).requires_grad


def test_a_copy_is_one_tree_too(resnet) -> None:
    replace_by_lora(resnet)
    twin = copy.deepcopy(resnet)
    assert torch.equal(run(twin, 48), run(resnet, 48))
    next(m for m in twin.modules() if isinstance(m, LoRA)).scale.data.fill_(-1.0)
    assert not torch.equal(run(twin, 48), run(resnet, 48))
    assert torch.equal(run(twin, 48), run(twin.at(48), 48))
    with pytest.raises(UnsupportedModelError, match="holds tensors of each"):
        twin.layer1 = nn.Identity()
    part(twin).eval()
    assert [twin.at(r).layer3[0].training for r in (64, 48)] == [False, False]

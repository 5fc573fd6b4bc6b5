"""Attributes of a network: its source's, its structure, what was measured on it."""

import copy
import dataclasses
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rsconvert.data import Preprocessing
from rsconvert.surgery import Measured, SwitchableModel, make_switchable
from rsconvert.surgery.network.attributes import service, structure


class Served(nn.Module):
    """A source with one service of each kind; ``mark`` tells the paths apart."""

    labels = ("cat", "dog")

    def __init__(self, mark: float = 1.0) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.mark = mark
        self.num_features = 7
        self.nothing = None
        self.pretrained_cfg = self.default_cfg = {"classifier": "fc"}
        self.table = torch.ones(2)
        self.layers = [nn.ReLU()]
        self.cached = {"cpu": torch.ones(1)}
        self.activation = nn.ReLU
        self.checkpointing = False
        self.distilled = False

    @property
    def reduction(self) -> int:
        return 32

    @property
    def broken(self) -> int:
        return self.missing

    def forward_features(self, x: Tensor, scale: float = 1.0) -> Tensor:
        """Double dutch."""
        return x * self.mark * scale

    def forward_intermediates(self, x: Tensor, indices: int | None = None) -> list[Any]:
        return [x * self.mark, indices]

    def get_intermediate_layers(self, x: Tensor, n: int = 1) -> list[Any]:
        return [x * self.mark] * n

    def get_classifier(self) -> nn.Module:
        return self.fc

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        return {"blocks": "^coarse" if coarse else "^fine"}

    def no_weight_decay(self) -> set[str]:
        return {"table"}

    def no_weight_decay_keywords(self) -> set[str]:
        return {"biases"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.checkpointing = enable

    def set_distilled_training(self, enable: bool = True) -> None:
        self.distilled = enable

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x

    def fuse(self) -> "Served":
        return self

    def reset_classifier(self, num_classes: int) -> None:
        raise AssertionError

    def prune_intermediate_layers(self, indices: int = 1) -> list[int]:
        raise AssertionError

    def _private(self) -> int:
        return 1


class Net(nn.Module):
    """Serves two paths as a switchable network does."""

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["_paths"] = {64: Served(1.0), 32: Served(10.0)}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return service(name, self.__dict__.get("_paths", {}), self._choose)

    def _choose(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> nn.Module:
        image = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        return self.__dict__["_paths"][image.shape[-1]]

    def forward(self, x: Tensor) -> Tensor:
        return self._choose((x,), {}).forward_features(x)


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def native(net: Net) -> Served:
    return net._paths[64]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_features", 7),
        ("pretrained_cfg", {"classifier": "fc"}),
        ("default_cfg", {"classifier": "fc"}),
        ("labels", ("cat", "dog")),
        ("nothing", None),
        ("reduction", 32),
        ("mark", 1.0),
    ],
)
def test_data_are_those_of_the_native_path(net, native, name, value) -> None:
    assert getattr(net, name) == value
    assert getattr(net, name) is getattr(native, name)
    assert hasattr(net, name)


@pytest.mark.parametrize("side", [64, 32])
def test_a_method_on_an_image_runs_on_the_path_that_fits(net, side) -> None:
    x, mark = torch.ones(1, 3, side, side), {64: 1.0, 32: 10.0}[side]
    assert (net.forward_features(x) == mark).all()
    assert (net.forward_features(x=x, scale=2.0) == 2 * mark).all()
    output, indices = net.forward_intermediates(x, indices=3)
    assert (output == mark).all()
    assert indices == 3
    assert [(layer == mark).all() for layer in net.get_intermediate_layers(x, n=2)] == [True, True]


def test_a_dispatching_method_keeps_its_name_and_words(net) -> None:
    assert net.forward_features.__name__ == "forward_features"
    assert net.forward_features.__doc__ == "Double dutch."


def test_the_choice_of_a_path_may_refuse_an_image(native) -> None:
    def refuse(args: Sequence[Any], kwargs: Mapping[str, Any]) -> nn.Module:
        raise ValueError(f"{args} {kwargs} tell nothing")

    method = service("forward_features", {64: native}, refuse)
    with pytest.raises(ValueError, match=r"\(1,\) {'scale': 2} tell nothing"):
        method(1, scale=2)


def test_methods_that_tell_are_those_of_the_native_path(net, native) -> None:
    assert net.get_classifier() is native.fc
    assert net.group_matcher() == {"blocks": "^fine"}
    assert net.group_matcher(coarse=True) == {"blocks": "^coarse"}
    assert net.no_weight_decay() == {"table"}
    assert net.no_weight_decay_keywords() == {"biases"}


@pytest.mark.parametrize(
    ("method", "flag"), [("set_grad_checkpointing", "checkpointing"), ("set_distilled_training", "distilled")]
)
def test_a_mode_reaches_every_path(net, method, flag) -> None:
    assert getattr(net, method)() is None
    assert [getattr(path, flag) for path in net._paths.values()] == [True, True]
    getattr(net, method)(enable=False)
    assert [getattr(path, flag) for path in net._paths.values()] == [False, False]


@pytest.mark.parametrize("name", ["fuse", "reset_classifier", "prune_intermediate_layers", "activation"])
def test_a_method_of_one_path_is_refused_with_its_place(net, name) -> None:
    assert not hasattr(net, name)
    with pytest.raises(AttributeError) as caught:
        getattr(net, name)
    assert str(caught.value) == (
        f"{name} is a method of one path; a switchable network offers those that take an image, return facts or set a "
        f"mode. Call net.at(resolution).{name}(…), or net.extract(resolution).{name}(…) if it changes modules."
    )


def test_forward_head_is_refused_for_its_features(net) -> None:
    with pytest.raises(AttributeError) as caught:
        net.forward_head(torch.ones(1, 2))
    assert str(caught.value) == (
        "forward_head takes features, which do not show their resolution; a switchable network needs an image to "
        "choose a path. Call net.at(resolution).forward_head(…)."
    )


@pytest.mark.parametrize("name", ["fc", "table", "layers", "cached"])
def test_modules_and_tensors_of_one_path_are_refused(net, name) -> None:
    assert not hasattr(net, name)
    with pytest.raises(
        AttributeError, match=rf"^{name} holds modules or tensors of one path.*at\(resolution\)\.{name}\.$"
    ):
        getattr(net, name)


@pytest.mark.parametrize("name", ["absent", "broken", "_private", "__deepcopy__", "_paths_"])
def test_what_nobody_has_is_told_as_usual(net, name) -> None:
    assert not hasattr(net, name)
    with pytest.raises(AttributeError, match=f"^'SwitchableModel' object has no attribute '{name}'$"):
        getattr(net, name)


def test_without_paths_there_is_nothing_to_offer() -> None:
    half = Net.__new__(Net)
    for name in ("num_features", "forward_features", "fuse"):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
            service(name, {}, half._choose)
    assert getattr(half, "num_features", None) is None


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_serves_its_own_paths(net, copied) -> None:
    twin = copied(net)
    assert twin.num_features == 7
    twin.set_grad_checkpointing()
    assert all(path.checkpointing for path in twin._paths.values())
    assert net._paths[64].checkpointing is (twin._paths is net._paths)


def test_it_compiles(net) -> None:
    x = torch.ones(1, 3, 32, 32)
    assert (torch.compile(net, backend="eager")(x) == 10).all()


def test_replaced_modules_and_other_shapes_show_in_the_structure() -> None:
    def made(*layers: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.1), nn.ReLU(inplace=True), *layers)

    first = structure(made())
    assert structure(made().half().eval()) == first
    assert first != structure(made(nn.Identity()))
    for place, layer, same in [
        (0, nn.Conv2d(3, 4, 3, stride=2), False),
        (0, nn.Conv2d(3, 4, 5), False),
        (0, nn.Conv2d(3, 4, 3, bias=False), False),
        (1, nn.BatchNorm2d(8), False),
        (1, nn.SyncBatchNorm(4, eps=0.1), True),
        (2, nn.Dropout(0.5), True),
        (2, nn.Dropout2d(0.1), False),
        (3, nn.ReLU(), True),
        (3, nn.GELU(), False),
    ]:
        other = made()
        other[place] = layer
        assert (structure(other) == first) is same, layer


def test_tensors_that_no_file_holds_are_no_structure() -> None:
    one, other = nn.Identity(), nn.Identity()
    one.register_buffer("index", torch.arange(3), persistent=False)
    assert structure(one) == structure(other)
    other.register_buffer("index", torch.arange(3))
    assert structure(one) != structure(other)


RECORD = Measured(cascade={"stages": [32, 64], "thresholds": [0.5]})


@pytest.fixture
def measured(tiny: type[nn.Module]) -> SwitchableModel:
    torch.manual_seed(0)
    net = make_switchable(tiny(), (64, 32))
    net.measured = RECORD
    return net


def train(net: SwitchableModel) -> None:
    optimizer = torch.optim.AdamW(net.parameters(), 0.01)
    sum(z.square().sum() for z in net.train()(views=[torch.randn(2, 3, r, r) for r in (64, 32)])).backward()
    optimizer.step()


def running(net: SwitchableModel) -> None:
    with torch.no_grad():
        net.at(32).train()(torch.randn(2, 3, 32, 32))


def state(net: SwitchableModel, **options: bool) -> None:
    net.load_state_dict({k: v + 1 if v.is_floating_point() else v for k, v in net.state_dict().items()}, **options)


def permuted(net: SwitchableModel) -> None:
    state = net.state_dict()
    state["fc.weight"], state["bn1.at.32.weight"] = state["fc.weight"].flip(0), torch.arange(8.0)
    net.load_state_dict(state)
    net.measured = RECORD
    net.load_state_dict(state | {"bn1.at.32.weight": torch.arange(8.0).flip(0)})


CHANGES: dict[str, Callable[[SwitchableModel], object]] = {
    "another order": permuted,
    "another order of the classes": lambda net: net.fc.weight.data.copy_(net.fc.weight.data.flip(0)),
    "a step": train,
    "statistics": running,
    "a value past autograd": lambda net: net.at(32).fc.bias.data.add_(1),
    "other memory": lambda net: setattr(net.at(64).fc.weight, "data", net.at(64).fc.weight + 1),
    "one set": lambda net: net.at(32).bn1.running_mean.add_(0.1),
    "sets exchanged": lambda net: [net.at(a).bn1.running_var.fill_(a) for a in (32, 64)],
    "load_state_dict": state,
    "load_state_dict, assigned": lambda net: state(net, assign=True),
    "another precision": lambda net: net.half(),
    "the images": lambda net: setattr(
        net, "source", dataclasses.replace(net.source, preprocessing=Preprocessing(mean=(0.1, 0.1, 0.1)))
    ),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_change_drops_it_for_good(measured: SwitchableModel, change: str) -> None:
    before = copy.deepcopy(measured.state_dict())
    CHANGES[change](measured)
    assert measured.measured == Measured()
    measured.float().load_state_dict(before)
    assert measured.measured == Measured()


SAME: dict[str, Callable[[SwitchableModel], object]] = {
    "deepcopy": copy.deepcopy,
    "the same device": lambda measured: measured.to("cpu"),
    "other strides": lambda measured: measured.to(memory_format=torch.channels_last),
    "modes": lambda measured: measured.eval().train(),
    "a forward": lambda measured: measured.eval()(torch.randn(1, 3, 48, 48)),
    "its own state": lambda measured: measured.load_state_dict(measured.state_dict()),
    "the record of a training": lambda measured: setattr(
        measured, "source", dataclasses.replace(measured.source, training={"epochs": 1})
    ),
}


@pytest.mark.parametrize("same", list(SAME))
def test_what_changes_no_value_keeps_it(measured: SwitchableModel, same: str) -> None:
    found = SAME[same](measured)
    assert measured.measured is RECORD
    if isinstance(found, SwitchableModel):
        assert found.measured == RECORD


def test_a_copy_has_a_record_of_its_own(measured: SwitchableModel) -> None:
    other = copy.deepcopy(measured)
    train(other)
    assert (measured.measured, other.measured) == (RECORD, Measured())


def test_a_new_record_holds_for_the_values_of_its_time(measured: SwitchableModel) -> None:
    train(measured)
    measured.measured = RECORD
    assert measured.measured is RECORD
    train(measured)
    assert measured.measured == Measured()


def test_a_network_without_values_has_none(measured: SwitchableModel) -> None:
    assert measured.to("meta").measured == Measured()


def test_it_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Measured().costs = {}

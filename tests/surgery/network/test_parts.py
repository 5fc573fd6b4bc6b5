"""Stand-ins: what is set on one reaches every twin, what the twins share is shown, all else is refused."""

import copy
import pickle

import pytest
import torch
from torch import nn

from rsconvert.errors import ResolutionError, UnsupportedModelError
from rsconvert.surgery.network.layer import SwitchableBN
from rsconvert.surgery.network.parts import Part, PrivateTensorError, clear_caches, in_path, make_part


class Block(nn.Module):
    """A BatchNorm, a convolution, a tensor of its own, and settings."""

    kind = "block"

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)
        self.scale = nn.Parameter(torch.ones(2))
        self.rate, self.names, self.grid_cache = 0.1, ["a"], {"2": torch.ones(1)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv(x)) * self.scale.view(-1, 1, 1)


def twins_of(block: Block) -> list[Block]:
    """Return the block, and another one over the same convolution and tensor with a BatchNorm of its own."""
    other = Block()
    other.conv, other.__dict__["_parameters"] = block.conv, block._parameters
    return [block, other]


@pytest.fixture
def twins() -> list[Block]:
    return twins_of(Block())


@pytest.fixture
def part(twins: list[Block]) -> Part:
    layer = SwitchableBN(nn.BatchNorm2d(2), (64, 48))
    for place, twin in enumerate(twins):
        twin.bn = layer.sets[place]
    return make_part(twins, {"conv": twins[0].conv, "bn": layer}, "layer1.0")


def test_it_is_of_the_twins_class_over_their_tensors(part: Part, twins: list[Block]) -> None:
    assert isinstance(part, Block)
    assert isinstance(part, Part)
    assert (part.__class__, type(part).__name__) == (Block, "Block")
    assert type(part) is not Block
    assert part.scale is twins[0].scale
    assert part.conv is twins[1].conv
    assert part.kind == "block"
    assert (part.rate, part.names) == (0.1, ["a"])
    assert [in_path(part, place) for place in (0, 1)] == twins
    assert in_path(part.conv, 1) is part.conv


def test_it_never_runs(part: Part) -> None:
    with pytest.raises(ResolutionError, match=r"^layer1\.0 of a switchable network .*Call net\.at\(resolution\)"):
        part(torch.ones(1, 2, 4, 4))


def test_what_is_set_reaches_every_twin(part: Part, twins: list[Block]) -> None:
    part.rate = 0.5
    part.scale = nn.Parameter(torch.zeros(2))
    part.conv = nn.Identity()
    part.store = {}
    part.eval()
    for twin in twins:
        assert (twin.rate, twin.training, twin.bn.training) == (0.5, False, False)
        assert twin.scale is part.scale
        assert twin.conv is part.conv
    assert twins[0].store is not twins[1].store
    del part.rate
    assert not any(hasattr(twin, "rate") for twin in twins)


def test_what_differs_is_not_shown(part: Part, twins: list[Block]) -> None:
    twins[1].rate = 0.2
    twins[0].seen, twins[1].seen = torch.ones(1), torch.ones(1)
    for name in ("rate", "seen"):
        with pytest.raises(AttributeError, match=rf"{name} of layer1\.0 is another thing in each path"):
            getattr(part, name)
    assert not hasattr(part, "absent")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda part: setattr(part, "bn", nn.Identity()), r"layer1\.0\.bn is set on a switchable network, and holds"),
        (lambda part: delattr(part, "bn"), r"layer1\.0\.bn is set on a switchable network, and holds"),
        (lambda part: part.add_module("at", nn.Identity()), r"layer1\.0\.at is set on a switchable network, and holds"),
        (lambda part: setattr(part, "conv", nn.BatchNorm2d(2)), "to BatchNorm2d, which holds a BatchNorm"),
        (lambda part: setattr(part, "conv", nn.Sequential(part)), "to Sequential, which holds a BatchNorm"),
        (lambda part: setattr(part, "forward", print), r"forward is set on layer1\.0 .*whose paths run their own"),
        (lambda part: setattr(part, "__class__", nn.Identity), r"the class of layer1\.0 is changed"),
    ],
)
def test_what_can_not_hold_on_every_path_is_refused(change, words: str, part: Part, twins: list[Block]) -> None:
    before = [dict(twin._modules) for twin in twins]
    with pytest.raises(UnsupportedModelError, match=words):
        change(part)
    assert [dict(twin._modules) for twin in twins] == before


def test_a_private_tensor_is_refused_by_name(twins: list[Block]) -> None:
    part = make_part(twins, {}, "attn", frozenset({"scale"}))
    for ask in (lambda: part.scale, lambda: setattr(part, "scale", None), lambda: delattr(part, "scale")):
        with pytest.raises(PrivateTensorError, match=r"^scale of attn has one value .*net\.at\(resolution\)\.attn"):
            ask()
    assert not hasattr(part, "scale")
    with pytest.raises(UnsupportedModelError, match=r"new is set on attn .*which has tensors of each resolution"):
        part.register_buffer("new", torch.ones(1))


def test_names_lead_to_modules_and_tensors(part: Part, twins: list[Block]) -> None:
    assert part.get_submodule("") is part
    assert part.get_submodule("bn.at.48") is twins[1].bn
    assert part.get_parameter("bn.weight") is twins[0].bn.weight
    assert part.get_buffer("bn.at.48.running_var") is twins[1].bn.running_var
    with pytest.raises(AttributeError, match=r"Block has no module bn\.act: act is none of its modules"):
        part.get_submodule("bn.act")
    with pytest.raises(AttributeError, match=r"Block has no tensor conv\.bn among its parameters"):
        part.get_parameter("conv.bn")


@pytest.mark.parametrize("again", [copy.deepcopy, lambda part: pickle.loads(pickle.dumps(part))])
def test_a_copy_has_twins_of_its_own(again, part: Part, twins: list[Block]) -> None:
    new = again(part)
    assert (new._rs_place, new.rate) == ("layer1.0", 0.1)
    assert [type(twin) for twin in new._rs_twins] == [Block, Block]
    assert {id(twin) for twin in new._rs_twins}.isdisjoint(map(id, twins))
    assert new._rs_twins[1].bn is new.bn.sets[1]
    assert new._rs_twins[0].conv is new._rs_twins[1].conv is new.conv


def test_a_set_that_is_replaced_stands_in_its_path(part: Part, twins: list[Block]) -> None:
    new = nn.SyncBatchNorm(2)
    part.bn.at["48"] = new
    assert twins[1].bn is part.bn.sets[1] is new
    assert twins[0].bn is part.bn.sets[0] is not new


def test_a_replaced_tensor_empties_caches(part: Part, twins: list[Block]) -> None:
    part.double()
    assert [twin.grid_cache for twin in twins] == [{}, {}]
    twins[0].grid_cache["2"] = twins[0].other = torch.ones(1)
    clear_caches(twins[0])
    assert (twins[0].grid_cache, twins[0].other.item()) == ({}, 1)


@pytest.mark.parametrize("kind", ["forward_pre", "forward", "full_backward_pre", "full_backward"])
@pytest.mark.parametrize("place", ["", "bn"])
def test_a_hook_is_on_every_twin_until_its_handle_removes_it(kind: str, place: str, part: Part) -> None:
    module = part.get_submodule(place)
    registry = f"_{kind.removeprefix('full_')}_hooks"
    with getattr(module, f"register_{kind}_hook")(lambda *_: None) as handle:
        assert [len(getattr(twin, registry)) for twin in module._rs_twins] == [1, 1]
        assert len(getattr(module, registry)) == len(handle.handles) - 1 == 1
    assert [len(getattr(twin, registry)) for twin in module._rs_twins] == [0, 0]

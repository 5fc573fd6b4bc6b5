"""Weights from a file: out of every wrapper, strict except for the classifier."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from rsconvert.errors import CheckpointError
from rsconvert.models.weights import load_state, load_weights, unwrapped


@pytest.fixture
def saved(tiny, tmp_path: Path):
    """A tiny network and its state in a safetensors file."""
    model = tiny()
    save_file(model.state_dict(), tmp_path / "tiny.safetensors")
    return model, tmp_path / "tiny.safetensors"


def equal_states(one, other, without: tuple[str, ...] = ()) -> bool:
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items() if k not in without)


def test_safetensors_load_whole(saved, tiny) -> None:
    model, path = saved
    other = tiny()
    assert load_weights(other, path) == ([], str(path))
    assert equal_states(model.state_dict(), other.state_dict())


def test_a_model_that_asks_for_its_version_learns_it(saved, tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other, asked = saved[1], tiny(), []
    monkeypatch.setattr(type(other), "_version", 7)
    monkeypatch.setattr(
        type(other), "_load_from_state_dict", lambda self, state, prefix, facts, *rest: asked.append(facts["version"])
    )
    load_weights(other, path)
    assert asked == [7]


def prefixed(prefix: str, **beside):
    return lambda state: {**{f"{prefix}{key}": value for key, value in state.items()}, **beside}


def shifted(state):
    return {key: value + 1 for key, value in state.items()}


WRAPS = {
    "plain": (lambda s: s, ""),
    "DistributedDataParallel": (
        lambda s: {"state_dict": prefixed("module.")(s), "epoch": 3},
        " (state_dict; without the prefix module.)",
    ),
    "torch.compile": (prefixed("_orig_mod."), " (without the prefix _orig_mod.)"),
    "both": (prefixed("module._orig_mod."), " (without the prefix module._orig_mod.)"),
    "both, turned": (prefixed("_orig_mod.module."), " (without the prefix _orig_mod.module.)"),
    "Lightning": (
        lambda s: {"epoch": 1, "state_dict": prefixed("model.")(s), "callbacks": {}},
        " (state_dict; without the prefix model.)",
    ),
    "Lightning, compiled, with a loss": (
        lambda s: {"state_dict": prefixed("net._orig_mod.", **{"loss.weight": torch.ones(5)})(s)},
        " (state_dict; without the prefix net._orig_mod.; left out: loss.weight)",
    ),
    "AveragedModel": (prefixed("module.", n_averaged=torch.tensor(3)), " (without the prefix module.)"),
    "timm, with an average": (
        lambda s: {"state_dict": shifted(s), "state_dict_ema": s, "args": Namespace(lr=0.1), "arch": "tiny"},
        " (state_dict_ema)",
    ),
    "an average that is none": (lambda s: {"state_dict": s, "state_dict_ema": None}, " (state_dict)"),
}


@pytest.mark.parametrize("kind", WRAPS)
def test_torch_files_load_whole_out_of_their_wrappers(kind: str, tiny, tmp_path: Path) -> None:
    wrap, told = WRAPS[kind]
    model, other, path = tiny(), tiny(), tmp_path / "tiny.pth"
    torch.save(wrap(model.state_dict()), path)
    assert load_weights(other, path) == ([], f"{path}{told}")
    assert equal_states(model.state_dict(), other.state_dict())


def test_wrappers_made_by_torch(tiny, tmp_path: Path) -> None:
    model, path = tiny(), tmp_path / "tiny.pth"
    for wrapped in (AveragedModel(model), torch.compile(model), nn.DataParallel(model)):
        other = tiny()
        torch.save(wrapped.state_dict(), path)
        load_weights(other, path)
        assert equal_states(model.state_dict(), other.state_dict())


def test_a_classifier_of_another_size_stays_new(saved, tiny) -> None:
    model, path = saved
    other = tiny(classes=7)
    before = other.fc.weight.clone()
    assert load_weights(other, path)[0] == ["fc.weight", "fc.bias"]
    assert torch.equal(other.fc.weight, before)
    assert equal_states(model.state_dict(), other.state_dict(), ("fc.weight", "fc.bias"))


def test_a_missing_classifier_stays_new(tiny) -> None:
    model, other = tiny(), tiny()
    state = {k: v for k, v in model.state_dict().items() if k != "fc.bias"}
    before = other.fc.weight.clone()
    assert load_state(other, state, "here") == ["fc.weight", "fc.bias"]
    assert torch.equal(other.fc.weight, before)


def state_without(key):
    return lambda state: {k: v for k, v in state.items() if k != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (state_without("bn1.running_mean"), "lacks bn1.running_mean;"),
        (lambda s: {k: v for k, v in s.items() if not k.startswith("bn")}, "lacks bn1.bias, bn1.running_mean, "),
        (lambda s: s | {"extra": torch.ones(1)}, "holds foreign extra;"),
        (lambda s: s | {"conv1.weight": torch.ones(1)}, "has in another shape conv1.weight;"),
    ],
)
def test_anything_else_is_refused_and_the_model_stays(change, message: str, saved, tiny, tmp_path: Path) -> None:
    save_file(change(saved[0].state_dict()), tmp_path / "bad.safetensors")
    other = tiny()
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load_weights(other, tmp_path / "bad.safetensors")
    assert message in str(error.value)
    assert "bad.safetensors" in str(error.value)
    assert "Check the model's name" in str(error.value)
    assert equal_states(before, other.state_dict())


def test_batch_counters_may_be_missing(tiny) -> None:
    state = {k: v for k, v in tiny().state_dict().items() if not k.endswith("num_batches_tracked")}
    other = tiny()
    assert load_state(other, state, "an old file") == []
    assert torch.equal(other.bn1.running_var, state["bn1.running_var"])
    assert other.bn1.num_batches_tracked == 0


def test_many_missing_tensors_are_counted(tiny) -> None:
    with pytest.raises(CheckpointError, match=r"lacks bn1\.bias, .* and 8 more; exactly"):
        load_state(tiny(), {}, "nothing")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("photo.safetensors", b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(64)),
        ("photo.pth", b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(64)),
        ("empty.safetensors", b""),
        ("empty.pt", b""),
    ],
)
def test_a_file_that_is_no_weights_is_refused(name: str, content: bytes, tiny, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"weights .*{name} can't be read: ") as error:
        load_weights(tiny(), tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_truncated_file_is_refused(saved, tiny) -> None:
    path = saved[1]
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="can't be read"):
        load_weights(tiny(), path)


def test_pickled_code_does_not_run(tiny, tmp_path: Path) -> None:
    torch.save(tiny(), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="can't be read"):
        load_weights(tiny(), tmp_path / "model.pth")


@pytest.mark.parametrize("content", [{"a": 3}, [torch.ones(1)], torch.ones(1)])
def test_a_torch_file_without_a_state_is_refused(content, tiny, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth (holds no state_dict|can't be read)"):
        load_weights(tiny(), tmp_path / "other.pth")


def test_a_missing_file_is_refused(tiny, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a file; a safetensors or torch file"):
        load_weights(tiny(), tmp_path / "none.safetensors")


ONE, TWO = torch.zeros(1), torch.ones(1)


def names(*keys: str) -> dict[str, torch.Tensor]:
    return dict.fromkeys(keys, ONE)


@pytest.mark.parametrize(
    ("held", "own", "prefix", "left_out"),
    [
        (("conv.weight", "fc.weight"), ("conv.weight", "fc.weight"), "", ""),
        (("model.conv.weight",), ("model.conv.weight",), "", ""),  # a model that has such a child itself
        (("model.model.conv.weight",), ("model.conv.weight",), "model.", ""),
        (("model.net.conv.weight",), ("conv.weight",), "model.net.", ""),
        (("net.loss", "model.conv.weight"), ("conv.weight",), "model.", "net.loss"),
        (("encoder.conv.weight",), ("conv.weight",), "", ""),  # no wrapper that is known
        (("module.module.a", "module.b"), ("a",), "module.module.", "module.b"),
    ],
)
def test_a_prefix_is_what_stands_before_the_model_s_names(held, own, prefix: str, left_out: str) -> None:
    state, words = unwrapped(names(*held), own) or ({}, "nothing")
    assert set(state) == {key.removeprefix(prefix) for key in held if key.startswith(prefix)}
    wanted = [f"without the prefix {prefix}"] * bool(prefix) + [f"left out: {left_out}"] * bool(left_out)
    assert words == "; ".join(wanted)


def test_what_stands_next_to_the_prefix_is_named() -> None:
    state, words = unwrapped(names("model.a", "loss.b", "loss.c", "ema.d", "x", "n_averaged"), ("a",)) or ({}, "")
    assert list(state) == ["a"]
    assert words == "without the prefix model.; left out: loss.b, loss.c, ema.d and 1 more"


@pytest.mark.parametrize("held", [[ONE], ONE, {"a": 3}, {"state_dict": {"a": 3}}, {3: ONE}, None])
def test_what_holds_no_tensors_by_name_is_none(held: object) -> None:
    assert unwrapped(held, ("a",)) is None


def test_a_tensor_named_model_is_a_tensor() -> None:
    found = unwrapped({"model": ONE, "state_dict": TWO}, ("model", "state_dict"))
    assert found == ({"model": ONE, "state_dict": TWO}, "")

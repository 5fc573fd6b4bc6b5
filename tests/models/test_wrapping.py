"""Wrappers of a state_dict: which prefix is taken off, and which belongs to the model."""

import pytest
import torch

from rsconvert.models.wrapping import unwrapped

ONE, TWO = torch.zeros(1), torch.ones(1)


def names(*keys: str) -> dict[str, torch.Tensor]:
    return dict.fromkeys(keys, ONE)


@pytest.mark.parametrize(
    ("held", "own", "prefix"),
    [
        (("conv.weight", "fc.weight"), ("conv.weight", "fc.weight"), ""),
        (("model.conv.weight",), ("model.conv.weight",), ""),  # a model that has such a child itself
        (("model.model.conv.weight",), ("model.conv.weight",), "model."),
        (("model.net.conv.weight",), ("conv.weight",), "model.net."),
        (("net.loss", "model.conv.weight"), ("conv.weight",), "model."),
        (("encoder.conv.weight",), ("conv.weight",), ""),  # no wrapper that is known
        (("module.module.a", "module.b"), ("a",), "module.module."),
    ],
)
def test_a_prefix_is_what_stands_before_the_model_s_names(held, own, prefix: str) -> None:
    found = unwrapped(names(*held), own)
    assert found is not None
    assert found.prefix == prefix
    assert set(found.state) | set(found.left_out) >= {key.removeprefix(prefix) for key in held if prefix in key}
    assert len(found.state) + len(found.left_out) == len(held)


def test_what_stands_beside_is_named() -> None:
    found = unwrapped(names("model.a", "loss.b", "loss.c", "ema.d", "x", "n_averaged"), ("a",))
    assert found is not None
    assert (list(found.state), found.left_out) == (["a"], ("loss.b", "loss.c", "ema.d", "x"))
    assert str(found) == "without the prefix model.; left out: loss.b, loss.c, ema.d and 1 more"


@pytest.mark.parametrize("held", [[ONE], ONE, {"a": 3}, {"state_dict": {"a": 3}}, {3: ONE}, None])
def test_what_holds_no_tensors_by_name_is_none(held: object) -> None:
    assert unwrapped(held, ("a",)) is None


def test_a_tensor_named_model_is_a_tensor() -> None:
    found = unwrapped({"model": ONE, "state_dict": TWO}, ("model", "state_dict"))
    assert found is not None
    assert (found.place, len(found.state)) == ("", 2)

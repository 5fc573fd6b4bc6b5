"""What a model must be to be converted: each refusal names the module or tensor, before anything runs."""

import pytest
import torch
from torch import nn

from rsconvert.errors import UnsupportedModelError
from rsconvert.models import Source
from rsconvert.surgery import assemble
from rsconvert.surgery.convertible import check_convertible, check_functional, unconverted


class Memory(nn.Module):
    """Keeps a state that is no tensor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.bn(x)

    def get_extra_state(self):
        return {"seen": 3}


class Named(nn.Module):
    """Bears a name of the switchable network's own tensors, at the root or in its BatchNorm."""

    def __init__(self, place: str, value: object) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)
        setattr(self if place == "root" else self.bn, "rsconvert" if place == "root" else "at", value)

    def forward(self, x):
        return self.bn(x)


@pytest.mark.parametrize("value", [nn.Parameter(torch.ones(1)), nn.BatchNorm2d(3), 3])
@pytest.mark.parametrize(("place", "key"), [("root", "rsconvert"), ("bn", "bn.at")])
def test_names_that_would_clash_are_refused(place: str, key: str, value: object) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"^Named has an attribute {key}; .* Rename it\.$"):
        check_convertible(Named(place, value), Source())


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    model[1].register_forward_hook(lambda *_: None)
    return model


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


class Other(nn.Module):
    """Holds running statistics, and computes no BatchNorm."""

    def __init__(self, persistent: bool = True) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(3), persistent=persistent)
        self.register_buffer("running_var", torch.ones(3), persistent=persistent)

    def forward(self, x):
        return x - self.running_mean.mean()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.LazyBatchNorm2d()), "Sequential has the lazy tensor 1.weight"),
        (lambda: nn.Sequential(nn.LazyConv2d(4, 1), nn.BatchNorm2d(4)), "Sequential has the lazy tensor 0.weight"),
        (on_meta, "Sequential has 0.weight on the meta device"),
        (lambda: nn.Sequential(Memory()), "0 (Memory) keeps an extra state"),
        (lambda: assemble(nn.Sequential(nn.BatchNorm2d(3)), (64, 32)), "is switchable already"),
        (lambda: nn.ModuleList([assemble(nn.Sequential(nn.BatchNorm2d(3)), (64, 32))]), "is switchable already"),
        (hooked, "1 has a hook"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 1)), "Sequential has no BatchNorm to convert;"),
    ],
)
def test_what_cannot_be_converted_is_refused(model, message: str) -> None:
    with pytest.raises(UnsupportedModelError) as error:
        check_convertible(model(), Source())
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_model_is_called_by_its_name() -> None:
    with pytest.raises(UnsupportedModelError, match=r"^mine has no BatchNorm"):
        check_convertible(nn.Identity(), Source(architecture="mine"))


def test_a_model_that_may_normalize_by_a_function_passes_until_it_has_run() -> None:
    model = nn.Sequential(Other())
    check_convertible(model, Source())
    check_functional(model, Source(), ["0.running_mean"])
    with pytest.raises(UnsupportedModelError, match=r"to convert \(0 holds running statistics, but computes something"):
        check_functional(model, Source(), ())


def test_buffers_that_no_file_holds_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"^0\.running_mean serves F\.batch_norm and is a buffer that no"):
        check_functional(nn.Sequential(Other(persistent=False)), Source(), ["0.running_mean"])


def test_what_stays_as_it_is_is_named() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), Other(), nn.Sequential(Other()))
    assert list(unconverted(model)) == ["1", "2.0"]
    assert list(unconverted(model, ["1.running_mean"])) == ["2.0"]

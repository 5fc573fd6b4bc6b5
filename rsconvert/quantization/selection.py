"""Which convolutions of a model are quantized, and why the others are not."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from rsconvert.errors import ConfigError, UnsupportedModelError, first_line
from rsconvert.models import as_call, classifier_layers, example_arguments
from rsconvert.quantization.layers import FLOAT_BITS, can_quantize
from rsconvert.surgery import eval_mode

__all__ = ["Choice", "choose_layers", "parse_bits"]


@dataclass(frozen=True)
class Choice:
    """``layers`` maps the name of a convolution to its bits (weights, activations); ``reasons`` the others to why not.

    ``float_inputs`` maps a quantized one whose activations stay float, although bits were asked for them, to why.
    """

    layers: Mapping[str, tuple[int, int]]
    reasons: Mapping[str, str]
    float_inputs: Mapping[str, str]


@dataclass
class _Run:
    """What a forward shows: the convolutions in their order, and those that got a negative number."""

    order: list[nn.Module] = field(default_factory=list)
    negative: set[nn.Module] = field(default_factory=set)

    def note(self, module: nn.Module, args: Sequence[Any]) -> None:
        self.order.append(module)
        if args and bool((args[0] < 0).any()):
            self.negative.add(module)


def parse_bits(bits: str) -> tuple[int, int]:
    """Return the bits of weights and activations that ``W/A`` names.

    Raises:
        ConfigError: W is not 1 to 8, or A is neither 1 to 8 nor 32.
    """
    weights, _, activations = str(bits).partition("/")
    few = [str(number) for number in range(1, 9)]
    if weights not in few or activations not in (*few, str(FLOAT_BITS)):
        raise ConfigError(
            f"bits is {bits!r}; W/A with 1 to 8 bits for weights, and 1 to 8 or 32 (float) for activations, is "
            "accepted. Give 2/32 or 2/2, for example."
        )
    return int(weights), int(activations)


def choose_layers(
    model: nn.Module,
    resolution: int,
    bits: tuple[int, int],
    keep_float: Collection[str] | None = None,
    private: Collection[str] = (),
) -> Choice:
    """Choose the convolutions of a plain model that are quantized.

    The first one that the image reaches and the classifier stay float, or those that ``keep_float`` names in their
    place; so do convolutions of other classes than torch's and timm's ``Conv2dSame``, those that share their weight,
    and those that would take more bytes. Activations that can be negative stay float, for no code stands for them.

    Args:
        keep_float: names of convolutions, or of modules that hold them.
        private: names of modules that have one value per resolution, such as private classifiers.
    Raises:
        ConfigError: a name of ``keep_float`` is no convolution of the model and holds none.
        UnsupportedModelError: the model can't be run, or no convolution is left.
    """
    convs = {name: m for name, m in model.named_modules() if isinstance(m, nn.modules.conv._ConvNd)}
    run = _watched(model, resolution)
    kept = dict.fromkeys(private, "has one weight per resolution")
    kept |= _default_float(model, convs, run) if keep_float is None else _named_float(convs, keep_float)
    ties = Counter(id(m._parameters["weight"]) for m in nn.Module.modules(model) if "weight" in m._parameters)
    reasons = {name: why for name, m in convs.items() if (why := kept.get(name) or _unfit(m, run, ties, bits[0]))}
    if len(reasons) == len(convs):
        raise UnsupportedModelError(
            f"{type(model).__name__} has no convolution to quantize"
            + "".join(f"; {name} {why}" for name, why in list(reasons.items())[:3])
            + ". One that stays float by no rule is needed: see docs/quantization.md."
        )
    chosen = {name: m for name, m in convs.items() if name not in reasons}
    signed = [name for name, m in chosen.items() if bits[1] != FLOAT_BITS and m in run.negative]
    layers = {name: (bits[0], FLOAT_BITS if name in signed else bits[1]) for name in chosen}
    return Choice(layers, reasons, dict.fromkeys(signed, "its input can be negative"))


def _watched(model: nn.Module, resolution: int) -> _Run:
    run, handles = _Run(), []
    for module in nn.Module.modules(model):
        if isinstance(module, nn.modules.conv._ConvNd):
            handles.append(module.register_forward_pre_hook(run.note))
    args, kwargs = as_call(example_arguments(model, resolution))
    try:
        with eval_mode([model]), torch.no_grad():
            model(*args, **kwargs)
    except Exception as error:  # whatever the model's own code raises
        raise UnsupportedModelError(
            f"{type(model).__name__} does not run on an example at {resolution} ({type(error).__name__}: "
            f"{first_line(error)}), which shows its first convolution; a model that takes images is needed."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return run


def _default_float(model: nn.Module, convs: Mapping[str, nn.Module], run: _Run) -> dict[str, str]:
    kept = {name: "is the first" for name, module in convs.items() if run.order[:1] == [module]}
    return kept | {name: "is the classifier" for name in classifier_layers(model) if name in convs}


def _named_float(convs: Mapping[str, nn.Module], names: Collection[str]) -> dict[str, str]:
    kept: dict[str, str] = {}
    for name in names:
        found = [conv for conv in convs if conv == name or conv.startswith(f"{name}.")]
        if not found:
            raise ConfigError(
                f"keep_float names {name!r}, which is no convolution and holds none; a name such as "
                f"{', '.join(list(convs)[:3])} is accepted."
            )
        kept |= dict.fromkeys(found, "is named to stay float")
    return kept


def _unfit(module: nn.Module, run: _Run, ties: Mapping[int, int], bits: int) -> str | None:
    """Return why a convolution can't be quantized, or had better not be."""
    weight = module._parameters.get("weight")
    if not can_quantize(module) or weight is None:
        return f"is a {type(module).__name__}, which uses its weight in its own way"
    if ties[id(weight)] > 1:
        return "shares its weight"
    if module not in run.order:
        return "does not run in eval mode"
    if not bool(weight.isfinite().all()):
        return "holds a weight that is not finite"
    per_filter = weight.numel() // len(weight)
    if bits * per_filter + 32 * bits >= 32 * per_filter:
        return f"has {per_filter} weights per filter, whose codes and basis would take more bytes"
    return None

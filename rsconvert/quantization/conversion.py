"""quantize_: a switchable network gets few-bit convolutions in place, which all resolutions share."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import nn

from rsconvert.errors import ConfigError
from rsconvert.quantization.layers import (
    FLOAT_BITS,
    activation_quantizers,
    fit_weights,
    quantize_layer,
    quantized_convolutions,
    restore_layer,
)
from rsconvert.quantization.selection import Choice, choose_layers, parse_bits
from rsconvert.surgery import Build, SwitchableModel, regroup

__all__ = ["QuantizationReport", "build_quantized", "layout_of", "quantize_", "quantize_layers"]

_OF_ACTIVATION = ("basis", "moment", "updates")


@dataclass(frozen=True)
class QuantizationReport:
    """What `quantize_` did: ``layers`` maps each quantized convolution to its bits (weights, activations).

    ``reasons`` maps each other convolution to why it stays float, ``float_inputs`` each quantized one whose activations
    stay float.
    """

    bits: str
    layers: Mapping[str, tuple[int, int]]
    reasons: Mapping[str, str]
    float_inputs: Mapping[str, str]

    def __str__(self) -> str:
        every = len(self.layers) + len(self.reasons)
        lines = [f"{len(self.layers)} of {every} convolutions quantized to {self.bits} bits"]
        lines += [f"float: {name} {why}" for name, why in self.reasons.items()]
        lines += [f"float activations: {name}, {why}" for name, why in self.float_inputs.items()]
        return "\n".join(lines)


@torch.inference_mode(False)
@torch.no_grad()
def quantize_(
    net: SwitchableModel,
    bits: str,
    *,
    keep_float: str | Collection[str] | None = None,
    activation_bases: Literal["shared", "private"] = "shared",
) -> QuantizationReport:
    """Quantize a network's convolutions in place as LQ-Nets do; BatchNorms and the classifier stay float.

    The weights move to the levels of a basis per filter, fitted to them; all resolutions share both. Every tensor of
    the network is another one afterwards: take paths and make optimizers after it. Few bits need training with
    ``finetune`` after that, and so do quantized activations, whose bases know nothing yet. A network that is
    quantized already is quantized anew, from the weights that it has.

    Args:
        bits: ``W/A``, such as 2/32 for weights of two bits, or 2/2 for activations of two bits, too.
        keep_float: names of convolutions, or of modules that hold them, that stay float, in place of the first
            convolution and of the classifier; a string is one name.
        activation_bases: one for all resolutions, or a private one for each.
    Raises:
        ConfigError: an argument is malformed or has no effect.
        UnsupportedModelError: the network has no convolution to quantize.
    """
    weights, activations = parse_bits(bits)
    if activation_bases not in ("shared", "private"):
        raise ConfigError(f"activation_bases is {activation_bases!r}; shared or private is accepted.")
    if activation_bases == "private" and activations == FLOAT_BITS:
        raise ConfigError(
            f"activation_bases is private with bits {bits}, which leaves activations float. Leave it out."
        )
    paths = {resolution: net.extract(resolution) for resolution in net.resolutions}
    for plain in paths.values():
        for conv in quantized_convolutions(plain).values():
            restore_layer(conv)
    others = _without_activations(net)
    private = {name.rpartition(".")[0] for name in others}
    smallest = min(paths)
    kept = (keep_float,) if isinstance(keep_float, str) else keep_float
    choice = choose_layers(paths[smallest], smallest, (weights, activations), kept, private)
    for plain in paths.values():
        quantize_layers(plain, choice.layers)
    _fit_once(list(paths.values()), choice)
    if activation_bases == "private":
        quantized = [name for name, (_, own) in choice.layers.items() if own != FLOAT_BITS]
        others += [f"{name}.activation.{key}" for name in quantized for key in _OF_ACTIVATION]
    _take_over(net, regroup(net, paths, others), choice)
    return QuantizationReport(bits, choice.layers, choice.reasons, choice.float_inputs)


def quantize_layers(model: nn.Module, layers: Mapping[str, tuple[int, int]]) -> nn.Module:
    """Make the named convolutions of a plain model quantized ones in place, with bases that wait for their values."""
    for name, (weights, activations) in layers.items():
        quantize_layer(model.get_submodule(name), weights, activations)
    return model


def layout_of(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return the bits (weights, activations) of each quantized convolution of a network or a plain model."""
    return {name: conv.bits for name, conv in quantized_convolutions(model).items()}


def build_quantized(build: Build, layers: Mapping[str, tuple[int, int]], resolution: int) -> nn.Module:
    """Return the source as built for a resolution, with quantized convolutions."""
    return quantize_layers(build(resolution), layers)


def _without_activations(net: SwitchableModel) -> list[str]:
    """Return the names of the private tensors but for those of quantized activations."""
    own = {f"{name}.activation" for name in quantized_convolutions(net)}
    return [name for name in net.other_private_tensors() if name.rpartition(".")[0] not in own]


def _fit_once(paths: list[nn.Module], choice: Choice) -> None:
    """Fit the weights of one path, and give them to the others, for which they are the same."""
    native, *others = paths
    for name in choice.layers:
        conv = native.get_submodule(name)
        fit_weights(conv)  # type: ignore[arg-type]  # a quantized convolution by now
        for other in others:
            twin = other.get_submodule(name)
            for key in ("weight", "weight_basis"):
                getattr(twin, key).copy_(getattr(conv, key))


def _take_over(net: SwitchableModel, new: SwitchableModel, choice: Choice) -> None:
    """Give a network the state of the one that was made of its paths."""
    new.alpha.data = net.alpha.detach().clone()
    new.alpha.requires_grad_(net.alpha.requires_grad)
    new.source = net.source
    build = net.build
    if isinstance(build, partial) and build.func is build_quantized:
        build = build.args[0]
    new.build = None if build is None else partial(build_quantized, build, dict(choice.layers))
    report = net.report
    net.__setstate__({**new.__getstate__(), "report": report})
    for quantizer in activation_quantizers(net.running_modules()):
        quantizer.train(net.training)

"""The proof: on scrambled tensors, every path computes what the source computes with the same tensors."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rsconvert.errors import ResolutionError, UnsupportedModelError
from rsconvert.models import as_call
from rsconvert.surgery.network import SwitchableModel, clear_caches, side_of_call
from rsconvert.surgery.survey import Survey
from rsconvert.surgery.trial import Trial, equal_outputs, eval_mode, run_trial, tensors

__all__ = ["prove"]


def prove(found: Survey, net: SwitchableModel) -> dict[int, bool]:
    """Compare each path with the source, bit for bit in eval mode: the output, and the sum of every BatchNorm's output.

    Args:
        found: the trials of the source at the network's resolutions; the time of the proof is added to theirs.
        net: its conversion; its values are replaced during the proof, and restored.
    Returns:
        For each resolution whether path and source are equal.
    Raises:
        UnsupportedModelError: a path runs other BatchNorms than the source, or an output proves nothing.
    """
    start = time.perf_counter()
    with torch.no_grad(), eval_mode([net]), _scrambled(found, net):
        exact = {resolution: _prove_path(found, net, resolution) for resolution in net.resolutions}
    found.seconds += time.perf_counter() - start
    return exact


@contextmanager
def _scrambled(found: Survey, net: SwitchableModel) -> Iterator[None]:
    """Write the values of all trials at once, so that a swapped set shows; restore those of before at the end."""
    places = {r: _registered(net, r, values) for r, values in found.values.items()}
    before = {r: {name: tensor.clone() for name, tensor in own.items()} for r, own in places.items()}
    try:
        _copy(found.values, places)
        yield
    finally:
        _copy(before, places)
        for module in net.running_modules():
            clear_caches(module)


def _registered(net: SwitchableModel, resolution: int, names: Iterable[str]) -> dict[str, Tensor]:
    """Return tensors of a resolution by the source's names, out of the registry: a path may hold wrong ones."""
    found = tensors(net)
    for name in net.other_private_tensors() if resolution != net.native else ():
        owner, _, key = name.rpartition(".")
        found[name] = found[f"{owner}.at.{resolution}.{key}".lstrip(".")]
    place = net.resolutions.index(resolution)
    for name, layer in net.switchable_layers(every_name=True):
        found |= {f"{name}.{key}".lstrip("."): tensor for key, tensor in tensors(layer.sets[place]).items()}
    return {name: found[name] for name in names}


def _copy(values: Mapping[int, Mapping[str, Tensor]], places: Mapping[int, Mapping[str, Tensor]]) -> None:
    for resolution, own in places.items():
        for name, tensor in own.items():
            tensor.copy_(values[resolution][name])


def _prove_path(found: Survey, net: SwitchableModel, resolution: int) -> bool:
    wanted, arguments, path = found.trials[resolution], found.example(resolution), net.at(resolution)
    try:
        chosen = side_of_call(*as_call(arguments), net.source.images) == resolution
    except ResolutionError:  # such as lists of images, which are resized inside
        chosen = False
    model: nn.Module = net if chosen else path
    got = run_trial(model, arguments, resolution, norms=path)
    if got.failure is not None:
        raise UnsupportedModelError(
            f"at {resolution} the path fails where the source runs: {got.failure}. "
            "Check that the model depends on nothing but its input and tensors; otherwise please report it."
        )
    _check_meaningful(wanted, got, resolution)
    return equal_outputs(wanted.output, got.output) and equal_outputs(wanted.sums, got.sums)


def _check_meaningful(wanted: Trial, got: Trial, resolution: int) -> None:
    """Refuse other layers than the source's, and an output that says nothing."""
    if wanted.calls != got.calls:
        differing = sorted((wanted.calls - got.calls) + (got.calls - wanted.calls))
        raise UnsupportedModelError(
            f"at {resolution} the path runs other BatchNorms than the source: {', '.join(differing)}; the same are "
            "needed. The model chooses its layers by something that a copy does not share: please report it."
        )
    leaves = [leaf for leaf in tree_leaves(wanted.output) if isinstance(leaf, Tensor)]
    empty = all(t.numel() == 0 for t in leaves) and wanted.sums  # a detector may find no object
    if not empty and not any(leaf.isfinite().any() for leaf in leaves):
        raise UnsupportedModelError(
            f"at {resolution} the output of the source holds no finite number; at least one is needed for a proof. "
            "Check the weights, or convert in float32."
        )

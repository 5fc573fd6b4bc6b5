"""Linear probe: classifiers alone, fitted to features of central crops that are computed once."""

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from rsconvert.data import Samples, normalize, postponed_interrupts
from rsconvert.errors import DataError, TrainingError, UnsupportedModelError
from rsconvert.evaluation import (
    Amp,
    autocast,
    check_classes,
    check_labels,
    check_logits,
    choose_device,
    choose_precision,
    float_dtype,
    plain_memory_errors,
    validation_loader,
)
from rsconvert.models import classifier_keys, example_input
from rsconvert.surgery import SwitchableModel, eval_mode

__all__ = ["Features", "classifier_name", "extract_features", "fit_classifier", "fit_classifier_first"]

_Layer = nn.Linear | nn.Conv2d
_ENOUGH = 10_000


@dataclass(frozen=True)
class Features:
    """What the classifier of each path receives for the same N images in evaluation.

    Attributes:
        classifier: the name of that layer in the model.
        inputs: resolution → (N, F), float32, on the CPU.
        targets: the output of the network that stands for each image's class, (N,), int64.
    """

    classifier: str
    inputs: Mapping[int, Tensor]
    targets: Tensor


def fit_classifier_first(
    net: SwitchableModel,
    samples: Samples,
    epochs: int,
    *,
    outputs: Sequence[int] | None = None,
    seed: int = 0,
    **reading: Any,
) -> None:
    """Fit the classifier before all learns, so that it does not spoil what it receives (LP-FT, Kumar et al. 2022).

    Of many images a part is enough, for their features are held in memory. The classifier is no longer new.

    Args:
        epochs: as of ``fit_classifier``.
        reading: as of ``extract_features``.
    Raises:
        UnsupportedModelError, DataError, TrainingError: as of both.
    """
    some = sorted(random.Random(seed).sample(range(len(samples)), min(len(samples), _ENOUGH)))
    features = extract_features(net, samples.subset(some), outputs=outputs, **reading)
    fit_classifier(net, features, epochs=epochs, seed=seed)
    net.source = replace(net.source, new_classifier=())


@torch.no_grad()
def extract_features(
    net: SwitchableModel,
    samples: Samples,
    resolutions: Sequence[int] | None = None,
    *,
    outputs: Sequence[int] | None = None,
    batch_size: int = 64,
    workers: int = 2,
    device: str | torch.device | None = None,
    amp: Amp = None,
    progress: bool = False,
) -> Features:
    """Return what the classifier of each path receives for images that are cropped and run as in evaluation.

    Every image is decoded once for all resolutions. The N·F numbers of each resolution are held in memory.

    Args:
        resolutions: trained ones; None takes them all.
        outputs: the network's output for each class of the data; None if these are the same.
        device: where to compute, and where the network stays; None takes a GPU if there is one.
    Raises:
        UnsupportedModelError: no single layer, linear or a 1×1 convolution, gives the logits.
        DataError: there are no images; one can't be read; the classes are not the network's.
        ResolutionError, ConfigError: a resolution or setting is unusable, or there is no such device here.
        TrainingError: memory ran out.
    """
    check_classes(net, samples, outputs)
    if len(samples) == 0:
        raise DataError("the data holds no images; a classifier learns from at least one.")
    where, asked = choose_device(device), tuple(resolutions or net.resolutions)
    precision = choose_precision(amp, where)
    name = classifier_name(net.to(where))
    with (
        plain_memory_errors(batch_size, workers),
        postponed_interrupts() as check,
        closing(validation_loader(net, samples, asked, batch_size=batch_size, workers=workers)) as loader,
    ):
        batches = []
        for views, target in tqdm(loader, desc="features", unit="batch", disable=not progress, leave=False):
            batches.append((*_inputs(net, name, dict(zip(asked, views, strict=True)), precision), target))
            check()
    *inputs, targets = map(torch.cat, zip(*batches, strict=True))
    mapped = targets if outputs is None else torch.tensor(outputs)[targets]
    return Features(name, dict(zip(asked, inputs, strict=True)), mapped)


def fit_classifier(
    net: SwitchableModel,
    features: Features,
    *,
    epochs: int = 5,
    lr: float = 0.01,
    batch_size: int = 32,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    view_weights: Sequence[float] | None = None,
    seed: int = 0,
) -> None:
    """Fit a network's classifier to features by the mean cross entropy; nothing else changes.

    Resolutions that share the classifier fit it together: a step takes the features of the same images at all of them.
    SGD with momentum; the rate falls as half a cosine from ``lr`` to 0.

    Args:
        features: of this network.
        weight_decay: of the matrix; the bias has none.
        view_weights: the weight of each resolution in the mean, in the order of ``features``; None takes equal ones.
        seed: of the order of the images.
    Raises:
        TrainingError: the result is not finite. The classifier is as it was.
        DataError: a target is beyond the network's outputs.
    """
    weights = dict(zip(features.inputs, view_weights or [1.0] * len(features.inputs), strict=True))
    sharing: dict[Tensor, list[int]] = {}
    for r in features.inputs:
        sharing.setdefault(_classifier(net.at(r), features.classifier).weight, []).append(r)
    order = _order(len(features.targets), batch_size, epochs, seed)
    for weight, sides in sharing.items():
        check_labels(features.targets, len(weight))
        layer = _classifier(net.at(sides[0]), features.classifier)
        views = [(weights[r] / sum(weights[side] for side in sides), features.inputs[r]) for r in sides]
        _fit(layer, views, features.targets, order, lr=lr, momentum=momentum, weight_decay=weight_decay)


def _order(count: int, batch_size: int, epochs: int, seed: int) -> list[Tensor]:
    """Return the images of each step: every epoch all of them, in an order of its own."""
    generator = torch.Generator().manual_seed(seed)
    return [
        places for _ in range(epochs) for places in torch.split(torch.randperm(count, generator=generator), batch_size)
    ]


@torch.enable_grad()
def _fit(
    layer: _Layer,
    views: Sequence[tuple[float, Tensor]],
    targets: Tensor,
    order: Sequence[Tensor],
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
) -> None:
    """Fit one layer to features (N, F), each with its share of the loss, in steps of the images of ``order``."""
    own = [tensor for tensor in (layer.weight, layer.bias) if tensor is not None]
    weight, *bias = fitted = [tensor.detach().clone().requires_grad_() for tensor in own]
    groups = [{"params": [weight], "weight_decay": weight_decay}, *({"params": [b], "weight_decay": 0.0} for b in bias)]
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=momentum)
    for step, places in enumerate(order):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 + math.cos(math.pi * step / len(order))) / 2
        target, loss = targets[places].to(weight.device), torch.zeros((), device=weight.device)
        for share, inputs in views:
            logits = F.linear(inputs[places].to(weight), weight.flatten(1), *bias)
            loss = loss + share * F.cross_entropy(logits, target)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    if not all(torch.isfinite(tensor).all() for tensor in fitted):
        raise TrainingError(f"the classifier is not finite after its fit at the rate {lr}; choose a smaller one.")
    with torch.no_grad():
        for tensor, values in zip(own, fitted, strict=True):
            tensor.copy_(values)


def _classifier(path: nn.Module, name: str) -> _Layer:
    return cast(_Layer, path.get_submodule(name))


def classifier_name(net: SwitchableModel) -> str:
    """Return the name of the layer whose outputs are the logits.

    Raises:
        UnsupportedModelError: no single layer, linear or a 1×1 convolution, gives them.
    """
    path = net.at(net.native)
    names = dict.fromkeys(key.rpartition(".")[0] for key in classifier_keys(path, net.source.task))
    with eval_mode([path]), _watched(path, names) as seen:
        logits = check_logits(path(example_input(path, net.native)), net.source.task)
    for name, (inputs, outputs) in seen.items():
        layer = path.get_submodule(name)
        if isinstance(layer, nn.Linear | nn.Conv2d) and outputs.flatten(1).shape == logits.shape:
            width = layer.weight.flatten(1).shape[1]
            if inputs.flatten(1).shape[1] == width and torch.equal(outputs.flatten(1).to(logits), logits):
                return name
    raise UnsupportedModelError(
        f"the logits of {type(path).__name__} are not the outputs of one layer; a linear layer or a 1×1 convolution of "
        "pooled features is needed to fit the classifier alone."
    )


def _inputs(net: SwitchableModel, name: str, views: Mapping[int, Tensor], amp: torch.dtype) -> Iterator[Tensor]:
    """Yield what the classifier of each path receives for uint8 images (N, C, r, r): (N, F), float32, on the CPU."""
    device, preprocessing, dtype = net.alpha.device, net.source.preprocessing, float_dtype(net)
    for r, view in views.items():
        image, path = normalize(view.to(device, non_blocking=True), preprocessing, dtype=dtype), net.at(r)
        with eval_mode([path]), _watched(path, [name]) as seen, autocast(device, amp):
            path(image)
        yield seen[name][0].flatten(1).float().cpu()


@contextmanager
def _watched(path: nn.Module, names: Iterable[str]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Collect what layers receive and return within the context."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name: str, _: nn.Module, received: tuple[Any, ...], output: Any) -> None:
        if received and isinstance(received[0], Tensor) and isinstance(output, Tensor):
            seen[name] = received[0], output

    handles = [path.get_submodule(name).register_forward_hook(partial(note, name)) for name in names]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()

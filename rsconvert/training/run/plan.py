"""What a finetuning run will hold in memory, measured before it starts."""

import copy
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from rsconvert.errors import TrainingError, first_line
from rsconvert.evaluation import autocast, is_memory_error
from rsconvert.models import example_input
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training.step import Objective, set_checkpointing

__all__ = ["memory_estimate"]

# The smallest batches with which every BatchNorm trains; two of them tell what grows with the batch from what doesn't.
_FEW, _MORE = 2, 3


def memory_estimate(
    net: SwitchableModel, config: FinetuneConfig, *, amp: torch.dtype = torch.float32, teacher: nn.Module | None = None
) -> dict[str, int]:
    """Return the bytes that training holds on its device when a step's forward is done.

    Counted are ``weights`` with buffers, ``gradients``, the ``optimizer``'s states, the moving ``average``, the
    ``teacher``, the normalized ``views`` of a batch, the ``activations`` kept for backward, and their ``total``. The
    activations are those of all views, or with ``low_memory`` of the largest one alone: a copy of the network runs on
    two small batches, and a line through what it keeps gives the batch of the run. Beside them are working memory of
    the layers, the loss, and with ``grad_checkpointing`` the part that backward computes anew.

    Args:
        net: is left as it is, and so are torch's global generators.
        amp: autocast's type, as of ``choose_precision``.
        teacher: another network in the ensemble's place.
    Raises:
        ConfigError: ``train`` does not fit the network.
        TrainingError: the network does not run in train mode at a size.
    """
    own = Objective(copy.deepcopy(net), config, amp).train().net
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    own.to(memory_format=layout)
    if config.grad_checkpointing:
        set_checkpointing(own)
    sizes = dict(zip(own.resolutions, config.view_sizes or own.resolutions, strict=True))
    views = {r: example_input(own.at(r), size, _MORE).to(memory_format=layout) for r, size in sizes.items()}
    weights, trained = _bytes(_tensors(own)), _bytes(p for p in own.parameters() if p.requires_grad)
    parts = {
        "weights": weights,
        "gradients": trained,
        "optimizer": trained * (2 if config.optimizer == "adamw" else int(config.momentum > 0)),
        "average": weights if config.ema_decay else 0,
        "teacher": 0 if teacher is None else _bytes(_tensors(teacher)),
        "views": _bytes(views.values()) // _MORE * config.batch_size,
        "activations": _activations(own, views, config, amp),
    }
    return {**parts, "total": sum(parts.values())}


def _activations(net: SwitchableModel, views: dict[int, Tensor], config: FinetuneConfig, amp: torch.dtype) -> int:
    largest = max(views, key=lambda r: views[r].shape[-1])
    used = {largest: views[largest]} if config.low_memory else views
    device = net.alpha.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        few, more = (_kept(net, {r: view[:n] for r, view in used.items()}, amp) for n in (_FEW, _MORE))
    return few + (more - few) * (config.batch_size - _FEW) // (_MORE - _FEW)


def _kept(net: SwitchableModel, views: dict[int, Tensor], amp: torch.dtype) -> int:
    """Return the bytes that autograd keeps of a forward beside the network's own and the views."""
    known = {tensor.untyped_storage().data_ptr() for tensor in (*_tensors(net), *views.values())}
    # Kept alive, for a freed storage's address may come again.
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage
        # Itself it would hold the graph that holds it.
        return tensor.detach()

    with (
        torch.enable_grad(),
        autocast(net.alpha.device, amp),
        saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        for resolution, view in views.items():
            _run(net, resolution, view)
    return sum(storage.nbytes() for storage in kept.values())


def _run(net: SwitchableModel, resolution: int, view: Tensor) -> None:
    try:
        net.at(resolution)(view)
    except Exception as error:  # whatever the network's own code raises
        if is_memory_error(error):
            raise
        raise TrainingError(
            f"resolution {resolution} does not train with views of shape {tuple(view.shape)} ({first_line(error)}); a "
            "size that every layer can take is needed. Choose larger resolutions."
        ) from error


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)

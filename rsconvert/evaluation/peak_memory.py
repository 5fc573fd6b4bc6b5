"""Peak memory: what a forward holds at its most beside the weights and its input."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from weakref import WeakSet, finalize

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["peak_memory"]


def peak_memory(run: Callable[[], object], device: torch.device, given: Iterable[Tensor]) -> int:
    """Return the bytes that a run holds at its most beyond what was there before it, its result included.

    On a GPU they are those of CUDA's allocator, the workspaces of kernels among them. Elsewhere they are those of the
    tensors that are alive; what a kernel takes for itself is not seen, so a compiled model, which is one kernel to
    torch, can't be measured there.

    Args:
        given: the tensors that are there before: weights, buffers, inputs.
    """
    if device.type == "cuda":
        return _allocated(run, device)
    counter = _LiveTensors(given)
    # In inference mode torch shows a composite function as one, without the tensors inside.
    with torch.inference_mode(False), torch.no_grad(), counter:
        run()
    return counter.peak


def _allocated(run: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before: int = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device)) - before


class _LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it so
    """Counts the bytes of the memories that were made within it and are alive; views and in-place results have none."""

    def __init__(self, given: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: WeakSet[Any] = WeakSet(tensor.untyped_storage() for tensor in given)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._meet(tensor.untyped_storage())
        return result

    def _meet(self, storage: Any) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        finalize(storage, partial(self._free, storage.nbytes()))

    def _free(self, size: int) -> None:
        self.live -= size

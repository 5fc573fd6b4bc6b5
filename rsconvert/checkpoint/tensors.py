"""Tensors by name in a safetensors file, which is written whole or not at all."""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rsconvert.checkpoint.ownership import scratch
from rsconvert.errors import CheckpointError, first_line

__all__ = [
    "Entry",
    "digest",
    "fill",
    "read_entries",
    "read_header",
    "read_tensors",
    "replacing",
    "sync",
    "write_tensors",
]

_TO_WRAP = "Weights of a plain model become a switchable file by rsconvert wrap MODEL --weights FILE."
# What to do where a switchable file is needed, by the ending of another.
_REMEDIES = {
    ".onnx": "Give the file that it was exported from; an ONNX file can be predicted with and verified.",
    ".pt2": "Give the file that it was exported from; a program can be verified.",
    ".pth": _TO_WRAP,
    ".pt": _TO_WRAP,
}


class Entry(NamedTuple):
    """What the header says of a tensor; ``dtype`` as safetensors writes it, such as F32."""

    dtype: str
    shape: tuple[int, ...]


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary file to write into; then put it, synced, in the place of ``path`` at once.

    It is in a folder of its own next to ``path``, for some libraries write temporary files beside theirs. A link is
    followed: the file that it leads to is replaced. An interruption leaves the old file and nothing temporary; what a
    killed process leaves, the next one removes that writes ``path``.

    Raises:
        CheckpointError: the folder is missing, the disk is full, or ``path`` is a folder or a device.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file():
            raise OSError("it is no ordinary file")
        with scratch(target, "part") as folder:
            part = folder / target.name
            with open(part, "wb") as file:
                mode = os.fstat(file.fileno()).st_mode
            yield part
            os.chmod(part, mode)  # safetensors leaves a file that its owner alone can read
            sync(part)
            os.replace(part, target)
        sync(target.parent)
    except Exception as error:  # safetensors and torch wrap the system's errors in their own
        raise CheckpointError(
            f"{path} can't be written ({first_line(error) or type(error).__name__}); a file in a folder that exists, "
            "with room for it, is needed. The old file is untouched: make room, or choose another place."
        ) from error


def sync(path: Path) -> None:
    """Wait until the disk holds a file, or the names in a folder."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":  # lets no one open a folder
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_tensors(tensors: Mapping[str, Tensor], path: str | Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file as `replacing` does; a tensor under two names is stored under each."""
    with replacing(path) as part:
        save_file(dict(_apart(tensors)), part, metadata)


def read_header(path: str | Path) -> dict[str, str]:
    """Return the metadata of a safetensors file.

    Raises:
        CheckpointError: there is no such file, or it is no intact safetensors file.
    """
    with _opened(path) as file:
        return dict(file.metadata() or {})


def read_entries(path: str | Path) -> dict[str, Entry]:
    """Return what the header of a file says of its tensors, and read none of them.

    Raises:
        CheckpointError: as `read_header`.
    """
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no dict
        return {name: Entry(part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}


def read_tensors(path: str | Path, names: Sequence[str] | None = None) -> dict[str, Tensor]:
    """Return the tensors of those names that a file holds, and read no other; of all names by default.

    Raises:
        CheckpointError: as `read_header`.
    """
    with _opened(path) as file:
        held = file.keys()
        return {name: file.get_tensor(name) for name in held if names is None or name in names}


def fill(module: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Copy tensors into a module strictly; it takes their dtypes, and keeps which of its tensors are tied.

    Raises:
        CheckpointError: a tensor is missing or foreign, or has another shape or kind: floating, or an integer type.
    """
    own = module.state_dict(keep_vars=True)
    wrong = sorted(own.keys() ^ tensors.keys()) or sorted(k for k in own if _kind(own[k]) != _kind(tensors[k]))
    if wrong:
        raise CheckpointError(
            f"{origin} does not fit {type(module).__name__}: {len(wrong)} tensors are missing, foreign or of another "
            f"shape or kind, such as {', '.join(wrong[:3])}; exactly the network's tensors are needed. "
            "Check the model and its arguments."
        )
    for name, tensor in own.items():
        tensor.data = tensor.data.to(tensors[name].dtype)
    # A safetensors file has no versions, which some modules ask for, torchvision's MNASNet for one.
    state = OrderedDict(tensors)
    state._metadata = own._metadata  # type: ignore[attr-defined]  # where load_state_dict looks for them
    module.load_state_dict(state)


def digest(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """Return a hash over a text, and the names, types, shapes and bytes of tensors."""
    whole = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        whole.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def _kind(tensor: Tensor) -> tuple[Any, ...]:
    """Return what must be the same: a network takes another precision from a file, but not another kind of number."""
    return tuple(tensor.shape), tensor.is_complex(), None if tensor.is_floating_point() else tensor.dtype


def _apart(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Copy what shares memory with an earlier tensor: safetensors refuses it."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().contiguous()
        memory = plain.untyped_storage().data_ptr()
        yield name, plain.clone() if memory in seen else plain
        seen.add(memory)


def _opened(path: str | Path) -> Any:
    if not Path(path).is_file():
        raise CheckpointError(f"{path} is not a file; a switchable .safetensors file is needed. Check the path.")
    try:
        return safe_open(str(path), framework="pt")
    except Exception as error:  # SafetensorError, OSError and UnicodeDecodeError
        remedy = _REMEDIES.get(Path(path).suffix.lower(), "Give another file, or write it again.")
        raise CheckpointError(
            f"{path} is not an intact safetensors file ({first_line(error)}); it is foreign, truncated or damaged. "
            f"{remedy}"
        ) from error

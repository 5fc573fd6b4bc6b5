"""The one switchable safetensors file. docs/checkpoint_format.md is its specification."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rsconvert.data import Preprocessing
from rsconvert.errors import CheckpointError, RSConvertError
from rsconvert.surgery import Source, SwitchableModel, assemble, batchnorms, create_model, is_file_name, source_of

__all__ = ["FORMAT_VERSION", "load", "read_metadata", "save", "subset", "write_tensors"]

FORMAT_VERSION = 1
_REMOTE = ("hf-hub:", "hf_hub:", "local-dir:")


def save(net: SwitchableModel, path: str | Path) -> None:
    """Write a network to one file, in place of a file of that name; an interrupted write leaves the old one whole.

    Raises:
        CheckpointError: the file can't be written, or an argument of the model can't be told in JSON.
    """
    tensors, aliases = _untie(net.state_dict())
    write_tensors(tensors, path, {"format": "pt", "rsconvert": _metadata(net, aliases)})


def load(path: str | Path, model: nn.Module | None = None, *, resolution: int | None = None) -> nn.Module:
    """Return the network in a file as a SwitchableModel; or, for a ``resolution``, that path as a plain model.

    Without ``model`` the network is built from the name in the file, which can be a timm or torchvision name only:
    a file never makes rsconvert import code.

    Args:
        model: a plain model of the saved class, left unchanged; needed for a network without a name.
        resolution: a trained one, whose set alone is read.
    Raises:
        CheckpointError: the file is broken, truncated, foreign or from a later version, has no such resolution, or
            holds other tensors than the network.
    """
    metadata = read_metadata(path)
    plain = _build(metadata, path) if model is None else model
    source = _source(metadata, path)
    source = source if model is None or source.architecture else replace(source_of(model), **_known(source))
    if resolution is not None:
        return _load_path(plain, metadata, path, resolution)
    net = assemble(plain, metadata["resolutions"], private=metadata.get("private", True))
    net.source = source
    tensors = _read(path, None)
    _fill(net, tensors | {alias: tensors[name] for alias, name in metadata.get("aliases", {}).items()}, path)
    return net


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return the ``rsconvert`` metadata of a file without reading its tensors.

    Raises:
        CheckpointError: there is no such file, it is no safetensors file, or no switchable one of this version.
    """
    metadata = _header(path)
    if "rsconvert" not in metadata:
        raise CheckpointError(
            f"{path} is a plain checkpoint, without the metadata of a switchable one; a file that rsconvert wrote is needed. "
            "Convert it: rsconvert wrap MODEL --weights FILE."
        )
    try:
        facts = json.loads(metadata["rsconvert"])
        version, resolutions = facts["format_version"], tuple(facts["resolutions"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} has damaged metadata ({error!r}); the file is unusable. Write it again.") from error
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path} has format version {version}; this rsconvert reads {FORMAT_VERSION}. Update rsconvert.")
    return {**facts, "resolutions": resolutions}


def subset(net: SwitchableModel, resolutions: Sequence[int]) -> SwitchableModel:
    """Return an independent network that keeps some of the sets; the largest kept becomes native.

    Raises:
        CheckpointError: a resolution is not among the trained ones.
    """
    if unknown := [r for r in resolutions if r not in net.resolutions]:
        raise CheckpointError(f"resolution {unknown[0]} is not in the file; it holds {net.resolutions}. Choose among them.")
    kept = [r for r in net.resolutions if r in set(resolutions)]
    small = assemble(net.extract(kept[0]), kept)
    small.source = net.source
    with torch.no_grad():
        for resolution in kept:
            small.at(resolution).load_state_dict(net.at(resolution).state_dict())
        small.alpha.copy_(net.alpha[[net.resolutions.index(r) for r in kept]])
    return small


def write_tensors(tensors: Mapping[str, Tensor], path: str | Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically: beside the target, synced, then renamed over it.

    Raises:
        CheckpointError: the folder is missing or the disk is full; a file of that name is as it was.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file({name: t.detach().contiguous() for name, t in tensors.items()}, part, metadata)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except Exception as error:  # safetensors wraps the system's errors in its own
        raise CheckpointError(
            f"{path} can't be written ({_first_line(error)}); a folder that exists, with room for the file, is needed. "
            "What stood there is untouched: make room, or choose another place."
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()


def _untie(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Split a state_dict into tensors and the further names of those that it holds under several."""
    first: dict[tuple[Any, ...], str] = {}
    tensors, aliases = {}, {}
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and place in first:
            aliases[name] = first[place]
        else:
            first[place] = name
            tensors[name] = tensor
    return tensors, aliases


def _metadata(net: SwitchableModel, aliases: dict[str, str]) -> str:
    source = net.source
    facts = {
        "format_version": FORMAT_VERSION,
        "architecture": source.architecture,
        "model_kwargs": dict(source.model_kwargs),
        "num_classes": source.num_classes,
        "resolutions": net.resolutions,
        "mean": source.preprocessing.mean,
        "std": source.preprocessing.std,
        "interpolation": source.preprocessing.interpolation,
        "crop_pct": source.preprocessing.crop_pct,
        "private": next(net.switchable_bns(), None) is not None,
        "aliases": aliases,
        "source": source.weights,
        "new_classifier": source.new_classifier,
        "class_names": source.class_names,
        "training": None if source.training is None else dict(source.training),
    }
    try:
        return json.dumps({key: value for key, value in facts.items() if value not in (None, {}, ())})
    except TypeError as error:
        raise CheckpointError(f"model_kwargs {source.model_kwargs} can't be saved ({error}); plain values are needed.") from error


def _source(metadata: Mapping[str, Any], path: str | Path) -> Source:
    names = metadata.get("class_names")
    try:
        crop_pct = metadata["crop_pct"]
        return Source(
            architecture=metadata.get("architecture"),
            model_kwargs=metadata.get("model_kwargs", {}),
            num_classes=metadata.get("num_classes"),
            preprocessing=Preprocessing(
                mean=tuple(metadata["mean"]),
                std=tuple(metadata["std"]),
                interpolation=metadata["interpolation"],
                crop_pct=tuple(crop_pct) if isinstance(crop_pct, list) else crop_pct,
            ),
            weights=metadata.get("source"),
            new_classifier=tuple(metadata.get("new_classifier", ())),
            class_names=None if names is None else tuple(names),
            training=metadata.get("training"),
        )
    except (KeyError, TypeError, RSConvertError) as error:
        raise CheckpointError(f"{path} has damaged metadata ({error}); the file is unusable. Write it again.") from error


def _known(source: Source) -> dict[str, Any]:
    return {name: getattr(source, name) for name in ("num_classes", "preprocessing", "class_names", "training", "new_classifier")}


def _build(metadata: Mapping[str, Any], path: str | Path) -> nn.Module:
    name = metadata.get("architecture")
    if name is None or is_file_name(name) or name.startswith(_REMOTE):
        raise CheckpointError(
            f"{path} holds a network made by {name or 'code without a name'}; only timm and torchvision names are built from a "
            "file alone. Give the model: load(path, model=…), or --model file.py:function."
        )
    try:
        return create_model(name, num_classes=metadata.get("num_classes"), model_kwargs=metadata.get("model_kwargs"))
    except RSConvertError as error:
        raise CheckpointError(f"{path} can't be rebuilt: {error}") from error


def _header(path: str | Path) -> dict[str, str]:
    with _opened(path) as file:
        return file.metadata() or {}


def _read(path: str | Path, names: Sequence[str] | None) -> dict[str, Tensor]:
    with _opened(path) as file:
        held = set(file.keys())
        return {name: file.get_tensor(name) for name in (file.keys() if names is None else names) if name in held}


def _opened(path: str | Path) -> Any:
    if not Path(path).is_file():
        raise CheckpointError(f"{path} is not a file; a switchable .safetensors file is needed. Check the path.")
    try:
        return safe_open(str(path), framework="pt")
    except Exception as error:  # SafetensorError, OSError and UnicodeDecodeError
        raise CheckpointError(
            f"{path} is not an intact safetensors file ({_first_line(error)}); it is foreign, truncated or damaged. "
            "Give another file, or write it again."
        ) from error


def _fill(module: nn.Module, tensors: dict[str, Tensor], path: str | Path) -> None:
    own = module.state_dict()
    wrong = sorted(own.keys() ^ tensors.keys()) or sorted(k for k in own if own[k].shape != tensors[k].shape)
    if wrong:
        raise CheckpointError(
            f"{path} does not fit {type(module).__name__}: {', '.join(wrong[:3])} and the like ({len(wrong)}) are missing, foreign "
            "or of another shape; the tensors of the saved network are needed. Check the model and its arguments."
        )
    module.load_state_dict(tensors, assign=_dtypes(own) != _dtypes(tensors))


def _dtypes(tensors: Mapping[str, Tensor]) -> dict[str, torch.dtype]:
    return {name: tensor.dtype for name, tensor in tensors.items()}


def _load_path(plain: nn.Module, metadata: Mapping[str, Any], path: str | Path, resolution: int) -> nn.Module:
    resolutions = metadata["resolutions"]
    if resolution not in resolutions:
        raise CheckpointError(
            f"{path} has no set for {resolution}; it holds {resolutions}. Choose one of them, or load the network and extract({resolution})."
        )
    keys = {key: key for key in plain.state_dict()}
    if resolution != resolutions[0] and metadata.get("private", True):
        for bn in batchnorms(plain):
            prefix = f"{bn}." if bn else ""
            keys |= {k: f"{prefix}at.{resolution}.{k.removeprefix(prefix)}" for k in keys if k.startswith(prefix)}
    aliases = metadata.get("aliases", {})
    tensors = _read(path, sorted({aliases.get(key, key) for key in keys.values()}))
    _fill(plain, {own: tensors[aliases.get(key, key)] for own, key in keys.items() if aliases.get(key, key) in tensors}, path)
    return plain


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

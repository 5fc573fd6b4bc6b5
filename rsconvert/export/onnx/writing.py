"""export_onnx: one file that switches by itself, or a plain one for each resolution."""

import copy
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from rsconvert.checkpoint import replacing, scratch
from rsconvert.errors import CheckpointError, ConfigError
from rsconvert.evaluation import default_resolutions
from rsconvert.export.logits import keep_logits
from rsconvert.export.onnx.branches import branch, weigh_in_integers
from rsconvert.export.onnx.half import check_half, halve
from rsconvert.export.onnx.int8_files import Int8Paths
from rsconvert.export.onnx.one_table import graph_of_one_table
from rsconvert.export.onnx.plain_graphs import check_dtypes
from rsconvert.export.onnx.torch_export import onnx_model
from rsconvert.export.opening import needed, open_onnx
from rsconvert.export.target import Exported, check_target, image_facts, numbered
from rsconvert.export.verification import Verification, logits_of, verify_export
from rsconvert.models import example_input
from rsconvert.surgery import SwitchableModel, check_resolutions, eval_mode, fold_batchnorm

__all__ = ["check_readers", "export_onnx", "share_weights"]

# Less is not worth a reference; onnx's own limit.
_SMALLEST = 1024
Precision = Literal["float32", "float16", "int8"]
_Sides = Sequence[int] | None


def export_onnx(
    net: SwitchableModel,
    path: str | Path,
    resolution: int | Sequence[int] | None = None,
    *,
    branches: Sequence[int] | None = None,
    compact: bool = False,
    shared_weights: bool = False,
    precision: Precision = "float32",
    reduce_range: bool = False,
    force: bool = False,
) -> Exported:
    """Write ONNX files, ``images`` (N, C, H, W) → ``logits``, each compared with the network in ONNX Runtime before.

    Args:
        resolution: None makes one file for all sizes, which chooses the BN set by H and W; a number a plain file for
            that size alone, BatchNorm folded; several numbers one each, named ``NAME-160.onnx``.
        branches: sizes at which a file that switches is as fast as a plain one, each for a copy of the weights in
            memory. None takes the trained ones and the middle of each two neighbours, where the network takes it.
        compact: a file that switches has one copy of the weights in memory, and no branches but in int8.
        shared_weights: several plain files keep weights in one more, ``NAME.weights``, and BatchNorm as it is.
        precision: of all but input and output; an int8 file that switches runs the branch nearest to an input's size.
        reduce_range: int8 weights of 7 bits, for x86 processors without VNNI, where sums of 8 bits overflow.
        force: replace files that exist.
    Raises:
        UnsupportedModelError: torch.fx or the exporter can't take the network.
        ResolutionError: the network does not work at a resolution, or a list of them is unusable.
        CheckpointError: a file exists, can't be written, or disagrees with the network.
        ConfigError: the extra ``onnx`` is not installed, or an option has no effect.
    """
    path, flat = Path(path), compact and precision != "int8"  # an int8 file has branches in any case
    sides, asked = _listed(resolution, "resolution", "file"), _listed(branches, "branches", "branch")
    _check_options(net, sides, asked, compact, flat, shared_weights)
    _check_precision(net, precision, reduce_range, shared_weights)
    files = _free_places(path, sides, force)
    weights = _free_weights(path.with_suffix(".weights"), files, force) if shared_weights else None
    net = _on_cpu(net)
    with torch.no_grad(), eval_mode([net, *map(net.at, net.resolutions)]), _scratch_folder(path) as folder:
        chosen = () if flat or sides or _serves_all(net) else _branches(net, asked)
        if precision == "int8":
            make = partial(_int8_model, Int8Paths(net, reduce_range=reduce_range), chosen or (net.native,), compact)
        else:
            make = partial(_model, net, chosen, shared_weights, precision)
        models = {file: make(side) for file, side in files.items()}
        _describe(models, net, files, chosen, precision)
        if weights:
            share_weights([*models.values()], folder / weights.name)
        verified = {file: _written(model, net, folder / file.name) for file, model in models.items()}
        _put(folder, weights, list(files))
    return Exported(files, verification=verified, weights=weights)


def _listed(given: int | Sequence[int] | None, name: str, each: str) -> _Sides:
    values = [given] if isinstance(given, int) else given
    return None if values is None else check_resolutions(values, name, each)


def _free_places(path: Path, sides: _Sides, force: bool) -> Mapping[Path, int | None]:
    check_target(path, force=True, suffixes=(".onnx",))
    files: Mapping[Path, int | None] = {path: None} if sides is None else numbered(path, sides)
    for file in files:
        check_target(file, force)
    return files


def _free_weights(weights: Path, files: Iterable[Path], force: bool) -> Path:
    check_target(weights, force)
    check_readers(weights, files)
    return weights


def _put(folder: Path, weights: Path | None, graphs: Sequence[Path]) -> None:
    """Move files out of a folder to their places."""
    for target in (*([weights] if weights else []), *graphs):
        with replacing(target) as part:
            os.replace(folder / target.name, part)
            for graph in graphs if target == weights else ():
                graph.unlink(missing_ok=True)  # an old one that an interruption leaves would read new weights


def _check_options(
    net: SwitchableModel, sides: _Sides, branches: _Sides, compact: bool, flat: bool, shared_weights: bool
) -> None:
    if flat and branches is not None:
        raise ConfigError(f"compact is set, and branches is {list(branches)}; a compact file has none. Leave one out.")
    set_ = "compact is set" if compact else None if branches is None else f"branches is {list(branches)}"
    if set_ and sides is not None:
        raise ConfigError(
            f"{set_} for the resolutions {list(sides)}; a file that switches alone can be so. Leave one out."
        )
    if compact and branches is not None and len(branches) == 1:
        raise ConfigError(f"compact is set for the one branch {branches[0]}; several can share. Leave it out.")
    if set_ and _serves_all(net):
        raise ConfigError(f"{set_} for a network of one BN set; it takes several to switch. Leave it out.")
    if shared_weights and (sides is None or len(sides) < 2):
        raise ConfigError(
            f"shared_weights is set for the resolutions {sides}; two or more can share. Name more, or leave it out."
        )


def _check_precision(net: SwitchableModel, precision: str, reduce_range: bool, shared_weights: bool) -> None:
    if precision not in get_args(Precision):
        raise ConfigError(f"precision is {precision!r}; {', '.join(get_args(Precision))} are accepted.")
    for name, given in (("shared_weights", shared_weights and precision == "int8"), ("reduce_range", reduce_range)):
        if given and (name == "shared_weights" or precision != "int8"):
            raise ConfigError(f"{name} is set for precision {precision}, where it has no effect. Leave it out.")
    if precision == "float16":
        check_half(net)


def _on_cpu(net: SwitchableModel) -> SwitchableModel:
    """Return the network, or a copy of it, where ONNX Runtime computes too."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        needed(package)
    check_dtypes(net)
    return net if net.alpha.device.type == "cpu" else copy.deepcopy(net).cpu()


def _written(model: Any, net: SwitchableModel, file: Path) -> Verification:
    needed("onnx").save(model, file)
    result = verify_export(open_onnx(file), net)
    result.check(f"the ONNX file {file.name}")
    return result


@contextmanager
def _scratch_folder(path: Path) -> Iterator[Path]:
    """Yield a folder for what is not verified yet; nothing of it stays."""
    try:
        with scratch(Path(os.path.realpath(path)), "scratch") as folder:
            yield folder
    except OSError as error:
        raise CheckpointError(
            f"{path} can't be written ({error}); room in a folder that exists is needed. The old files "
            "are untouched: make room, or choose another place."
        ) from error


def _serves_all(net: SwitchableModel) -> bool:
    """Return whether one set serves all sizes."""
    return len(net.resolutions) == 1 or not any(net.switchable_layers())


def _branches(net: SwitchableModel, asked: _Sides) -> Sequence[int]:
    """Return the resolutions that get a branch, all of which the network takes."""
    if asked is None:
        return default_resolutions(net)
    for side in asked:
        logits_of(net, example_input(net, side, 2))
    return asked


def _model(net: SwitchableModel, branches: Sequence[int], shared: bool, precision: str, side: int | None) -> Any:
    """Return the ONNX model of one path, or of the whole network if ``side`` is None."""
    image = example_input(net, net.native if side is None else side, 2)
    logits_of(net, image)
    precise: Callable[[Any], Any] = halve if precision == "float16" else lambda model: model
    task = net.source.task
    if side is not None:
        path = net.extract(side) if shared else fold_batchnorm(net.at(side), side)[0]
        model = precise(onnx_model(keep_logits(path, task), image, any_size=False, optimize=not shared))
    elif _serves_all(net):
        model = precise(onnx_model(keep_logits(net.extract(net.native), task), image, any_size=True))
    else:
        model = precise(onnx_model(graph_of_one_table(net), image, any_size=True))
        weigh_in_integers(model, net.resolutions)
        model = branch(model, net.resolutions, branches) if branches else model
    return model


def _describe(
    models: Mapping[Path, Any],
    net: SwitchableModel,
    files: Mapping[Path, int | None],
    branches: _Sides,
    precision: str,
) -> None:
    for file, side in files.items():
        needed("onnx").helper.set_model_props(models[file], _metadata(models[file], net, side, branches, precision))


def _int8_model(paths: Int8Paths, branches: Sequence[int], compact: bool, side: int | None) -> Any:
    return paths.plain(side) if side is not None else paths.switching(branches, compact=compact)


def _metadata(model: Any, net: SwitchableModel, side: int | None, branches: _Sides, precision: str) -> dict[str, str]:
    """Return what a caller must know; values that are not text are JSON."""
    facts = image_facts(net, net.native if side is None else side)
    facts["resolutions"] = list(net.resolutions) if side is None else [side]
    if side is None:
        facts |= {"resolution": None, "crop_pct": net.source.preprocessing.crop_pct}
    facts["branches"] = branches or None
    facts["precision"] = precision
    facts["opset"] = next(entry.version for entry in model.opset_import if not entry.domain)
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items() if v is not None}


def check_readers(path: Path, graphs: Iterable[Path]) -> None:
    """Raise a CheckpointError for a file of weights, to be replaced, that other graphs next to it read."""
    replaced = {graph.name for graph in graphs}
    for graph in sorted(path.parent.glob(f"{path.stem}-*.onnx")) if path.exists() else ():
        if graph.name not in replaced and path.name.encode() in graph.read_bytes():
            raise CheckpointError(
                f"{graph} reads its weights from {path}, which would be replaced; files of one export belong together. "
                "Remove it, or choose another name."
            )


def share_weights(models: Sequence[Any], path: Path) -> None:
    """Move the tensors of ``onnx.ModelProto``s into one file next to theirs, equal ones to one place."""
    onnx = needed("onnx")
    places: dict[bytes, int] = {}
    with open(path, "wb") as file:
        for tensor in (tensor for model in models for tensor in model.graph.initializer):
            values = onnx.numpy_helper.to_array(tensor).tobytes()
            if len(values) < _SMALLEST:
                continue
            if values not in places:
                file.write(bytes(-file.tell() % 64))  # where a processor likes to read
                places[values] = file.tell()
                file.write(values)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", path.name), ("offset", places[values]), ("length", len(values))):
                tensor.external_data.add(key=key, value=str(value))

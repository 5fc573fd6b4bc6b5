"""export_onnx: one file that switches by itself, or a plain one for each resolution."""

import copy
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from rsconvert.checkpoint import replacing
from rsconvert.errors import CheckpointError, ConfigError, UnsupportedModelError
from rsconvert.evaluation import default_resolutions
from rsconvert.export.agreement import Verification
from rsconvert.export.facts import image_facts
from rsconvert.export.onnx.branches import branch
from rsconvert.export.onnx.one_table import graph_of_one_table
from rsconvert.export.onnx.shared_weights import check_readers, share_weights
from rsconvert.export.onnx.torch_export import onnx_model
from rsconvert.export.opening import needed, open_onnx
from rsconvert.export.target import check_target
from rsconvert.export.verify import logits_of, verify_export
from rsconvert.models import example_input
from rsconvert.surgery import SwitchableModel, check_resolutions, eval_mode, fold_batchnorm, interpolation_weights

__all__ = ["export_onnx"]


def export_onnx(
    net: SwitchableModel,
    path: str | Path,
    resolution: int | Sequence[int] | None = None,
    *,
    branches: Sequence[int] | None = None,
    compact: bool = False,
    shared_weights: bool = False,
    force: bool = False,
) -> dict[Path, Verification]:
    """Write ONNX files, each compared with the network in ONNX Runtime before it takes its name.

    The input is ``images`` (N, C, H, W), normalized, N free; the output is ``logits``. The files' metadata hold the
    resolutions, the preprocessing and what is known of the classes.

    Args:
        resolution: None makes one file for all sizes, which computes the BN set from H and W, trained or
            interpolated. A number makes a plain file for that size alone, BatchNorm folded; several numbers one each,
            named ``NAME-160.onnx``.
        branches: resolutions at which a file that switches is as fast as a plain one; for each ONNX Runtime keeps a
            copy of the weights in memory, BatchNorm folded. None takes the trained ones and the middle of each two
            neighbours, as far as the network takes it.
        compact: a file that switches has no branches, and one copy of the weights in memory.
        shared_weights: several plain files keep their weights in one more file, ``NAME.weights``, and BatchNorm as it
            is.
        force: replace files that exist.
    Returns:
        Each file with its verification.
    Raises:
        UnsupportedModelError: torch.fx or the exporter can't take the network.
        ResolutionError: the network does not work at a resolution, or a list of them is unusable.
        CheckpointError: a file exists, can't be written, or disagrees with the network.
        ConfigError: the extra ``onnx`` is not installed, or an option has no effect.
    """
    path = Path(path)
    given = [resolution] if isinstance(resolution, int) else resolution
    sides, asked = _checked(net, given, branches, compact, shared_weights)
    targets = _targets(path, sides)
    weights = [path.with_suffix(".weights")] if shared_weights else []
    _check_places(weights, list(targets), force)
    net = _on_cpu(net)
    with torch.no_grad(), eval_mode([net, *map(net.at, net.resolutions)]), _folder_beside(path) as folder:
        chosen = () if compact or sides or _serves_all(net) else _branches(net, asked)
        models = {target.name: _model(net, side, chosen, shared_weights) for target, side in targets.items()}
        for file in weights:
            share_weights([*models.values()], folder / file.name)
        results = {target: _written(models[target.name], net, folder / target.name) for target in targets}
        _put(folder, weights, list(targets))
    return results


def _check_places(weights: Sequence[Path], graphs: Sequence[Path], force: bool) -> None:
    for target in (*weights, *graphs):
        check_target(target, force)
    for file in weights:
        check_readers(file, graphs)


def _put(folder: Path, weights: Sequence[Path], graphs: Sequence[Path]) -> None:
    """Move files out of a folder to their places."""
    for target in (*weights, *graphs):
        with replacing(target) as part:
            os.replace(folder / target.name, part)
            for graph in graphs if target in weights else ():
                graph.unlink(missing_ok=True)  # an old one that an interruption leaves would read new weights


def _on_cpu(net: SwitchableModel) -> SwitchableModel:
    """Return the network, or a copy of it, where ONNX Runtime computes too."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        needed(package)
    if doubles := [name for name, p in net.named_parameters() if p.dtype == torch.float64]:
        raise UnsupportedModelError(
            f"{doubles[0]} is float64, in which ONNX Runtime has no convolutions; float32 is needed. Call net.float()."
        )
    return net if net.alpha.device.type == "cpu" else copy.deepcopy(net).cpu()


def _written(model: Any, net: SwitchableModel, file: Path) -> Verification:
    needed("onnx").save(model, file)
    result = verify_export(open_onnx(file), net)
    result.check(f"the ONNX file {file.name}")
    return result


def _checked(
    net: SwitchableModel,
    resolutions: Sequence[int] | None,
    branches: Sequence[int] | None,
    compact: bool,
    shared_weights: bool,
) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """Return the resolutions and the branches, if the options go together."""
    sides = None if resolutions is None else check_resolutions(resolutions, "resolution", "file")
    asked = None if branches is None else check_resolutions(branches, "branches", "branch")
    told = "compact is set" if compact else None if asked is None else f"branches is {list(asked)}"
    if compact and asked is not None:
        raise ConfigError(f"compact is set, and branches is {list(asked)}; a compact file has none. Leave one out.")
    if told and sides is not None:
        raise ConfigError(
            f"{told} for the resolutions {list(sides)}; a file that switches alone can be so. Leave one out."
        )
    if told and _serves_all(net):
        raise ConfigError(f"{told} for a network of one BN set; it takes several to switch. Leave it out.")
    if shared_weights and (sides is None or len(sides) < 2):
        raise ConfigError(
            f"shared_weights is set for the resolutions {sides}; two or more can share. Name more, or leave it out."
        )
    return sides, asked


def _targets(path: Path, sides: Sequence[int] | None) -> dict[Path, int | None]:
    check_target(path, force=True, suffixes=(".onnx",))
    if sides is None or len(sides) == 1:
        return {path: None if sides is None else sides[0]}
    return {path.with_stem(f"{path.stem}-{side}"): side for side in sides}


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """Yield a folder for what is not verified yet; nothing of it stays."""
    try:
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.absolute().parent) as folder:
            yield Path(folder)
    except OSError as error:
        raise CheckpointError(
            f"{path} can't be written ({error}); room in a folder that exists is needed. What stood there is "
            "untouched: make room, or choose another place."
        ) from error


def _serves_all(net: SwitchableModel) -> bool:
    """Tell whether one BN set serves all sizes."""
    return len(net.resolutions) == 1 or not net.private


def _branches(net: SwitchableModel, asked: Sequence[int] | None) -> tuple[int, ...]:
    """Return the resolutions that get a branch, all of which the network takes."""
    if asked is None:
        return default_resolutions(net)
    for side in asked:
        logits_of(net, example_input(net, side, 2))
    return tuple(asked)


def _model(net: SwitchableModel, side: int | None, branches: Sequence[int], shared_weights: bool) -> Any:
    """Return the ONNX model of one path, or of the whole network if ``side`` is None."""
    image = example_input(net, net.native if side is None else side, 2)
    logits_of(net, image)
    if side is not None:
        path = net.extract(side) if shared_weights else fold_batchnorm(net.at(side), side)[0]
        model = onnx_model(path, image, any_size=False, optimize=not shared_weights)
    elif _serves_all(net):
        model = onnx_model(net.extract(net.native), image, any_size=True)
    else:
        model = onnx_model(graph_of_one_table(net), image, any_size=True)
        if branches:
            # Beyond the ends several have the same.
            branch(model, [*dict.fromkeys(interpolation_weights(r, net.resolutions) for r in branches)])
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    facts = _metadata(net, side) | ({"branches": json.dumps(branches)} if branches else {})
    needed("onnx").helper.set_model_props(model, {**facts, "opset": str(opset)})
    return model


def _metadata(net: SwitchableModel, side: int | None) -> dict[str, str]:
    """Return what a caller must know; values that are not text are JSON."""
    facts = image_facts(net, net.native if side is None else side)
    facts["resolutions"] = list(net.resolutions) if side is None else [facts["resolution"]]
    if side is None:
        facts |= {"resolution": None, "crop_pct": net.source.preprocessing.crop_pct}
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items() if v is not None}

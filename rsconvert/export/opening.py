"""Exports opened again, each as a function of images, by the software that it was written for."""

import importlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from rsconvert.checkpoint import PUBLISHED, fill, load, read_header, read_tensors
from rsconvert.errors import CheckpointError, ConfigError, first_line, install_hint
from rsconvert.export.program_archive import checked_program, is_compiled
from rsconvert.models import TORCHVISION, create_model
from rsconvert.surgery import SwitchableModel, check_resolutions, prepare_folded

__all__ = ["Export", "needed", "open_export", "open_onnx"]


@dataclass(frozen=True)
class Export:
    """An export that can be run.

    Args:
        run: images (N, C, H, W) → logits.
        height, width, batch: the numbers that the file is bound to; a name is free, two equal names are one number.
        branches: the resolutions that a branch of an ONNX file serves.
        plain: it holds one path and does not say of which resolution.
        facts: what an ONNX file says of itself, as text.
        precision: of its arithmetic; float32, float16 or int8.
    """

    run: Callable[[Tensor], Tensor]
    height: int | str = "height"
    width: int | str = "width"
    batch: int | str = "batch"
    branches: tuple[int, ...] = ()
    plain: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)
    precision: str = "float32"

    @property
    def bound(self) -> tuple[int, ...]:
        """The one height and width that the file takes; empty if both are free."""
        return tuple(side for side in (self.height, self.width) if isinstance(side, int))


def open_export(path: str | PathLike[str], net: SwitchableModel, *, native_code: bool = False) -> Export:
    """Open what ``export`` wrote: ``.onnx``, ``.pt2``, a folder of timm or for a hub, or a state_dict of torchvision.

    Opening runs no code of the file, unless ``native_code`` allows that of a package of AOTInductor.

    Args:
        net: the network that it was made from; a state_dict does not say its architecture.
        native_code: load such a package, whose library then runs with all rights of this process.
    Raises:
        CheckpointError: it is none of these, or is broken; it would run code.
        ConfigError: the package that reads it is not installed.
    """
    path = Path(path)
    if path.is_dir():
        return _open_hub(path) if (path / PUBLISHED).is_file() else _open_folder(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; a file or folder that export wrote is needed. Check the path.")
    if path.suffix == ".onnx":
        return open_onnx(path)
    if path.suffix == ".pt2":
        return _open_compiled(path, native_code) if _is_compiled(path) else _open_program(path)
    if path.suffix in (".safetensors", ".pth", ".pt"):
        return _open_state(path, net)
    raise CheckpointError(
        f"{path} has the suffix {path.suffix!r}; .onnx, .pt2, a folder of timm or for a hub, or a state_dict of "
        "torchvision in .safetensors, .pth or .pt are accepted. Check the path."
    )


def open_onnx(path: str | PathLike[str]) -> Export:
    """Open an ONNX file in ONNX Runtime, on as many threads as torch has.

    Raises:
        CheckpointError: it is broken, or takes something else than one image batch.
        ConfigError: ONNX Runtime is not installed.
    """
    runtime = needed("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what goes wrong is raised too
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        facts = session.get_modelmeta().custom_metadata_map
        listed = json.loads(facts.get("branches", "null"))
        branches = () if listed is None else check_resolutions(listed, "branches", "branch")
    except Exception as error:  # the runtime's own, JSON's and ours
        raise _broken(path, "ONNX", error) from error
    images = session.get_inputs()
    if len(images) != 1 or len(images[0].shape) < 4:
        raise CheckpointError(
            f"{path} takes {', '.join(f'{i.name} {i.shape}' for i in images)}; one image batch is accepted. "
            "Give a file that export wrote."
        )
    name, (batch, *_, height, width) = images[0].name, images[0].shape
    half = images[0].type == "tensor(float16)"  # as other tools make it

    def run(x: Tensor) -> Tensor:
        logits = torch.from_numpy(session.run(None, {name: (x.half() if half else x).numpy()})[0])
        return logits.float() if half else logits

    precision = facts.get("precision", "float16" if half else "float32")
    return Export(run, height, width, batch, branches=branches, precision=precision, facts=facts)


def needed(package: str) -> Any:
    """Import a package of the extra ``onnx``; raise a ConfigError if it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"the package {package} is not installed; ONNX files are written and read by it. {install_hint('onnx')}"
        ) from error


def _is_compiled(path: Path) -> bool:
    try:
        return is_compiled(path)
    except Exception as error:  # zip's own and the system's
        raise _broken(path, "torch.export", error) from error


def _open_compiled(path: Path, native_code: bool) -> Export:
    """Open a package that AOTInductor compiled of a program."""
    if not native_code:
        raise CheckpointError(
            f"{path} is a package of AOTInductor: its library would run with your rights as soon as it is opened, and "
            "can't be checked. If you made it or trust its maker, allow that by --native-code."
        )
    try:
        package = torch._inductor.aoti_load_package(str(path))
        side = json.loads(package.get_metadata()["rsconvert.json"])["resolution"]
    except Exception as error:  # torch's own and JSON's
        raise _broken(path, "AOTInductor", error) from error
    return Export(package, side, side)


def _open_program(path: Path) -> Export:
    """Open a program of ``torch.export``; its archive is checked first, and then read without pickle."""
    try:
        with warnings.catch_warnings(action="ignore"), _quiet():  # of torch about itself
            program = torch.export.load(checked_program(path))
            run = program.module(check_guards=False)
        first = program.graph_signature.user_inputs[0]
        image = next(node for node in program.graph.nodes if node.name == first)
        batch, *_, height, width = [size if isinstance(size, int) else str(size) for size in image.meta["val"].shape]
    except Exception as error:  # zip, JSON and torch's own
        raise _broken(path, "torch.export", error) from error
    return Export(run, height, width, batch)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from printing the traceback of an error that it raises anyway."""
    log = logging.getLogger("torch.export")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _open_hub(folder: Path) -> Export:
    """Open a folder of `export_hub`: the plain network at its own size, the switchable one at all others."""
    plain, tensors = (read_tensors(folder / name) for name in ("model.safetensors", PUBLISHED))
    if strange := [key for key in plain.keys() & tensors.keys() if not torch.equal(plain[key], tensors[key])]:
        raise CheckpointError(
            f"{folder} holds two networks: model.safetensors has another {min(strange)} than {PUBLISHED}; the native "
            "one of the switchable file is needed. Export the folder again."
        )
    net = load(folder / PUBLISHED)
    config = (folder / "config.json").is_file()
    stock = _open_folder(folder) if config else _open_state(folder / "model.safetensors", net)
    return Export(lambda x: stock.run(x) if x.shape[-2:] == (net.native, net.native) else net(x))


def _open_folder(folder: Path) -> Export:
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} holds no config.json; a folder of timm is needed. Check the path.")
    weights = folder / "model.safetensors"
    folded = read_header(weights).get("folded")
    model: Any = create_model(f"local-dir:{folder}", pretrained=folded is None).eval()
    if folded is not None:
        prepare_folded(model, json.loads(folded))
        fill(model, load_file(weights), str(weights))
    height, width = model.pretrained_cfg["input_size"][-2:]
    return Export(model, height, width)


def _open_state(path: Path, net: SwitchableModel) -> Export:
    name = net.source.architecture or ""
    if not name.startswith(TORCHVISION):
        raise CheckpointError(
            f"{path} would be a state_dict of torchvision, but the network is {name or 'one without a name'}; an "
            "export of this network is needed. Check the path."
        )
    model = create_model(name, num_classes=net.source.num_classes, model_kwargs=net.source.model_kwargs)
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
            prepare_folded(model, json.loads(read_header(path).get("folded", "{}")))
        else:
            state = torch.load(path, weights_only=True)
    except Exception as error:  # safetensors, pickle and zip errors share no base
        raise _broken(path, "torchvision", error) from error
    fill(model, state, str(path))
    return Export(model.eval(), plain=True)


def _broken(path: str | PathLike[str], kind: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path} can't be opened as a file of {kind} ({first_line(error)}); it is foreign, truncated or damaged. "
        "Give another file, or export it again."
    )

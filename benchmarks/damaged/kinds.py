"""The kinds of files that rsconvert opens: a sound one of each, what opens and runs it, how it is changed."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

import rsconvert
from damaged.changes import Change, in_body, in_bytes, in_facts, in_header, in_json, in_records, in_words
from rsconvert.checkpoint import describe, fill_from_rsnets, inspection_text, load_baseline, read_metadata, read_tensors
from rsconvert.data import MaskReading, read_class_map, read_class_names, read_mask
from rsconvert.evaluation import unsound_values
from rsconvert.export import export_hub, export_onnx, export_program, verify_export
from rsconvert.export.hub import model_card
from rsconvert.recipes import build_config
from rsconvert.settings import FinetuneConfig
from rsconvert.study.comparison.findings import tabulate
from rsconvert.study.comparison.methods import KNOWN
from rsconvert.study.comparison.plan import Plan, PlannedRun
from rsconvert.study.importance import importance
from rsconvert.study.report.charts import Drawing
from rsconvert.study.report.page import _training_charts
from rsconvert.surgery import Measured, SwitchableModel
from rsconvert.text import read_json
from rsconvert.training.run import RunFolder, read_summary
from rsconvert.training.run.state import check_facts

__all__ = ["RESOLUTIONS", "Kind", "make_network", "write_kinds"]

RESOLUTIONS = (48, 32)
Run = Callable[[Path], object]


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    ``run`` opens a file and returns what it computes, if that is to stay; ``changed`` says which documented difference
    explains another result, None if there is none.
    """

    name: str
    path: Path
    run: Run
    changes: Sequence[Change] = (in_bytes,)
    explain: Callable[[bytes, Path], str | None] = lambda sound, path: None


def make_network() -> SwitchableModel:
    """Return a network of 5 classes."""
    torch.manual_seed(0)
    return rsconvert.make_switchable(rsconvert.create_model("test_efficientnet", num_classes=5), RESOLUTIONS).eval()


def _outputs(net: SwitchableModel) -> list[Tensor]:
    """Run every path, and what asks for the path by the size of the input."""
    unsound_values(net)
    found = []
    for side in net.resolutions[:4]:
        image = torch.linspace(-1, 1, 3 * side * side, dtype=net.alpha.dtype).view(1, 3, side, side)
        image = image.to(next(net.parameters()).dtype)
        for output in (net.at(side)(image), net(image)):
            found += [output] if isinstance(output, Tensor) else list(output.values())
    return found


def _loaded(path: Path) -> list[Tensor]:
    return _outputs(rsconvert.load(path))


def _inspected(path: Path) -> None:
    facts = describe(path)
    json.dumps(facts)
    assert all(line.isprintable() for line in inspection_text(facts).split("\n"))


def _explain_network(sound: bytes, path: Path) -> str | None:
    """Return the facts that docs/checkpoint_format.md names as unchecked, by which an accepted file differs."""
    before = path.with_name("sound.safetensors")
    before.write_bytes(sound)
    try:
        first, second = read_tensors(before), read_tensors(path)
        if first.keys() != second.keys() or any(not _same(first[name], second[name]) for name in first):
            return "values"
        own, other = read_metadata(before).fields, read_metadata(path).fields
        changed = {key for key in own.keys() | other.keys() if own.get(key) != other.get(key)}
        # The arithmetic of the model, and which sets there are.
        return next((key for key in ("architecture", "model_kwargs", "resolutions", "output") if key in changed), None)
    finally:
        before.unlink()


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all() | (a != a).any())


def _switchable(folder: Path, name: str, net: SwitchableModel) -> Kind:
    path = folder / f"{name.replace(' ', '-')}.safetensors"
    rsconvert.save(net, path)
    return Kind(name, path, _loaded, (in_facts, in_facts, in_body, in_bytes, in_header), _explain_network)


def _quantized(net: SwitchableModel) -> SwitchableModel:
    other = copy.deepcopy(net)
    rsconvert.quantize_(other, "2/2")
    return other.eval()


def _planned(net: SwitchableModel) -> SwitchableModel:
    """Return a network with ranges for int8 files and a table of costs, whose names are made up."""
    other = copy.deepcopy(net)
    ranges = {str(side): {"image": [-1.0, 1.0], "conv": [0.0, 6.0]} for side in RESOLUTIONS}
    row = {"resolution": 48, "form": "plain", "batch_size": 1, "amp": "off", "multiply_adds": 9, "latency_ms": 1.0}
    cascade = {"stages": [32, 48], "thresholds": [0.5]}
    other.measured = Measured(costs={"here": (row,)}, cascade=cascade, int8={"images": 8, "ranges": ranges})
    return other


def _masked() -> SwitchableModel:
    torch.manual_seed(0)
    arguments = {"encoder_depth": 3, "decoder_channels": (8, 8, 8)}
    model = rsconvert.create_model("smp/unet:tu-test_efficientnet", num_classes=3, model_kwargs=arguments)
    return rsconvert.make_switchable(model, (64, 32)).eval()


def _networks(folder: Path, net: SwitchableModel) -> list[Kind]:
    sound = _switchable(folder, "checkpoint", net)
    kinds = [
        sound,
        replace(sound, name="checkpoint, inspected", run=_inspected),
        _switchable(folder, "quantized checkpoint", _quantized(net)),
        _switchable(folder, "checkpoint with int8 plan", _planned(net)),
    ]
    if find_spec("segmentation_models_pytorch") is not None:
        kinds.append(_switchable(folder, "segmentation checkpoint", _masked()))
    return kinds


class _Tiny(nn.Module):
    """A network with the names of the release's ResNets."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.fc = nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.bn1(self.conv1(x)).relu().mean((2, 3)))


def _release(folder: Path) -> Kind:
    """A checkpoint of RS-Nets: the file is that of the release, the network a small one by the name of ResNet-18."""
    torch.manual_seed(0)
    tiny = rsconvert.make_switchable(_Tiny(), RESOLUTIONS).eval()
    tiny.source = replace(tiny.source, architecture="torchvision/resnet18")
    state: dict[str, Tensor] = {"module.alpha": torch.ones(2), "module.conv1.module.weight": tiny.at(48).conv1.weight}
    for place, side in enumerate(RESOLUTIONS):
        own = {k: v for k, v in tiny.at(side).bn1.state_dict().items() if k != "num_batches_tracked"}
        state |= {f"module.bn1.bn_{place}.{key}": value for key, value in own.items()}
    state |= {f"module.fc.module.{key}": value for key, value in tiny.at(48).fc.state_dict().items()}
    torch.save({"arch": "parallel_resnet18", "state_dict": state, "epoch": 3}, folder / "rsnet.pth")

    def run(path: Path) -> None:
        net = copy.deepcopy(tiny)
        fill_from_rsnets(net, path)
        _outputs(net)

    return Kind("checkpoint of RS-Nets", folder / "rsnet.pth", run, (in_records("data.pkl"), in_bytes))


def _weights(folder: Path, net: SwitchableModel) -> list[Kind]:
    torch.save(net.extract(48).state_dict(), folder / "plain.pth")

    def run(path: Path) -> None:
        load_baseline(str(path), net, None).eval()(torch.zeros(1, 3, 48, 48))

    return [Kind("plain weights", folder / "plain.pth", run, (in_records("data.pkl"), in_bytes)), _release(folder)]


def _hubs(folder: Path, net: SwitchableModel) -> list[Kind]:
    hub = folder / "hub"
    export_hub(net, hub)

    def run(path: Path) -> None:
        model = rsconvert.create_model(f"local-dir:{hub}", pretrained=True).eval()
        model(torch.zeros(1, 3, 48, 48))
        if model.pretrained_cfg["input_size"][-1] == 48:  # else it is an export for another size
            _verified(hub, net)

    def own(path: Path) -> None:
        _verified(hub, net)

    verified = (in_bytes, in_header, in_body)
    return [
        Kind("config.json of a hub folder", hub / "config.json", run, (in_json, in_json, in_bytes)),
        Kind("weights of a hub folder", hub / "model.safetensors", own, verified),
        Kind("network of a hub folder", hub / "rsconvert.safetensors", own, (in_facts, *verified)),
    ]


def _verified(path: Path, net: SwitchableModel) -> Any:
    verify_export(path, net).check(str(path))


def _exports(folder: Path, net: SwitchableModel) -> list[Kind]:
    export_program(net, 48, folder / "net.pt2")
    export_onnx(net, folder / "net.onnx", 48)
    run = partial(_verified, net=net)
    records = in_records("model.json", "weights_config.json")
    return [Kind("program", folder / "net.pt2", run, (records, in_bytes)), Kind("ONNX", folder / "net.onnx", run)]


def _run_folder(folder: Path) -> list[Kind]:
    place = folder / "run"
    run = RunFolder(place)
    facts = {"progress": {"epoch": 0, "saves": 1}, "settings": {"steps_per_epoch": 1}, "scaler": {}}
    run.add_state(1, {"a": torch.zeros(100)}, facts)
    state = next((place / "state").iterdir())
    header = "epoch,loss,lr,score_48,score_32,top1_48,top1_32,images_per_second\n"
    (place / "summary.csv").write_text(f"{header}1,2.5,0.1,0.6,0.4,50.0,40.0,9.5\n2,2.0,0.1,0.7,0.3,60.0,50.0,9.5\n")

    def resumed(path: Path) -> list[Tensor]:
        tensors, held = RunFolder(place, resume=True).newest_state() or ({}, {})
        check_facts(held)
        return [*tensors.values()]

    def summarized(path: Path) -> None:
        rows = json.loads(json.dumps(read_summary(place)), parse_constant=lambda _: None)  # as the page has them
        for chart in _training_charts(rows or []):
            [Drawing(chart).line(curve) for curve in chart.curves]
        importance([place]).table().as_text()

    return [
        Kind("state of a run", state, resumed, (in_bytes, in_header)),
        Kind("summary.csv", place / "summary.csv", summarized, (in_words, in_bytes)),
    ]


def _comparison(folder: Path, net: SwitchableModel) -> list[Kind]:
    place = folder / "comparison" / "rsnet" / "seed-0"
    place.mkdir(parents=True)
    row = {"top1": 50.0, "top5": 90.0, "multiply_adds": 10, "interpolated": False}
    rows = {str(side): row for side in RESOLUTIONS}
    result = {
        "seconds": 1.5,
        "count": 4,
        "images": 4,
        "precision": "off",
        "resolutions": rows,
        "machine": {"name": "x"},
    }
    (place / "result.json").write_text(json.dumps(result))
    (place / "summary.csv").write_text("epoch,score_48,score_32\n1,0.6,0.4\n")
    run = PlannedRun("rsnet/seed-0", KNOWN["rsnet"], 0, RESOLUTIONS, FinetuneConfig(), place)
    none: Any = None
    plan = Plan(net, none, folder / "comparison", (KNOWN["rsnet"],), (0,), RESOLUTIONS, (run,), {"seeds": [0]})
    plan.write_settings()
    from safetensors.torch import save_file

    save_file({str(side): torch.ones(4, dtype=torch.uint8) for side in RESOLUTIONS}, place / "hits.safetensors")

    def tabulated(path: Path) -> None:
        found = tabulate(plan)
        found.table(), found.gain_table(), json.dumps(found.to_dict())

    def settings(path: Path) -> None:
        from rsconvert.study.comparison.plan import _checked_against_folder

        _checked_against_folder(plan.folder, plan.settings)

    return [
        Kind("result.json", place / "result.json", tabulated, (in_json, in_bytes)),
        Kind("hits.safetensors", place / "hits.safetensors", tabulated, (in_header, in_bytes)),
        Kind("comparison.json", plan.folder / "comparison.json", settings, (in_json, in_bytes)),
    ]


def _texts(folder: Path, net: SwitchableModel) -> list[Kind]:
    (folder / "map.txt").write_text("cat 0\ndog 1\n", encoding="utf-8")
    (folder / "map.json").write_text('{"cat": 0, "dog": 1}', encoding="utf-8")
    (folder / "names.txt").write_text("cat\ndog\nhorse\n", encoding="utf-8")
    lines = "epochs = 3\nlr = 0.1\nclass_weights = [1, 2, 3, 4, 5]\nviews = 'all'\nema_decay = 0.9\nseed = 3\n"
    (folder / "run.toml").write_text(lines, encoding="utf-8")
    row = {"top1": 50.0, "top1_interval": [40, 60], "top5": 90.0, "calibration_error": 1.0, "multiply_adds": 10}
    rows = {str(side): {**row, "interpolated": False} for side in RESOLUTIONS}
    (folder / "results.json").write_text(json.dumps({"count": 4, "resolutions": rows}))

    def mapped(path: Path) -> None:
        read_class_map(path, ("cat", "dog"))

    def named(path: Path) -> None:
        read_class_names(str(path))

    def configured(path: Path) -> None:
        build_config(path)

    return [
        Kind("class map, lines", folder / "map.txt", mapped, (in_words, in_bytes)),
        Kind("class map, JSON", folder / "map.json", mapped, (in_json, in_bytes)),
        Kind("class names", folder / "names.txt", named, (in_words, in_bytes)),
        Kind("settings", folder / "run.toml", configured, (in_words, in_bytes)),
        Kind("results for a card", folder / "results.json", lambda path: _card(net, path), (in_json, in_bytes)),
    ]


def _card(net: SwitchableModel, path: Path) -> None:
    try:
        results = read_json(path)
    except (OSError, ValueError) as error:  # as the command reads it
        raise rsconvert.errors.CheckpointError(" ".join(str(error).split())) from error
    model_card(net, results)


def _images(folder: Path, net: SwitchableModel) -> list[Kind]:
    picture, reading = Image.effect_mandelbrot((64, 48), (-2, -1, 1, 1), 50).convert("RGB"), MaskReading(classes=3)
    Image.fromarray((torch.arange(48 * 64).view(48, 64) % 3).byte().numpy()).save(folder / "mask.png")

    def prepared(path: Path) -> None:
        net.preprocess(str(path), 48)

    def masked(path: Path) -> None:
        read_mask(path.read_bytes(), "m", reading)

    kinds = [Kind("mask", folder / "mask.png", masked)]
    for ending in ("jpg", "png", "webp", "gif", "tif", "bmp"):
        picture.save(folder / f"photo.{ending}")
        kinds.append(Kind(f"photo, {ending}", folder / f"photo.{ending}", prepared))
    return kinds


def write_kinds(folder: Path, net: SwitchableModel) -> list[Kind]:
    """Write a sound file of each kind into a folder; return what is to be changed and opened."""
    return [
        *_networks(folder, net),
        *_weights(folder, net),
        *_hubs(folder, net),
        *_exports(folder, net),
        *_run_folder(folder),
        *_comparison(folder, net),
        *_texts(folder, net),
        *_images(folder, net),
    ]

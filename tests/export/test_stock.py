"""Stock timm and torchvision open the exports strictly, and compute what the path computes."""

import copy
import errno
import json
import os
import re
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file
from timm.data import resolve_model_data_config
from torch import Tensor, nn

import rsconvert
from rsconvert.data import Preprocessing
from rsconvert.errors import CheckpointError, ResolutionError, RSConvertError, UnsupportedModelError
from rsconvert.export import Exported, export_timm, export_torchvision, stock, target, verify_export
from rsconvert.surgery import SwitchableModel, batchnorms

ROOT = Path(__file__).parents[2]
RESOLUTIONS = (64, 48, 32)
PREPROCESSING = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), interpolation="bilinear", crop_pct=0.9)
SAME = {"pad_type": "same", "bn_eps": 1e-3}


class Tied(nn.Module):
    """One kernel in two convolutions, as a builder of either library may make it."""

    def __init__(self, num_classes: int = 5, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes, self.num_features = num_classes, 4
        self.stem = nn.Conv2d(in_chans, 4, 3, stride=2)
        self.first = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.second.weight = self.first.weight
        self.bn = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.first(self.stem(x))).relu()
        out: Tensor = self.head(self.second(x).mean((2, 3)))
        return out


def switchable(name: str, num_classes: int | None = None, **model_kwargs: Any) -> SwitchableModel:
    """Return a network whose sets differ, and whose tensors are those of no weights that a library knows."""
    torch.manual_seed(0)
    model = rsconvert.create_model(name, num_classes=num_classes, model_kwargs=model_kwargs)
    net = rsconvert.make_switchable(model, RESOLUTIONS).eval()
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.mul_(1 + 0.1 * torch.rand_like(tensor)).add_(0.02 * torch.rand_like(tensor))
    net.source = replace(net.source, preprocessing=PREPROCESSING)
    return net


def opened(folder: Path) -> nn.Module:
    model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
    return model.eval()


def equal(model: nn.Module, net: SwitchableModel, resolution: int) -> bool:
    x = torch.rand(2, 3, resolution, resolution, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return torch.equal(model(x), net.at(resolution)(x))


def refused(call: Callable[[], Any], error: type[RSConvertError], match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def made() -> SwitchableModel:
    return switchable("test_efficientnet", 5)


@pytest.fixture
def net(made: SwitchableModel) -> SwitchableModel:
    return copy.deepcopy(made)


@pytest.fixture(scope="module")
def vision() -> SwitchableModel:
    return switchable("torchvision/shufflenet_v2_x0_5", 7)


@pytest.fixture
def tied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both libraries know a model named tied."""

    def build(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        model: nn.Module = timm.models.build_model_with_cfg(Tied, "tied", pretrained, pretrained_strict=True, **kwargs)
        return model

    monkeypatch.setitem(timm.models._registry._model_entrypoints, "tied", build)
    monkeypatch.setitem(timm.models._registry._model_pretrained_cfgs, "tied", timm.models.PretrainedCfg())
    monkeypatch.setitem(torchvision.models._api.BUILTIN_MODELS, "tied", lambda weights=None, **kwargs: Tied(**kwargs))


@pytest.mark.parametrize("resolution", [64, 32, 40, 80])
def test_timm_opens_a_trained_or_interpolated_path(net: SwitchableModel, tmp_path: Path, resolution: int) -> None:
    assert export_timm(net, resolution, tmp_path / "out") == Exported({tmp_path / "out": resolution})
    model = opened(tmp_path / "out")
    assert equal(model, net, resolution)
    config = resolve_model_data_config(model)
    assert tuple(config["input_size"]) == (3, resolution, resolution)
    assert tuple(config["mean"]) == PREPROCESSING.mean
    assert tuple(config["std"]) == PREPROCESSING.std
    assert config["interpolation"] == PREPROCESSING.interpolation
    assert config["crop_pct"] == PREPROCESSING.crop_pct
    assert config["crop_mode"] == "center"
    assert resolve_model_data_config(model, use_test_size=True) == config
    assert model.num_classes == 5


def test_the_folder_holds_two_ordinary_files(net: SwitchableModel, tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        export_timm(net, 48, tmp_path / "out")
    finally:
        os.umask(umask)
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in (tmp_path / "out").iterdir()}
    assert modes == {"config.json": 0o644, "model.safetensors": 0o644}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o755
    assert load_file(tmp_path / "out" / "model.safetensors").keys() == net.at(48).state_dict().keys()
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_the_builders_arguments_travel(tmp_path: Path) -> None:
    net = switchable("mobilenetv2_035", 10, **SAME)
    export_timm(net, 48, tmp_path / "out")
    assert equal(opened(tmp_path / "out"), net, 48)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architecture"] == "mobilenetv2_035"
    assert config["num_classes"] == 10
    assert config["model_args"].items() >= SAME.items()
    guessed = timm.create_model("mobilenetv2_035", num_classes=10).eval()
    guessed.load_state_dict(net.extract(48).state_dict())
    assert not equal(guessed, net, 48)


def test_a_network_with_position_tables_is_opened_at_each_resolution(tmp_path: Path) -> None:
    net = rsconvert.make_switchable(rsconvert.create_model("levit_128s", num_classes=3), (96, 64)).eval()
    for resolution in (96, 80, 64):  # one of them untrained
        folder = Path(rsconvert.export_timm(net, resolution, tmp_path / str(resolution)))
        stock = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        x = torch.rand(2, 3, resolution, resolution)
        assert torch.equal(stock(x), net(x))
        assert stock.pretrained_cfg["input_size"] == (3, resolution, resolution)


def test_a_name_with_a_tag_says_nothing_of_its_weights(tmp_path: Path) -> None:
    net = switchable("resnet10t.c3_in1k")
    export_timm(net, 64, tmp_path / "out")
    model = opened(tmp_path / "out")
    assert equal(model, net, 64)
    assert tuple(resolve_model_data_config(model, use_test_size=True)["input_size"]) == (3, 64, 64)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architecture"] == "resnet10t"
    assert not {"tag", "url", "hf_hub_id", "test_input_size", "test_crop_pct"} & config["pretrained_cfg"].keys()


def test_the_classes_have_their_names(net: SwitchableModel, tmp_path: Path) -> None:
    net.source = replace(net.source, class_names=("tench", "dog", "horn", "church", "ünder"))
    export_timm(net, 32, tmp_path / "out")
    assert list(opened(tmp_path / "out").pretrained_cfg["label_names"]) == list(net.source.class_names or ())
    assert json.loads((tmp_path / "out" / "config.json").read_text())["label_names"][0] == "tench"


@pytest.mark.parametrize(
    ("resolution", "expected"), [(64, 0.7), (48, 0.8), (32, 0.9), (44, 0.825), (16, 0.9), (99, 0.7)]
)
def test_crop_pct_is_that_of_the_resolution(
    net: SwitchableModel, tmp_path: Path, resolution: int, expected: float
) -> None:
    net.source = replace(net.source, preprocessing=replace(PREPROCESSING, crop_pct=(0.7, 0.8, 0.9)))
    export_timm(net, resolution, tmp_path / "out")
    assert resolve_model_data_config(opened(tmp_path / "out"))["crop_pct"] == pytest.approx(expected, abs=1e-12)


def test_timm_trains_the_export_further_for_other_classes(net: SwitchableModel, tmp_path: Path) -> None:
    export_timm(net, 48, tmp_path / "out")
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True, num_classes=3)
    assert torch.equal(model.conv_stem.weight, net.at(48).conv_stem.weight)
    assert model(torch.rand(2, 3, 48, 48)).shape == (2, 3)


def test_rsconvert_takes_the_export_again(net: SwitchableModel, tmp_path: Path) -> None:
    export_timm(net, 48, tmp_path / "out")
    weights = tmp_path / "out" / "model.safetensors"
    again = rsconvert.create_model("test_efficientnet", num_classes=5, weights=weights).eval()
    assert equal(again, net, 48)


def test_the_network_stays_as_it_was(net: SwitchableModel, vision: SwitchableModel, tmp_path: Path) -> None:
    for given, export, name in ((net, export_timm, "out"), (vision, export_torchvision, "out.pth")):
        given.train()
        before = {key: tensor.clone() for key, tensor in given.state_dict().items()}
        export(given, 48, tmp_path / name)
        assert all(torch.equal(tensor, before[key]) for key, tensor in given.state_dict().items())
        assert all(module.training for module in given.modules())
        given.eval()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("resolution", [48, 40])
def test_torchvision_loads_the_file_strictly(
    vision: SwitchableModel, tmp_path: Path, suffix: str, resolution: int
) -> None:
    path = Path(export_torchvision(vision, resolution, tmp_path / f"out{suffix}"))
    assert path == tmp_path / f"out{suffix}"
    state = load_file(path) if suffix == ".safetensors" else torch.load(path, weights_only=True)
    model = torchvision.models.shufflenet_v2_x0_5(num_classes=7).eval()
    model.load_state_dict(state, strict=True)
    assert equal(model, vision, resolution)
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_channels_last_network_is_exported(net: SwitchableModel, vision: SwitchableModel, tmp_path: Path) -> None:
    plain = copy.deepcopy(vision)
    export_timm(copy.deepcopy(net).to(memory_format=torch.channels_last), 48, tmp_path / "out")
    assert equal(opened(tmp_path / "out"), net, 48)
    path = Path(export_torchvision(plain.to(memory_format=torch.channels_last), 48, tmp_path / "out.pth"))
    assert all(tensor.is_contiguous() for tensor in torch.load(path, weights_only=True).values())


def test_a_half_precision_network_is_exported(net: SwitchableModel, tmp_path: Path) -> None:
    half = net.to(torch.bfloat16)
    export_timm(half, 48, tmp_path / "out")
    held = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in held.values()} == {torch.bfloat16, torch.int64}
    x = torch.rand(2, 3, 48, 48, dtype=torch.bfloat16)
    assert torch.equal(opened(tmp_path / "out").to(torch.bfloat16)(x), half.at(48)(x))


@pytest.mark.usefixtures("tied")
def test_tied_tensors_survive_in_timm(tmp_path: Path) -> None:
    net = switchable("tied", 6)
    export_timm(net, 40, tmp_path / "out")
    held = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(held["second.weight"], held["first.weight"])
    model = opened(tmp_path / "out")
    assert model.second.weight is model.first.weight
    assert equal(model, net, 40)


@pytest.mark.usefixtures("tied")
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_tied_tensors_survive_in_torchvision(tmp_path: Path, suffix: str) -> None:
    net = switchable("torchvision/tied", 6)
    path = Path(export_torchvision(net, 40, tmp_path / f"out{suffix}"))
    model = Tied(6).eval()
    model.load_state_dict(load_file(path) if suffix == ".safetensors" else torch.load(path), strict=True)
    assert model.second.weight is model.first.weight
    assert equal(model, net, 40)


def test_a_network_made_elsewhere_is_exported_under_the_name_it_was_given(tmp_path: Path) -> None:
    model = timm.create_model("mobilenetv2_035", num_classes=1000, **SAME)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02)
    net = rsconvert.make_switchable(model, (48, 32), name="mobilenetv2_035", model_kwargs=SAME).eval()
    export_timm(net, 32, tmp_path / "out")
    assert equal(opened(tmp_path / "out"), net, 32)
    wrong = rsconvert.make_switchable(model, (48, 32), name="mobilenetv2_035").eval()
    refused(lambda: export_timm(wrong, 32, tmp_path / "wrong"), UnsupportedModelError, "computes something else")
    other = rsconvert.make_switchable(model, (48, 32), name="mobilenetv2_050").eval()
    refused(lambda: export_timm(other, 32, tmp_path / "wrong"), UnsupportedModelError, "builds another network")
    assert not (tmp_path / "wrong").exists()


def test_the_other_library_is_refused(net: SwitchableModel, vision: SwitchableModel, tmp_path: Path) -> None:
    refused(
        lambda: export_torchvision(net, 48, tmp_path / "x.pth"), UnsupportedModelError, "timm's test_efficientnet.*timm"
    )
    refused(lambda: export_timm(vision, 48, tmp_path / "x"), UnsupportedModelError, "torchvision's torchvision/shuffle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [None, "model.py:build", "hf-hub:a/b", "local-dir:x"])
def test_a_network_without_such_a_name_is_refused(net: SwitchableModel, tmp_path: Path, name: str | None) -> None:
    net.source = replace(net.source, architecture=name)
    for export in (export_timm, export_torchvision):
        refused(lambda e=export: e(net, 48, tmp_path / "x.pth"), UnsupportedModelError, name or "without a name")


def test_a_network_of_features_is_refused(tmp_path: Path) -> None:
    net = switchable("test_efficientnet", features_only=True)
    assert net.source.num_classes is None
    refused(lambda: export_timm(net, 48, tmp_path / "out"), UnsupportedModelError, "gives features, which no folder")
    assert list(tmp_path.iterdir()) == []


def test_hostile_arguments_are_not_written(net: SwitchableModel, tmp_path: Path) -> None:
    net.source = replace(net.source, model_kwargs={"checkpoint_path": "trap.safetensors"})
    refused(lambda: export_timm(net, 48, tmp_path / "out"), RSConvertError, "checkpoint_path")
    assert list(tmp_path.iterdir()) == []


def test_arguments_that_json_can_not_tell_are_refused(tmp_path: Path) -> None:
    net = switchable("test_efficientnet", 5, act_layer=nn.ReLU)
    refused(lambda: export_timm(net, 48, tmp_path / "out"), CheckpointError, "act_layer.*plain|plain.*values")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("resolution", [0, -1, 1.5])
def test_a_malformed_resolution_is_refused(net: SwitchableModel, tmp_path: Path, resolution: int) -> None:
    refused(lambda: export_timm(net, resolution, tmp_path / "out"), ResolutionError, str(resolution))


def test_a_target_that_exists_is_kept_without_force(
    net: SwitchableModel, vision: SwitchableModel, tmp_path: Path
) -> None:
    export_timm(net, 48, tmp_path / "out")
    export_torchvision(vision, 48, tmp_path / "out.pth")
    before = (tmp_path / "out.pth").read_bytes()
    refused(lambda: export_timm(net, 32, tmp_path / "out"), CheckpointError, "out exists.*--force")
    refused(lambda: export_torchvision(vision, 32, tmp_path / "out.pth"), CheckpointError, "out.pth exists.*--force")
    assert equal(opened(tmp_path / "out"), net, 48)
    assert (tmp_path / "out.pth").read_bytes() == before


def test_force_replaces_an_export(net: SwitchableModel, vision: SwitchableModel, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")
    for resolution in (48, 32):
        export_timm(net, resolution, tmp_path / "link", force=True)
        export_torchvision(vision, resolution, tmp_path / "out.pth", force=True)
    assert equal(opened(tmp_path / "out"), net, 32)
    assert (tmp_path / "link").is_symlink()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link", "out", "out.pth"]


def test_force_replaces_nothing_but_an_export(net: SwitchableModel, tmp_path: Path) -> None:
    export_timm(net, 48, tmp_path / "out")
    (tmp_path / "out" / "thesis.txt").write_text("the only copy")
    refused(lambda: export_timm(net, 32, tmp_path / "out", force=True), CheckpointError, "thesis.txt")
    refused(lambda: export_timm(net, 32, tmp_path / "out/thesis.txt", force=True), CheckpointError, "is a file")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "the only copy"
    assert equal(opened(tmp_path / "out"), net, 48)


def test_a_missing_folder_or_another_suffix_is_refused(
    net: SwitchableModel, vision: SwitchableModel, tmp_path: Path
) -> None:
    refused(lambda: export_timm(net, 48, tmp_path / "none" / "out"), CheckpointError, "none is no folder")
    refused(lambda: export_torchvision(vision, 48, tmp_path / "none" / "x.pt"), CheckpointError, "none is no folder")
    for name in ("x", "x.onnx", "x.bin"):
        refused(lambda n=name: export_torchvision(vision, 48, tmp_path / n), CheckpointError, r"suffix.*\.safetensors")
    refused(lambda: export_torchvision(vision, 48, tmp_path, force=True), CheckpointError, "suffix")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_exports(
    net: SwitchableModel,
    vision: SwitchableModel,
    tmp_path: Path,
    full_disk: Callable[[], AbstractContextManager[None]],
) -> None:
    export_timm(net, 48, tmp_path / "out")
    paths = [Path(export_torchvision(vision, 48, tmp_path / name)) for name in ("out.pth", "out.safetensors")]
    before = [path.read_bytes() for path in paths]
    with full_disk():
        refused(lambda: export_timm(net, 32, tmp_path / "out", force=True), CheckpointError, "room")
        for path in paths:
            refused(lambda p=path: export_torchvision(vision, 32, p, force=True), CheckpointError, "room")
    assert equal(opened(tmp_path / "out"), net, 48)
    assert [path.read_bytes() for path in paths] == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out", "out.pth", "out.safetensors"]


@pytest.mark.parametrize("step", ["write_tensors", "save_config_for_hf", "sync", "os.replace", "second os.replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_interruption_leaves_the_old_folder(
    net: SwitchableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    export_timm(net, 48, tmp_path / "out")
    rename = os.replace
    # A rename fails when it moves the old folder away, or when it puts the new one in its place.
    failing = {"os.replace": "/out", "second os.replace": f"-{os.getpid()}.part"}.get(step, "")

    def fail(*arguments: Any) -> None:
        if str(arguments[0]).endswith(failing):
            raise error
        rename(*arguments)

    module = target if "replace" in step else stock
    if "replace" in step:  # where the system can't exchange two folders at once
        monkeypatch.setattr(target, "_exchange", lambda *_: False)
    monkeypatch.setattr(f"{module.__name__}.{step.removeprefix('second ')}", fail)
    with pytest.raises(CheckpointError if isinstance(error, OSError) else KeyboardInterrupt):
        export_timm(net, 32, tmp_path / "out", force=True)
    monkeypatch.undo()
    assert equal(opened(tmp_path / "out"), net, 48)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


RECIPE = re.search(r"```python\n(# A folded export.*?)```", (ROOT / "docs" / "exports.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
@torch.no_grad()
def test_a_folded_export_is_loaded_by_the_lines_of_the_documents(
    net: SwitchableModel, vision: SwitchableModel, tmp_path: Path, library: str
) -> None:
    own = net if library == "timm" else vision
    if library == "timm":
        file = Path(export_timm(own, 48, tmp_path / "out", fold=True), "model.safetensors")
        stock = timm.create_model(f"local-dir:{tmp_path / 'out'}").eval()
    else:
        file = Path(export_torchvision(own, 48, tmp_path / "out.safetensors", fold=True))
        stock = torchvision.models.shufflenet_v2_x0_5(num_classes=7).eval()
    assert RECIPE is not None
    names = {"model": stock, "path": str(file)}
    exec(RECIPE[1], names)
    assert not batchnorms(stock)
    x = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    expected = own.at(48)(x)
    assert 0 < (stock(x) - expected).abs().max() < 1e-4 * expected.abs().max()
    verify_export(tmp_path / "out" if library == "timm" else file, own, [48]).check(file)


def test_stock_refuses_a_folded_export(net: SwitchableModel, vision: SwitchableModel, tmp_path: Path) -> None:
    export_timm(net, 48, tmp_path / "out", fold=True)
    with pytest.raises(RuntimeError, match="Missing key"):
        opened(tmp_path / "out")
    path = Path(export_torchvision(vision, 48, tmp_path / "out.safetensors", fold=True))
    with pytest.raises(RuntimeError, match="Missing key"):
        torchvision.models.shufflenet_v2_x0_5(num_classes=7).load_state_dict(load_file(path))
    refused(lambda: export_torchvision(vision, 48, tmp_path / "out.pth", fold=True), CheckpointError, "safetensors is")

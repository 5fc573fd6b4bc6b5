"""Names to plain models: what they give, what they remember, and their errors."""

import json
import pickle
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from rsconvert.errors import CheckpointError, ConfigError, UnsupportedModelError
from rsconvert.models import create_model, is_file_name, source_of
from rsconvert.surgery import make_switchable

FILE = """
from __future__ import annotations
from dataclasses import dataclass
from torch import nn

@dataclass
class Config:
    width: int = 4

def build(num_classes=3, width=4):
    config = Config(width)
    return nn.Sequential(nn.Conv2d(3, config.width, 3), nn.BatchNorm2d(config.width), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(config.width, num_classes))

def fixed():
    return build(num_classes=6)

def words():
    return "a model"

def build_boxes(num_classes=3):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5 * num_classes, 1))

def neighbour():
    from its_neighbour import WIDTH
    return build(width=WIDTH)

def leaves():
    raise SystemExit("usage")

def fails():
    raise KeyError("no weights\\nhere")

constant = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(FILE)
    return str(tmp_path / "mine.py")


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def rebuilt(model: torch.nn.Module) -> torch.nn.Module:
    source, kwargs = source_of(model), dict(source_of(model).model_kwargs)
    classes = kwargs.pop("num_classes", None) if is_file_name(source.architecture) else source.num_classes
    return create_model(source.architecture, num_classes=classes, model_kwargs=kwargs)


def test_a_timm_name() -> None:
    model = create_model("test_resnet.r160_in1k", num_classes=6, model_kwargs={"in_chans": 1})
    source = source_of(model)
    assert (source.architecture, source.num_classes) == ("test_resnet.r160_in1k", 6)
    assert (source.model_kwargs, source.weights, source.new_classifier) == ({"in_chans": 1}, None, ())
    assert (source.preprocessing.interpolation, source.preprocessing.crop_pct) == ("bilinear", 0.875)
    assert model.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)
    assert (source.preprocessing.mean, source.preprocessing.std) == ((0.5,), (0.5,))
    assert rebuilt(model).state_dict().keys() == model.state_dict().keys()


def test_no_weights_leave_the_classifier_as_the_architecture_draws_it() -> None:
    assert create_model("resnet10t", num_classes=3).get_classifier().weight.any()


def test_a_function_in_a_file(file: str) -> None:
    model = create_model(f"{file}:build", num_classes=5, model_kwargs={"width": 8})
    source = source_of(model)
    assert (source.architecture, source.num_classes) == (f"{file}:build", 5)
    assert source.model_kwargs == {"width": 8, "num_classes": 5}
    assert rebuilt(model)[4].weight.shape == (5, 8)
    net = make_switchable(model, (64, 32))
    assert pickle.loads(pickle.dumps(net)).resolutions == (64, 32)


@pytest.mark.parametrize(("name", "outputs"), [("fixed", 6), ("build", 3)])
def test_classes_that_were_not_given_are_not_recorded_as_given(name: str, outputs: int, file: str) -> None:
    model = create_model(f"{file}:{name}")
    assert (source_of(model).num_classes, source_of(model).model_kwargs) == (outputs, {})
    assert rebuilt(model)[4].weight.shape == (outputs, 4)
    assert source_of(create_model(f"{file}:{name}", num_classes=outputs)).num_classes == outputs


def test_a_function_without_logits_gets_its_classes(file: str) -> None:
    model = create_model(f"{file}:build_boxes", num_classes=2)
    assert (source_of(model).num_classes, source_of(model).model_kwargs) == (2, {"num_classes": 2})
    assert rebuilt(model)[2].weight.shape == (10, 4, 1, 1)
    assert source_of(create_model(f"{file}:build_boxes")).num_classes is None


def test_a_file_imports_its_neighbours(file: str) -> None:
    (Path(file).parent / "its_neighbour.py").write_text("WIDTH = 6")
    before = list(sys.path)
    assert create_model(f"{file}:neighbour")[1].weight.shape == (6,)
    with pytest.raises(UnsupportedModelError):
        create_model(f"{file}:fails")
    assert sys.path == before


@pytest.mark.parametrize("classes", [-1, 2.0, "3", True])
@pytest.mark.parametrize("name", ["resnet10t", "torchvision/resnet18"])
def test_a_malformed_number_of_classes_is_refused(name: str, classes) -> None:
    with pytest.raises(ConfigError, match=r"^num_classes is .*; a whole number of at least 0 is accepted\.$"):
        create_model(name, num_classes=classes)


def test_a_network_of_features_has_no_classes() -> None:
    model = create_model("resnet10t", model_kwargs={"features_only": True})
    assert (source_of(model).num_classes, source_of(model).new_classifier) == (None, ())
    assert source_of(create_model("resnet10t", num_classes=0)).num_classes == 0


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "build",
            {"model_kwargs": {"depth": 3}},
            "can't be built: TypeError: build() got an unexpected keyword argument",
        ),
        ("fixed", {"num_classes": 5}, "has 6 outputs and num_classes is 5; the same number is needed."),
        ("words", {}, "returned str; an nn.Module is needed."),
        ("fails", {}, "can't be built: KeyError: 'no weights\\nhere'"),
        ("leaves", {}, "can't be built: SystemExit: usage"),
        ("missing", {}, "has no function missing; one that returns the model is needed."),
        ("constant", {}, "has no function constant"),
    ],
)
def test_a_function_that_fails(name: str, arguments, message: str, file: str) -> None:
    with pytest.raises(UnsupportedModelError) as error:
        create_model(f"{file}:{name}", **arguments)
    assert message in one_line(error)
    assert file in str(error.value)


def test_a_missing_or_broken_file(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"none\.py is not a file; a Python file with the model's function"):
        create_model(f"{tmp_path}/none.py:build")
    (tmp_path / "broken.py").write_text("import no_such_package\n")
    with pytest.raises(UnsupportedModelError, match=r"broken.py:build can't be built: ModuleNotFoundError: .*no_such"):
        create_model(f"{tmp_path}/broken.py:build")
    (tmp_path / "script.py").write_text("raise SystemExit(1)\n")
    with pytest.raises(UnsupportedModelError, match=r"script.py:build can't be built: SystemExit: 1; "):
        create_model(f"{tmp_path}/script.py:build")


def test_file_names() -> None:
    assert is_file_name("here/my_model.py:build")
    assert not any(map(is_file_name, ("resnet50", "hf-hub:timm/resnet18", "torchvision/resnet50", "model.py")))


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet5O", "resnet50"),
        ("resnet50.a1_in2k", "resnet50.a1_in1k"),
        ("torchvision/resnet5", "torchvision/resnet50"),
        ("mobilnetv3_small_050", "mobilenetv3_small_050"),
        ("zzzzzzzz", "See timm.list_models()"),
        ("gopher:resnet50", "accepted"),
        ("", "accepted"),
    ],
)
@pytest.mark.parametrize("pretrained", [False, True])
def test_an_unknown_model_gets_similar_names(name: str, near: str, pretrained: bool) -> None:
    with pytest.raises(
        UnsupportedModelError,
        match=r"is unknown; a timm name, torchvision/NAME, smp/DECODER:ENCODER or file\.py:function",
    ) as error:
        create_model(name, pretrained=pretrained)
    assert near in one_line(error)


@pytest.mark.parametrize("name", ["resnet10t", "torchvision/resnet18"])
def test_an_argument_that_the_builder_lacks(name: str) -> None:
    with pytest.raises(
        UnsupportedModelError, match=f"{name} can't be built: TypeError: .*Check the name and model_kwargs"
    ):
        create_model(name, model_kwargs={"no_such_argument": 1})


@pytest.mark.parametrize("key", ["num_classes", "pretrained", "checkpoint_path", "pretrained_cfg", "weights"])
def test_reserved_arguments_are_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=f"model_kwargs has {key}; arguments of the architecture alone"):
        create_model("resnet10t", model_kwargs={key: 3})


def test_two_origins_of_weights_are_refused(file: str) -> None:
    with pytest.raises(ConfigError, match=r"weights is w\.pth and pretrained is set; one of them"):
        create_model("resnet10t", pretrained=True, weights="w.pth")
    with pytest.raises(ConfigError, match="has no pretrained weights to download"):
        create_model(f"{file}:build", pretrained=True)


def test_weights_from_a_file_start_a_new_classifier_at_zero(tmp_path: Path) -> None:
    state = create_model("resnet10t").state_dict()
    save_file(state, tmp_path / "w.safetensors")
    model = create_model("resnet10t", weights=tmp_path / "w.safetensors", num_classes=3)
    assert source_of(model).new_classifier == ("fc.weight", "fc.bias")
    assert source_of(model).weights == str(tmp_path / "w.safetensors")
    assert not model.fc.weight.any()
    assert torch.equal(model.conv1[0].weight, state["conv1.0.weight"])


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("resnet10t.c3_in1k", "timm.create_model"),
        ("torchvision/resnet18", "torchvision.models._api.load_state_dict_from_url"),
        ("hf-hub:timm/resnet10t.c3_in1k", "rsconvert.models.create.load_model_config_from_hf"),
    ],
)
def test_without_a_network_pretrained_says_so(name: str, place: str, monkeypatch) -> None:
    def offline(*args, **kwargs):
        raise ConnectionError("no route to host\nreally")

    monkeypatch.setattr(place, offline)
    with pytest.raises(CheckpointError, match=r"are unavailable: ConnectionError: no route to host; .*--no-pretrained"):
        create_model(name, pretrained=True)


@pytest.fixture
def folder(tmp_path: Path):
    """A network of timm with arguments of its own, as timm saves it."""
    model = timm.create_model("test_resnet", num_classes=6, drop_path_rate=0.1, global_pool="max")
    timm.models.save_for_hf(model, tmp_path / "hub", model_args={"drop_path_rate": 0.1, "num_classes": 6})
    return model.eval(), f"local-dir:{tmp_path / 'hub'}"


def test_a_local_folder_is_rebuilt_by_its_bare_name(folder) -> None:
    saved, name = folder
    model = create_model(name, pretrained=True).eval()
    source = source_of(model)
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(model(x), saved(x))
    assert source.architecture == "test_resnet"
    assert source.num_classes == 6
    assert source.new_classifier == ()
    assert source.model_kwargs.items() >= {"drop_path_rate": 0.1, "global_pool": "max"}.items()
    assert "num_classes" not in source.model_kwargs
    again = rebuilt(model).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(x), saved(x))


def test_a_local_folder_with_other_classes_starts_a_new_classifier(folder) -> None:
    saved, name = folder
    model = create_model(name, pretrained=True, num_classes=4)
    assert source_of(model).new_classifier == ("fc.weight", "fc.bias")
    assert not model.fc.weight.any()
    assert torch.equal(model.layer1[0].conv1.weight, saved.layer1[0].conv1.weight)
    same = create_model(name, pretrained=True, num_classes=6)
    assert torch.equal(same.fc.weight, saved.fc.weight)


@pytest.mark.parametrize(("told", "kept"), [("cc-by-nc-4.0", "cc-by-nc-4.0"), ("unknown", None), (None, None)])
def test_the_licence_of_downloaded_weights_is_kept(folder, tmp_path: Path, told: str | None, kept: str | None) -> None:
    _, name = folder
    file = tmp_path / "hub" / "config.json"
    config = json.loads(file.read_text())
    config["pretrained_cfg"]["license"] = told
    file.write_text(json.dumps(config))
    assert source_of(create_model(name, pretrained=True)).licence == kept
    assert source_of(create_model(name)).licence is None


def test_a_local_folder_without_its_weights_is_the_architecture_alone(folder) -> None:
    saved, name = folder
    model = create_model(name)
    assert source_of(model).weights is None
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in saved.state_dict().items()}


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"local-dir:.* can't be opened \(.*config.json"):
        create_model(f"local-dir:{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet5O"}))
    with pytest.raises(UnsupportedModelError, match="resnet5O is unknown"):
        create_model(f"local-dir:{tmp_path}")
    for wrong in ("{", "[]", "1", "[" * 100_000, '{"architecture": ["resnet18"]}', '{"architecture": {}}'):
        (tmp_path / "config.json").write_text(wrong)
        with pytest.raises(UnsupportedModelError, match=r"can't be opened|of other types") as caught:
            create_model(f"local-dir:{tmp_path}")
        assert "\n" not in str(caught.value)


def test_the_arguments_of_a_folder_load_nothing_from_elsewhere(folder, tmp_path: Path) -> None:
    _, name = folder
    config = tmp_path / "hub" / "config.json"
    held = json.loads(config.read_text(encoding="utf-8"))
    held["model_args"]["pretrained_cfg_overlay"] = {"source": "", "file": str(tmp_path / "other.bin")}
    config.write_text(json.dumps(held), encoding="utf-8")
    for pretrained in (True, False):
        with pytest.raises(UnsupportedModelError, match="the argument pretrained_cfg_overlay"):
            create_model(name, pretrained=pretrained)

"""Names of segmentation_models_pytorch: what they build, whose weights they load, and their errors."""

import json

import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import save_file

import rsconvert
from rsconvert.data import Preprocessing
from rsconvert.errors import CheckpointError, ConfigError, ResolutionError, UnsupportedModelError
from rsconvert.models import create_model, smp_models, source_of
from rsconvert.surgery import make_switchable, to_graph

DOWNLOAD = "segmentation_models_pytorch.encoders.hf_hub_download"


def test_a_decoder_on_an_encoder_of_the_package(image) -> None:
    model = create_model("smp/unet:resnet18", num_classes=4, model_kwargs={"decoder_channels": (32, 16, 16, 8, 8)})
    source = source_of(model)
    assert type(model) is smp.Unet
    assert (source.architecture, source.num_classes, source.weights) == ("smp/unet:resnet18", 4, None)
    assert source.preprocessing == Preprocessing()
    assert model.eval()(image(32)).shape == (2, 4, 32, 32)
    assert source_of(create_model("smp/linknet:resnet18")).num_classes == 1  # the package's own default


def test_an_encoder_of_timm_becomes_a_switchable_network_and_a_file(image, tmp_path) -> None:
    name = "smp/deeplabv3plus:tu-mobilenetv3_small_050"
    kwargs = {"decoder_channels": 16, "decoder_atrous_rates": (1, 2, 3)}
    model = create_model(name, num_classes=3, model_kwargs=kwargs)
    assert source_of(model).preprocessing == Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    net = make_switchable(model, (64, 32)).eval()
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.01 * torch.rand_like(tensor))
    assert net.report.exact == {64: True, 32: True}
    assert {record.found for record in net.report.batchnorms} == {"graph"}
    with torch.no_grad():
        torch.testing.assert_close(to_graph(net)(image(32)), net(image(32)))
    rsconvert.save(net, tmp_path / "net.safetensors")
    again = rsconvert.load(tmp_path / "net.safetensors")
    assert again.source.architecture == name
    for resolution in (64, 32):
        assert torch.equal(again(image(resolution)), net.at(resolution)(image(resolution)))


def test_sizes_that_do_not_fit_the_stride_are_refused_with_the_reason() -> None:
    with pytest.raises(ResolutionError, match=r"48: .*Expected image height and width divisible by 32"):
        make_switchable(create_model("smp/linknet:tu-mobilenetv3_small_050"), (64, 48))


def test_a_model_made_by_the_package_itself_is_recognised() -> None:
    model = smp.FPN("tu-mobilenetv3_small_050", encoder_weights=None, classes=5, decoder_pyramid_channels=32)
    net = make_switchable(model, (64, 32))
    source = net.source
    assert (source.architecture, source.num_classes) == ("smp/fpn:tu-mobilenetv3_small_050", 5)
    assert source.model_kwargs == {"decoder_pyramid_channels": 32}
    rebuilt = create_model("smp/fpn:tu-mobilenetv3_small_050", num_classes=5, model_kwargs=source.model_kwargs)
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


def test_the_encoders_weights_of_the_package(monkeypatch, tmp_path) -> None:
    donor = smp.encoders.get_encoder("resnet18")
    save_file(donor.state_dict(), tmp_path / "model.safetensors")
    facts = {"mean": [127.5, 127.5, 51.0], "std": [51.0, 25.5, 255.0], "input_space": "RGB", "input_range": [0, 255]}
    (tmp_path / "config.json").write_text(json.dumps(facts))
    asked = []

    def download(repo_id: str, filename: str, revision: str) -> str:
        asked.append(repo_id)
        return str(tmp_path / filename)

    monkeypatch.setattr(DOWNLOAD, download)
    model = create_model("smp/unet:resnet18", pretrained=True, num_classes=2)
    source, state = source_of(model), model.state_dict()
    assert {*asked} == {"smp-hub/resnet18.imagenet"}
    assert all(torch.equal(state[f"encoder.{key}"], value) for key, value in donor.state_dict().items())
    assert source.weights == "pretrained encoder resnet18 (imagenet)"
    assert source.new_classifier == ("segmentation_head.0.weight", "segmentation_head.0.bias")
    assert not state["segmentation_head.0.weight"].any()
    assert state["decoder.blocks.0.conv1.0.weight"].any()
    assert source.preprocessing == Preprocessing(mean=(0.5, 0.5, 0.2), std=(0.2, 0.1, 1.0))
    facts["input_space"] = "BGR"
    (tmp_path / "config.json").write_text(json.dumps(facts))
    with pytest.raises(UnsupportedModelError, match="takes colours as BGR; RGB is accepted"):
        create_model("smp/unet:resnet18", pretrained=True)


def test_the_encoders_weights_of_timm(monkeypatch) -> None:
    def fill(model: torch.nn.Module, **_: object) -> None:
        torch.nn.init.constant_(model.conv_stem.weight, 0.5)

    monkeypatch.setattr("timm.models._builder.load_pretrained", fill)
    model = create_model("smp/unet:tu-tf_mobilenetv3_small_minimal_100.in1k", pretrained=True, num_classes=2)
    assert torch.equal(model.encoder.model.conv_stem.weight, torch.full((16, 3, 3, 3), 0.5))
    source = source_of(model)
    assert source.weights == "pretrained encoder tu-tf_mobilenetv3_small_minimal_100.in1k"
    assert source.preprocessing == Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def test_without_a_network_the_encoders_weights_are_unavailable(monkeypatch) -> None:
    def offline(*args: object, **kwargs: object) -> str:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(DOWNLOAD, offline)
    with pytest.raises(CheckpointError, match=r"smp/unet:resnet18 are unavailable: ConnectionError: .*--no-pretrained"):
        create_model("smp/unet:resnet18", pretrained=True)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "smp/unet",
            r"smp/unet is unknown; smp/DECODER:ENCODER is accepted, such as .*unetplusplus",
        ),
        ("smp/une:resnet18", "smp/une:resnet18 is unknown; .*decoders unet, "),
        ("smp/unet:resnet17", "encoder resnet17 of smp/unet:resnet17 is unknown; .*Did you mean .*resnet18"),
        ("smp/unet:resnet10t", r"Did you mean tu-resnet10t"),
        ("smp/unet:tu-resnet10", r"Did you mean .*tu-resnet10t"),
        ("smp/unet:tu-resnet10t.a1", r"tu-NAME with a name of timm, is accepted"),
        ("smp/unet:zzzzzzzz", "See segmentation_models_pytorch.encoders.get_encoder_names"),
        ("smp/unet:tu-levit_128s", "smp/unet:tu-levit_128s can't be built: "),
    ],
)
def test_unknown_names(name: str, words: str) -> None:
    with pytest.raises(UnsupportedModelError, match=words):
        create_model(name)


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("smp/unet:resnet18", {"num_classes": 0}, "num_classes is 0 and smp/unet:resnet18 gives logits"),
        ("smp/unet:resnet18", {"model_kwargs": {"classes": 3}}, "model_kwargs has classes; .*num_classes"),
        ("smp/unet:tu-resnet50t", {"pretrained": True}, "smp/unet:tu-resnet50t has no pretrained weights, for its enc"),
    ],
)
def test_unusable_arguments(name: str, given: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        create_model(name, **given)


def test_the_package_may_be_missing(monkeypatch) -> None:
    monkeypatch.setattr(smp_models, "find_spec", lambda name: None)
    words = (
        r"smp/unet:resnet18 needs the package segmentation_models_pytorch, .*pip install 'rsconvert\[segmentation\]'"
    )
    with pytest.raises(UnsupportedModelError, match=words):
        create_model("smp/unet:resnet18")

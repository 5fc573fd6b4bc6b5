"""torchvision's names: no download unasked, and what its builders do with weights."""

import pytest
import torch
import torchvision

from rsconvert.data import Preprocessing
from rsconvert.models import create_model, source_of

LOADER = "torchvision.models._api.load_state_dict_from_url"


def rebuilt(model: torch.nn.Module) -> torch.nn.Module:
    source = source_of(model)
    return create_model(source.architecture, num_classes=source.num_classes, model_kwargs=source.model_kwargs)


def test_a_torchvision_name() -> None:
    model = create_model("torchvision/mobilenet_v3_small", num_classes=4)
    source = source_of(model)
    assert isinstance(model, torchvision.models.MobileNetV3)
    assert (source.architecture, source.num_classes) == ("torchvision/mobilenet_v3_small", 4)
    assert source.preprocessing == Preprocessing()


def test_torchvision_backbones_are_not_downloaded(monkeypatch) -> None:
    def refuse(*args, **kwargs):
        raise AssertionError("a download")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    assert source_of(create_model("torchvision/lraspp_mobilenet_v3_large")).weights is None


def test_torchvision_weights_load_with_what_their_builder_needs(monkeypatch) -> None:
    donor = torchvision.models.googlenet(weights=None, init_weights=False, transform_input=True)
    assert any(key.startswith("aux1") for key in donor.state_dict())
    for loader in ("torchvision.models._api.load_state_dict_from_url", "torch.hub.load_state_dict_from_url"):
        monkeypatch.setattr(loader, lambda *args, **kwargs: donor.state_dict())
    model = create_model("torchvision/googlenet", pretrained=True)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(model.eval()(x), donor.eval()(x))
    source = source_of(model)
    assert (source.num_classes, source.new_classifier) == (1000, ())
    again = rebuilt(model)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(x), donor(x))


def test_torchvision_weights_leave_another_classifier_at_zero(monkeypatch) -> None:
    donor = torchvision.models.resnet18(weights=None)
    monkeypatch.setattr(LOADER, lambda *args, **kwargs: donor.state_dict())
    model = create_model("torchvision/resnet18", pretrained=True, num_classes=4)
    source = source_of(model)
    assert (source.num_classes, source.new_classifier) == (4, ("fc.weight", "fc.bias"))
    assert not model.fc.weight.any()
    assert torch.equal(model.conv1.weight, donor.conv1.weight)
    assert (source.preprocessing.interpolation, source.preprocessing.crop_pct) == ("bilinear", 0.875)


@pytest.mark.filterwarnings("ignore:auxiliary heads in the pretrained googlenet")
@pytest.mark.parametrize(
    ("name", "heads"), [("googlenet", ("aux1.fc2", "aux2.fc2", "fc")), ("inception_v3", ("AuxLogits.fc", "fc"))]
)
def test_auxiliary_heads_start_anew_with_the_classifier(name: str, heads: tuple[str, ...], monkeypatch) -> None:
    donor = torchvision.models.get_model(name, weights=None, init_weights=False)
    for loader in (LOADER, "torch.hub.load_state_dict_from_url"):
        monkeypatch.setattr(loader, lambda *args, **kwargs: donor.state_dict())
    model = create_model(f"torchvision/{name}", pretrained=True, num_classes=4, model_kwargs={"aux_logits": True})
    new = source_of(model).new_classifier
    assert set(new) == {f"{head}.{tensor}" for head in heads for tensor in ("weight", "bias")}
    state, old = model.state_dict(), donor.state_dict()
    assert not any(state[key].any() for key in new)
    assert all(torch.equal(value, old[key]) for key, value in state.items() if key not in new)


def test_segmentation_is_built_again_for_its_classes() -> None:
    model = create_model("torchvision/lraspp_mobilenet_v3_large", num_classes=4)
    assert source_of(model).num_classes == 4
    assert rebuilt(model).state_dict()["classifier.low_classifier.weight"].shape[0] == 4
    assert source_of(create_model("torchvision/lraspp_mobilenet_v3_large")).num_classes == 21


def test_old_names_in_a_file_are_read(monkeypatch) -> None:
    """torchvision's DenseNets were saved with a dot in norm.1, and without batch counters."""
    donor = torchvision.models.densenet121(weights=None)
    old = {key.replace(".norm1.", ".norm.1."): v for key, v in donor.state_dict().items() if "batches" not in key}
    monkeypatch.setattr(LOADER, lambda *args, **kwargs: dict(old))
    model = create_model("torchvision/densenet121", pretrained=True, num_classes=3)
    key = "features.denseblock1.denselayer1.norm1.weight"
    assert torch.equal(model.state_dict()[key], donor.state_dict()[key])
    assert not model.classifier.weight.any()


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("lraspp_mobilenet_v3_large", ("classifier.low_classifier", "classifier.high_classifier")),
        ("deeplabv3_mobilenet_v3_large", ("classifier.4", "aux_classifier.4")),
    ],
)
def test_the_weights_of_segmentation_leave_other_classifiers_at_zero(name: str, heads, monkeypatch) -> None:
    auxiliary = {"aux_loss": True} if len(heads[1]) == 16 else {}
    donor = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=21, **auxiliary)
    monkeypatch.setattr(LOADER, lambda *args, **kwargs: donor.state_dict())
    source = source_of(model := create_model(f"torchvision/{name}", pretrained=True, num_classes=4))
    assert set(source.new_classifier) == {f"{head}.{tensor}" for head in heads for tensor in ("weight", "bias")}
    assert not any(model.get_parameter(key).any() for key in source.new_classifier)
    assert torch.equal(model.state_dict()["backbone.0.0.weight"], donor.state_dict()["backbone.0.0.weight"])
    assert rebuilt(model).state_dict().keys() == model.state_dict().keys()

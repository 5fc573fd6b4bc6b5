"""Names of outputs: the data's own, ImageNet's for its weights alone, synsets in words."""

import pytest

from rsconvert.models import Source, output_names, readable_names


def test_classes_of_the_data_come_first() -> None:
    source = Source(class_names=("b", "n02102040"), num_classes=1000, weights="pretrained resnet50.a1_in1k")
    assert output_names(source) == ("b", "English springer")


def test_downloaded_weights_of_imagenet_have_its_names() -> None:
    names = output_names(Source(num_classes=1000, weights="pretrained resnet50.a1_in1k"))
    assert names is not None
    assert (len(names), names[0], names[217], names[999]) == (1000, "tench", "English springer", "toilet tissue")


@pytest.mark.parametrize(
    "facts",
    [
        {"num_classes": 1000},
        {"num_classes": 1000, "weights": "weights.safetensors"},
        {"num_classes": 10, "weights": "pretrained resnet50.a1_in1k"},
        {"num_classes": 1000, "weights": "pretrained resnet50.a1_in1k", "new_classifier": ("fc.weight",)},
        {"num_classes": 1000, "weights": "pretrained resnet50.a1_in1k", "training": {"epochs": 3}},
        {},
    ],
)
def test_nothing_is_guessed(facts: dict[str, object]) -> None:
    assert output_names(Source(**facts)) is None  # type: ignore[arg-type]


def test_what_only_looks_like_a_synset_stays() -> None:
    names = ("n00000000", "n0144076", "n014407640", "tench")
    assert readable_names(names) == names

"""The settings of finetuning: every type of value, the refusals, the file, the recipes, the texts, the default rate."""

import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from rsconvert.errors import ConfigError
from rsconvert.recipes import build_config
from rsconvert.settings import FinetuneConfig, setting_help


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("epochs", "3", 3),
        ("epochs", np.int64(3), 3),
        ("lr", "1e-3", 1e-3),
        ("lr", 1, 1.0),
        ("lr", "none", None),
        ("lr", None, None),
        ("decay_all", "TRUE", True),
        ("decay_all", "false", False),
        ("decay_all", True, True),
        ("optimizer", "adamw", "adamw"),
        ("distill", "none", "none"),
        ("amp", "none", None),
        ("amp", "off", "off"),
        ("device", "none", None),
        ("device", "cpu", "cpu"),
        ("class_weights", "1, 2.5", (1.0, 2.5)),
        ("class_weights", "none", None),
        ("views", "sandwich", "sandwich"),
        ("views", "4", 4),
        ("views", 4, 4),
        ("view_sizes", "224,160", (224, 160)),
        ("view_sizes", (32, 32), (32, 32)),
        ("crop_area", [0.08, 1], (0.08, 1.0)),
        ("warmup_epochs", "0", 0.0),
        ("seed", 0, 0),
        ("bits", "2/32", "2/32"),
        ("bits", "none", None),
    ],
)
def test_a_value_is_read_as_its_fields_type(name: str, value: Any, expected: Any) -> None:
    found = getattr(build_config(settings={name: value}), name)
    assert found == expected
    assert type(found) is type(expected)
    if isinstance(found, tuple):
        assert [type(item) for item in found] == [type(item) for item in expected]


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("epochs", 2.5, "a whole number"),
        ("epochs", "2.0", "a whole number"),
        ("epochs", True, "a whole number"),
        ("epochs", None, "a whole number"),
        ("epochs", np.float32(2), "a whole number"),
        ("epochs", 0, "at least 1"),
        ("batch_size", -1, "1 to 2**31 - 1"),
        ("lr", "fast", "a number or none"),
        ("batch_size", 2**31, "1 to 2**31 - 1"),
        ("lr", 0, "a number above 0"),
        ("lr", math.nan, "a number above 0"),
        ("lr", math.inf, "a number above 0"),
        ("alpha_lr", "none", "a number"),
        ("alpha_lr", -0.1, "a number above 0"),
        ("clip_grad", 0.0, "a number above 0"),
        ("weight_decay", -1e-4, "0 or more"),
        ("weight_decay", math.nan, "0 or more"),
        ("workers", -1, "0 or more"),
        ("momentum", 1.0, "from 0 to below 1"),
        ("momentum", 0.0, "above 0 for sgd"),
        ("label_smoothing", 1.0, "from 0 to below 1"),
        ("decay_all", 2.5, "true or false"),
        ("decay_all", 1, "true or false"),
        ("decay_all", "yes", "true or false"),
        ("optimizer", "lamb", "sgd, momentum, adamw"),
        ("amp", "fp8", "bf16, fp16, off or none"),
        ("distill", None, "full, vanilla, top-down, largest, none"),
        ("class_weights", "1,x", "a list of numbers or none"),
        ("class_weights", "", "a list of numbers or none"),
        ("class_weights", [], "a list of numbers or none"),
        ("class_weights", {"a": 1}, "a list of numbers or none"),
        ("class_weights", [1, -1], "numbers above 0"),
        ("class_weights", [1, 0], "numbers above 0"),
        ("views", "some", "all, sandwich or a whole number is"),
        ("views", 3.5, "all, sandwich or a whole number is"),
        ("views", None, "all, sandwich or a whole number is"),
        ("views", 2, "all, sandwich or a whole number from 3"),
        ("view_sizes", 160, "a list of whole numbers or none"),
        ("view_sizes", "160,1.5", "a list of whole numbers or none"),
        ("view_sizes", [32, 0], "at least 1 pixel"),
        ("crop_area", [0.5], "a smallest and a largest"),
        ("crop_area", [0.2, 0.5, 1.0], "a smallest and a largest"),
        ("crop_area", [0.5, 1.5], "a smallest and a largest"),
        ("crop_aspect", [2, 1], "a smallest and a largest"),
        ("device", 0, "text or none"),
        ("seed", -1, "0 to 2"),
        ("seed", 2**63, "0 to 2"),
        ("warmup_epochs", 10.0, "less than the 10 epochs"),
        ("patience", 0, "at least 1"),
        ("patience", 9, "fewer than the 9 epochs after the first"),
    ],
)
def test_a_bad_value_is_refused_in_one_line(name: str, value: Any, accepted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(settings={name: value})
    text = str(caught.value)
    assert text.startswith(f"{name} is {value!r}") or text.startswith(f"{name} is ")
    assert accepted in text
    assert "\n" not in text


def test_plain_sgd_may_go_without_momentum() -> None:
    assert FinetuneConfig(optimizer="momentum", momentum=0.0).momentum == 0.0


def test_the_default_rate_grows_with_the_batch_and_falls_with_the_views() -> None:
    assert FinetuneConfig().peak_lr(1) == pytest.approx(0.005)
    assert FinetuneConfig().peak_lr(5) == pytest.approx(0.001)
    assert FinetuneConfig(batch_size=128).peak_lr(5) == pytest.approx(0.004)
    assert FinetuneConfig(batch_size=128, lr=0.3).peak_lr(5) == 0.3


def test_a_config_is_frozen() -> None:
    with pytest.raises(AttributeError):
        FinetuneConfig().epochs = 3  # type: ignore[misc]


def test_the_default_rate_counts_all_images_of_a_step() -> None:
    config = FinetuneConfig(batch_size=16, grad_accum_steps=4)
    assert config.peak_lr(5, processes=2) == pytest.approx(0.001 * 4)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"labels": "none", "distill": "none"}, "distill is none"),
        ({"teacher": "resnet18", "distill": "largest"}, "distill is largest"),
        ({"views": 3, "view_sizes": (32, 32, 32, 32)}, "views is 3 with view_sizes"),
        ({"labels": "none", "mixup": 0.2}, "mixup has no effect with labels none"),
        ({"labels": "none", "label_smoothing": 0.1}, "label_smoothing has no effect"),
        ({"labels": "none", "class_weights": (1.0, 2.0)}, "class_weights has no effect"),
        ({"labels": "none", "native_weight": 2}, "native_weight has no effect with labels none"),
        ({"labels": "none", "probe_epochs": 2}, "probe_epochs is 2 and has no effect with labels none"),
        ({"train": "bn", "probe_epochs": 2}, "probe_epochs is 2 and has no effect with train bn"),
    ],
)
def test_what_has_no_effect_beside_another_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        FinetuneConfig(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("views", "resolutions", "expected"), [("all", 1, 1), ("all", 5, 5), ("sandwich", 5, 3), (4, 5, 4), (5, 5, 5)]
)
def test_a_forward_has_as_many_views_as_asked(views: Any, resolutions: int, expected: int) -> None:
    assert FinetuneConfig(views=views).drawn_views(resolutions) == expected


@pytest.mark.parametrize(
    ("views", "resolutions", "accepted"),
    [("sandwich", 2, "all is accepted"), (3, 1, "all is accepted"), (6, 5, "all, sandwich or 3 to 5 is accepted")],
)
def test_more_views_than_resolutions_are_refused(views: Any, resolutions: int, accepted: str) -> None:
    with pytest.raises(ConfigError, match=f"views is {views}, and the number of resolutions {resolutions}; {accepted}"):
        FinetuneConfig(views=views).drawn_views(resolutions)


@pytest.mark.parametrize("name", [item.name for item in fields(FinetuneConfig)])
def test_each_setting_has_a_text_and_its_own_default(name: str) -> None:
    default, choices, text = setting_help(name)
    assert default == getattr(FinetuneConfig(), name)
    assert text.endswith(".")
    assert choices is None or default is None or default in choices


def test_the_help_of_an_option_ends_with_its_default() -> None:
    assert setting_help("train").choices == ("all", "bn", "head")
    assert setting_help("train").sentence.endswith(
        "bn (all BN sets but the native one) or head (every classifier); default all."
    )
    assert setting_help("weight_decay").sentence.endswith("linear layers; default 0.0001.")
    assert setting_help("log_dir").sentence == "Folder for TensorBoard."
    assert "default" not in setting_help("low_memory").sentence


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"bits": "9/32"}, r"^bits is 9/32; W/A, 1 to 8 bits for weights, 1 to 8 or 32 for activations.*is accepted"),
        ({"bits": "2"}, "bits is 2; W/A"),
        ({"bits": "2/16"}, "bits is 2/16; W/A"),
        ({"keep_float": "conv1"}, "keep_float has no effect without bits"),
        ({"activation_bases": "private"}, "activation_bases is private with bits none, which leave activations float"),
        ({"activation_bases": "shared", "bits": "2/32"}, "with bits 2/32, which leave activations float"),
        ({"schedule": "step"}, "schedule is step and lr_steps is none; the schedule step and"),
        ({"lr_steps": "3,5"}, "schedule is cosine and lr_steps is 3, 5"),
        ({"lr_steps": "5,3", "schedule": "step"}, "lr_steps is .*; epochs from 1, in ascending order,"),
        ({"lr_steps": "3,10", "schedule": "step"}, "lr_steps is 3, 10; numbers below 10, the epochs of the run"),
    ],
)
def test_settings_of_quantization_and_steps_that_do_not_fit_are_refused(settings: dict[str, str], match: str) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        build_config(settings=settings)
    assert "\n" not in str(caught.value)

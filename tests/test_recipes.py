"""Recipes: the paper's numbers, what overrides what, files that are refused."""

from pathlib import Path

import pytest

from rsconvert.errors import ConfigError
from rsconvert.recipes import RECIPES, build_config
from rsconvert.settings import FinetuneConfig


@pytest.mark.parametrize(
    ("key", "near"), [("epoch", "epochs"), ("weight-decay", "weight_decay"), ("zzz", "batch_size")]
)
def test_an_unknown_setting_names_known_ones(key: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"setting {key} is unknown") as caught:
        build_config(settings={key: 1})
    assert near in str(caught.value)


def test_a_setting_overrides_the_file_and_the_file_the_default(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'epochs = 4\nlr = 0.5\ncrop = "per-view"\ncrop_area = [0.1, 1]\nview_sizes = [64, 64]\ndecay_all = true\n'
    )
    config = build_config(file, {"epochs": "7"})
    assert (config.epochs, config.lr, config.crop, config.decay_all) == (7, 0.5, "per-view", True)
    assert (config.crop_area, config.view_sizes) == ((0.1, 1.0), (64, 64))
    assert config.batch_size == FinetuneConfig().batch_size


@pytest.mark.parametrize("text", ["epochs = ", "epochs: 4", None, b"\xff\xfe"])
def test_an_unreadable_file_is_named_in_one_line(tmp_path: Path, text: str | bytes | None) -> None:
    file = tmp_path / "mine.toml"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=r"config .*mine\.toml can't be read") as caught:
        build_config(file)
    assert "\n" not in str(caught.value)


def test_a_table_in_the_file_is_an_unknown_setting(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[training]\nlr = 0.1\n")
    with pytest.raises(ConfigError, match="setting training is unknown"):
        build_config(file)


@pytest.mark.parametrize(
    ("name", "epochs", "lr", "weight_decay"), [("paper-resnet", 120, 0.1, 1e-4), ("paper-mobilenetv2", 150, 0.05, 4e-5)]
)
def test_the_papers_numbers(name: str, epochs: int, lr: float, weight_decay: float) -> None:
    config = build_config(recipe=name)
    assert (config.epochs, config.lr, config.alpha_lr, config.weight_decay) == (epochs, lr, lr, weight_decay)
    assert (config.batch_size, config.optimizer, config.momentum, config.schedule) == (256, "momentum", 0.9, "cosine")
    assert (config.crop_area, config.crop_aspect, config.flip) == ((0.08, 1.0), (3 / 4, 4 / 3), "per-view")
    assert (config.decay_all, config.warmup_epochs, config.best, config.distill) == (True, 0.0, "native", "full")


def test_the_usual_recipe_is_the_default() -> None:
    assert build_config(recipe="finetune") == build_config() == FinetuneConfig()


def test_a_file_overrides_the_recipe_and_a_setting_both(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("epochs = 4\nlr = 0.5\n")
    config = build_config(file, {"epochs": "7"}, "paper-resnet")
    assert (config.epochs, config.lr, config.batch_size) == (7, 0.5, 256)


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=f"recipe is 'imagenet'; {', '.join(RECIPES)} are accepted"):
        build_config(recipe="imagenet")


@pytest.mark.parametrize("teacher", ["mine.py:build", "resnet50", "hf-hub:USER/NAME", "missing.safetensors"])
def test_a_file_names_no_code_and_nothing_to_fetch_as_the_teacher(tmp_path: Path, teacher: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(f'teacher = "{teacher}"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"run\.toml names the teacher .* Give it by --teacher"):
        build_config(file)
    with pytest.raises(ConfigError, match=r"run\.toml names the teacher"):  # even where it is overridden
        build_config(file, {"teacher": "none"})
    assert build_config(settings={"teacher": teacher}).teacher == teacher


def test_a_file_may_name_a_checkpoint_as_the_teacher(tmp_path: Path) -> None:
    (tmp_path / "net.safetensors").touch()
    file = tmp_path / "run.toml"
    file.write_text(f"teacher = '{tmp_path / 'net.safetensors'}'\n", encoding="utf-8")
    assert build_config(file).teacher == str(tmp_path / "net.safetensors")


def test_a_file_that_is_nested_deeply_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("epochs = " + "[" * 100_000, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"run\.toml can't be read"):
        build_config(file)


def test_the_quantized_recipe_is_that_of_the_paper() -> None:
    config = build_config(recipe="paper-lq-resnet", settings={"bits": "2/2"})
    assert (config.bits, config.optimizer, config.lr_steps) == ("2/2", "sgd", (30, 60, 85, 95, 105))
    assert (config.epochs, config.batch_size, config.lr, config.weight_decay) == (120, 256, 0.1, 1e-4)

"""Recipes: the numbers of the paper, and who overrides whom."""

from pathlib import Path

import pytest

from rsconvert.errors import ConfigError
from rsconvert.training.config import FinetuneConfig
from rsconvert.training.recipes import RECIPES, build_config


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

"""A comparison of segmentation networks: judged by mIoU, with intervals by the bootstrap over images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rsconvert import evaluate
from rsconvert.errors import ConfigError
from rsconvert.settings import FinetuneConfig
from rsconvert.study.comparison.plan import plan_comparison
from rsconvert.study.comparison.runs import compare
from rsconvert.surgery import SwitchableModel, make_switchable

CONFIG = FinetuneConfig(epochs=1, batch_size=2, lr=0.02, workers=0, warmup_epochs=0, device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright blocks (1) on dark (0)."""
    folder, rng = tmp_path_factory.mktemp("blocks"), np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 3)):
        for number in range(count):
            mask = np.zeros((20, 24), np.uint8)
            top, left = rng.integers(0, 10, 2)
            mask[top : top + 10, left : left + 10] = 1
            image = (mask[..., None] * 90 + rng.integers(0, 120, (20, 24, 3))).astype(np.uint8)
            for name, picture in ((split, image), (f"{split}annot", mask)):
                (folder / name).mkdir(exist_ok=True)
                Image.fromarray(picture).save(folder / name / f"{number}.png")
    return folder


def network() -> SwitchableModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)
    return make_switchable(nn.Sequential(*layers), (16, 8), task="segmentation")


def test_all_methods_are_judged_by_miou(data: Path, tmp_path: Path) -> None:
    net = network()
    methods = ("inets", "rsnet", "shared-bn", "source")
    plan = plan_comparison(net, data, tmp_path / "c", CONFIG, methods=methods, seeds=(0,))
    found = compare(plan)
    assert [line.title for line in found.lines] == ["I-Nets", "I-16", "RS-Net", "shared BN", "source"]
    own = evaluate(net, data, workers=0).resolutions
    source = found.lines[-1]
    assert {r: by_seed[0] for r, by_seed in source.score.items()} == {r: row.score for r, row in own.items()}
    estimate = found.accuracy(source, 16)
    assert estimate is not None
    assert estimate.interval == pytest.approx(own[16].interval)
    facts = json.loads((tmp_path / "c" / "report.json").read_text(encoding="utf-8"))["methods"]["rsnet"]
    assert facts["miou"]["8"]["mean"] == found.lines[2].score[8][0]
    assert facts["gain"]["8"]["seeds"]["0"] == pytest.approx(found.lines[2].score[8][0] - found.lines[0].score[8][0])
    low, high = facts["gain"]["8"]["interval"]
    assert low <= high
    page = (tmp_path / "c" / "report.md").read_text(encoding="utf-8")
    assert "mIoU in percent on 3 images" in page
    assert "top-1" not in page
    assert (
        (tmp_path / "c" / "accuracy.csv")
        .read_text(encoding="utf-8")
        .startswith("method,title,resolution,trained,seed,miou,")
    )
    again = compare(plan_comparison(network(), data, tmp_path / "c", CONFIG, methods=methods, seeds=(0,)))
    assert again.to_dict() == found.to_dict()


@pytest.mark.parametrize("method", ["heads", "per-view", "one-size"])
def test_methods_of_classes_are_refused(data: Path, tmp_path: Path, method: str) -> None:
    with pytest.raises(ConfigError, match=f"{method} needs one class per image, or a crop per view"):
        plan_comparison(network(), data, tmp_path / "c", CONFIG, methods=("inets", method), seeds=(0,))

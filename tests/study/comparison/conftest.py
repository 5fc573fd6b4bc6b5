"""What the tests of comparisons share: small photos of three colours, a small network, a comparison made by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rsconvert.settings import FinetuneConfig
from rsconvert.study.comparison.findings import Comparison, Line, RunFacts
from rsconvert.study.comparison.methods import KNOWN
from rsconvert.surgery import SwitchableModel, make_switchable

TOP1 = {
    "inets": {32: (80.0, 82.0), 16: (60.0, 61.0)},
    "inet-32": {32: (80.0, 82.0), 24: (70.0, 71.0), 16: (50.0, 49.0)},
    "rsnet": {32: (83.0, 82.0), 24: (77.0, 79.0), 16: (66.0, 69.0)},
}


@pytest.fixture
def net(tiny: Callable[..., nn.Module]) -> SwitchableModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make_switchable(tiny(classes=3), (32, 24, 16))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of 12 train and 9 val images of 40 × 40."""
    base, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 3)):
        for target in range(3):
            (base / split / str(target)).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 200, (40, 40, 3), dtype=np.uint8)
                pixels[..., target] += 50
                Image.fromarray(pixels).save(base / split / str(target) / f"{index}.png")
    return str(base)


@pytest.fixture
def settings() -> Callable[..., FinetuneConfig]:
    def make(**changes: Any) -> FinetuneConfig:
        usual = {"epochs": 1, "batch_size": 4, "workers": 0, "warmup_epochs": 0.0, "device": "cpu"}
        return FinetuneConfig(**{**usual, **changes})

    return make


@pytest.fixture
def found(tmp_path: Path) -> Comparison:
    """I-Nets at 32 and 16, their largest everywhere, and an RS-Net of both, tested at 24 too; seeds 0 and 5."""
    titles, both = {"inets": "I-Nets", "inet-32": "I-32", "rsnet": "RS-Net"}, (32, 16)
    methods = {"inets": KNOWN["inets"], "inet-32": KNOWN["inets"], "rsnet": KNOWN["rsnet"]}
    lines = []
    for name, values in TOP1.items():
        top1 = {r: dict(zip((0, 5), pair, strict=True)) for r, pair in values.items()}
        top5 = {r: dict.fromkeys((0, 5), 99.5) for r in values}
        lines.append(Line(name, titles[name], methods[name], (32,) if name == "inet-32" else both, top1, top5))
    scores = {0: ({32: 0.5, 16: 0.5}, {32: 0.6, 16: 0.4}), 5: ({32: 0.5, 16: 0.5}, {32: 0.8, 16: 0.2})}
    machine = {"device": "cpu", "name": "Some Processor"}
    runs = [RunFacts(f"rsnet/seed-{s}", "rsnet", s, 90.0 + 60 * s, scores[s], machine) for s in (0, 5)]
    alone = ({32: 1.0},)
    runs.append(RunFacts("inets-32/seed-0", "inets", 0, 30.0, alone, machine))
    return Comparison(
        folder=tmp_path,
        methods=(KNOWN["inets"], KNOWN["rsnet"]),
        seeds=(0, 5),
        resolutions=(32, 24, 16),
        trained=both,
        multiply_adds={32: 4_000_000, 24: 2_250_000, 16: 1_000_000},
        images=200,
        lines=tuple(lines),
        runs=tuple(runs),
        settings={"epochs": 2, "lr": 0.005, "same_lr": False, "teacher": None, "crop_area": (0.35, 1.0)},
    )

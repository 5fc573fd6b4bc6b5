"""A written page, and what it was made of."""

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rsconvert import SwitchableModel, create_model, make_switchable
from rsconvert.study.report import write_report

NASTY = "</script><script>alert('&\"')</script>"


@dataclass(frozen=True)
class Written:
    """A page, the facts that ``write_report`` returned, and what it was made of."""

    path: Path
    facts: dict[str, Any]
    net: SwitchableModel
    other: SwitchableModel
    data: Path


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A network and a baseline on 18 smooth images of three classes, of which one has a name made to break a page."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    for split, name in product(("train", "val"), ("a", "b<i>", "c&d")):
        (folder / split / name).mkdir(parents=True)
        for i in range(6):
            smooth = Image.fromarray(rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)).resize((75, 60))
            smooth.save(folder / split / name / f"{i}.png")
    (folder / "names.json").write_text(json.dumps({"a": NASTY, "b<i>": "bee", "c&d": "sea"}))
    torch.manual_seed(0)
    nets = [make_switchable(create_model("test_efficientnet", num_classes=3), (48, 32)) for _ in range(2)]
    facts = write_report(
        nets[0],
        folder,
        folder / "report.html",
        [48, 40, 32],
        baselines={"<other>": nets[1]},
        examples=5,
        seed=3,
        class_names=folder / "names.json",
        command="rsconvert report <net>",
        workers=0,
    )
    return Written(folder / "report.html", facts, *nets, folder)

"""Ctrl-C on the finetune command, as a terminal sends it: to the process and all of its workers, at several moments."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rsconvert.checkpoint import load, save
from rsconvert.models import create_model
from rsconvert.surgery import make_switchable

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups to signal")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network and images."""
    base, rng = tmp_path_factory.mktemp("interrupt"), np.random.default_rng(0)
    for split, name, index in [(s, n, i) for s in ("train", "val") for n in "ab" for i in range(8)]:
        file = base / "images" / split / name / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(file)
    net = make_switchable(create_model("test_efficientnet", pretrained=False, num_classes=2), (48, 32))
    save(net, base / "net.safetensors")
    return base


def started(place: Path, output: Path) -> subprocess.Popen[str]:
    options = ["--epochs", "500", "--batch-size", "4", "--workers", "1", "--device", "cpu"]
    paths = [str(place / "net.safetensors"), "--data", str(place / "images"), "--output", str(output)]
    return subprocess.Popen(
        [sys.executable, "-m", "rsconvert", "finetune", *paths, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        cwd=Path(__file__).parents[1],
    )


def epochs_in(output: Path) -> int:
    summary = output / "summary.csv"
    return len(summary.read_text().splitlines()) - 1 if summary.exists() else 0


def wait_for(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("epochs", "delay", "presses", "number"),
    [(0, 0.0, 1, signal.SIGINT), (2, 0.03, 3, signal.SIGINT), (1, 0.1, 1, signal.SIGTERM), (1, 0.1, 1, signal.SIGHUP)],
    ids=[
        "while workers start",
        "pressed repeatedly in an epoch",
        "a request to the process itself",
        "a terminal that closes",
    ],
)
def test_ctrl_c_is_one_line_and_keeps_the_last_epoch(
    place: Path, tmp_path: Path, epochs: int, delay: float, presses: int, number: int
) -> None:
    output = tmp_path / "run"
    process = started(place, output)
    try:
        wait_for(process, lambda: output.exists() and epochs_in(output) >= epochs)
        for _ in range(presses):
            time.sleep(delay)
            (os.kill if number == signal.SIGTERM else os.killpg)(process.pid, number)
        _, shown = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 1, shown
    assert "Traceback" not in shown
    assert "Exception ignored" not in shown
    line = shown.splitlines()[-1]
    # Before the first step there is no state to keep.
    assert line.startswith(("Error: interrupted; its state after epoch ", "Error: interrupted; what was written"))
    assert not epochs or line.endswith(" is kept. Go on with --resume.")
    if epochs:
        assert load(output / "last.safetensors").source.training["epoch"] >= epochs

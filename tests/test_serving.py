"""docs/examples: serving, with a clock of the test's own; the repository of Triton against its ONNX file."""

import re
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import rsconvert
from rsconvert.data import normalize
from rsconvert.surgery import SwitchableModel, scrambled, write

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
SIDES = (64, 48, 32)
NAMES = ("ant", "bee", "cat", "dog", "eel")
SECONDS = {64: 0.040, 48: 0.020, 32: 0.010}


@pytest.fixture(scope="module")
def serving() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / "serving.py"))


@pytest.fixture(scope="module")
def net() -> SwitchableModel:
    torch.manual_seed(0)
    net = rsconvert.make_switchable(rsconvert.create_model("test_resnet", num_classes=5), SIDES).eval()
    for side in SIDES:
        write(net.at(side), scrambled(net.at(side), side))
    preprocessing = replace(net.source.preprocessing, crop_pct=(0.9, 0.8, 0.875))
    net.source = replace(net.source, preprocessing=preprocessing, class_names=NAMES)
    return net


@pytest.fixture(scope="module")
def file(net: SwitchableModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    rsconvert.export_onnx(net, path)
    return path


@pytest.mark.parametrize("name", ["serving", "triton_server"])
def test_an_example_is_short(name: str) -> None:
    lines = (EXAMPLES / f"{name}.py").read_text().splitlines()
    assert len(lines) < 60


@pytest.mark.parametrize(
    ("waiting", "age", "side"),
    [
        (1, 0.0, 64),  # 40 ms of 80
        (2, 0.0, 64),
        (3, 0.0, 48),  # 120 ms would be too late, 60 are not
        (4, 0.0, 48),
        (5, 0.0, 32),
        (8, 0.0, 32),
        (9, 0.0, 32),  # nothing holds: as fast as can be
        (1, 0.041, 48),  # the wait so far counts
        (1, 0.100, 32),
    ],
)
def test_the_longer_the_queue_the_smaller_the_images(serving, waiting: int, age: float, side: int) -> None:
    assert serving["choose"](SECONDS, [age] * waiting, batch=4, target=0.080) == side


def test_one_who_came_first_may_be_the_one_who_is_late(serving) -> None:
    assert serving["choose"](SECONDS, [0.0, 0.0], batch=1, target=0.080) == 64
    assert serving["choose"](SECONDS, [0.050, 0.0], batch=1, target=0.080) == 48
    # In a batch the first waits for the last: 2 × 20 ms and 50 are too many.
    assert serving["choose"](SECONDS, [0.050, 0.0], batch=2, target=0.080) == 32


class Machine:
    """A clock, and a network that takes SECONDS per image of it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.runs: list[tuple[int, int]] = []

    def clock(self) -> float:
        return self.now

    def answer(self, images: list[Any], side: int) -> np.ndarray:
        self.now += SECONDS[side] * len(images)
        self.runs.append((len(images), side))
        return np.arange(len(images))[:, None]


def test_the_latency_is_that_of_the_slowest_run_after_the_first(serving) -> None:
    machine = Machine()
    found = serving["measure"](machine.answer, None, SIDES, batch=4, runs=2, clock=machine.clock)
    assert found == pytest.approx(SECONDS)
    assert machine.runs == [(count, side) for side in SIDES for count in (1, 4)] * 3


def test_a_burst_is_answered_within_the_target_in_order_of_arrival(serving) -> None:
    machine, told = Machine(), []
    waiting = [(0.0, i, lambda _, side, i=i: told.append((i, side, machine.now))) for i in range(18)]
    while waiting:
        serving["step"](waiting, machine.answer, SECONDS, batch=4, target=0.420, clock=machine.clock)
    assert [i for i, _, _ in told] == list(range(18))
    assert max(now for _, _, now in told) <= 0.420
    assert {side for _, side, _ in told} > {48}  # once there is room, the images grow again
    assert [count for count, _ in machine.runs] == [4, 4, 4, 4, 2]


def test_the_file_answers_as_the_network_does(serving, net: SwitchableModel, file: Path) -> None:
    answer, sides, names = serving["open_network"](str(file))
    assert (sides, names) == ([64, 56, 48, 40, 32], [*NAMES])
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 100, 3), dtype=np.uint8))
    seconds = serving["measure"](answer, image, sides, batch=3, runs=1)
    assert all(value > 0 for value in seconds.values())
    told: list[tuple[Any, int]] = []
    waiting = [(float("-inf"), image, lambda *reply: told.append(reply)) for _ in range(4)]
    while waiting:
        serving["step"](waiting, answer, seconds, batch=3, target=0.0)
    assert [side for _, side in told] == [32] * 4
    for side, share in ((48, 0.8), (56, 0.85)):
        border = 80 * (1 - share) / 2
        view = image.resize((side, side), Image.Resampling.BILINEAR, (10 + border, border, 90 - border, 80 - border))
        x = normalize(torch.from_numpy(np.array(view)).permute(2, 0, 1)[None].contiguous(), net.source.preprocessing)
        with torch.no_grad():
            np.testing.assert_allclose(answer([image], side), net(x).numpy(), rtol=1e-3, atol=1e-4)


def test_the_repository_of_triton_tells_what_the_file_takes(file: Path, tmp_path: Path) -> None:
    triton = runpy.run_path(str(EXAMPLES / "triton_server.py"))
    triton["write"](file, tmp_path / "models" / "rsnet", batch=4)
    folder = tmp_path / "models" / "rsnet"
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.*")) == ["1/model.onnx", "config.pbtxt"]
    text = (folder / "config.pbtxt").read_text()
    assert 'name: "rsnet"' in text
    assert "max_batch_size: 4" in text
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    form = r'{} \[ {{ name: "(\w+)" data_type: (\w+) dims: \[ ([-\d, ]+) \] }} \]'
    for kind, value in (("input", session.get_inputs()[0]), ("output", session.get_outputs()[0])):
        found = re.search(form.format(kind), text)
        assert found
        assert (found[1], value.type, found[2]) == (value.name, "tensor(float)", "TYPE_FP32")
        assert [int(size) for size in found[3].split(",")] == ([3, -1, -1] if kind == "input" else [5])
        assert all(isinstance(size, str) for size in value.shape[2:])
    assert text.count("{") == text.count("}")


def test_the_names_of_the_classes_are_printed(
    net: SwitchableModel,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 100, 3), dtype=np.uint8)).save(photo)
    monkeypatch.setattr("sys.argv", ["serving.py", str(file), "100000", str(photo)])
    runpy.run_path(str(EXAMPLES / "serving.py"), run_name="__main__")
    (line,) = capsys.readouterr().out.splitlines()
    (predicted,) = rsconvert.predict(net, photo, device="cpu")
    assert line == f"{photo} 64 {predicted.name}"

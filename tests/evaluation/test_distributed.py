"""Processes over gloo, as torchrun starts them: one evaluation among them, and the failure of one."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

from rsconvert.checkpoint import save
from rsconvert.cli import main
from rsconvert.errors import ConfigError, DataError, TrainingError
from rsconvert.evaluation import Processes, joined_processes, launched_rank
from rsconvert.evaluation.distributed import _plain_peer_errors, shared_failure
from rsconvert.models import create_model
from rsconvert.surgery import make_switchable

Launch = Callable[..., "subprocess.Popen[str]"]
pytestmark = pytest.mark.skipif(not dist.is_available() or os.name == "nt", reason="needs gloo")

IN_PYTHON = """
import json, sys, torch
import torch.distributed as dist
import rsconvert
from rsconvert.cli import main
from rsconvert.data import open_split
torch.set_num_threads(1)
dist.init_process_group("gloo")
main({words!r}, standalone_mode=False)
net, options = rsconvert.load("{net}"), {{"batch_size": 6, "workers": 0}}
found = rsconvert.evaluate(net, "{photos}", device="cpu", per_class=True, **options).to_dict()
every = [None, None, None]
dist.all_gather_object(every, json.dumps(found))
assert len(set(every)) == 1, "all get the whole result"
for attempt in range(2):
    samples = open_split("{photos}", "val")
    if attempt == 0 and dist.get_rank() == 1:
        samples._source = [None] * len(samples)
    try:
        again = rsconvert.evaluate(net, samples, per_class=True, **options).to_dict()
        assert again == found, "the group goes on after a failure"
    except (rsconvert.DataError, rsconvert.TrainingError) as error:
        own = "can't be read" if dist.get_rank() == 1 else "process 1 of 3 failed"
        assert attempt == 0 and own in str(error), error
if dist.get_rank() == 1:
    net.alpha.data += 1
try:
    rsconvert.evaluate(net, "{photos}", **options)
    raise SystemExit("networks that differ were not refused")
except rsconvert.ConfigError as error:
    assert "network has other values in one process than in another" in str(error), error
if dist.get_rank() == 0:
    print(every[0])
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network and another one to compare it with, and eleven photos of three classes: 6, 4 and 1."""
    folder = tmp_path_factory.mktemp("shared")
    generator = np.random.default_rng(0)
    for name, count in {"a": 6, "b": 4, "c": 1}.items():
        (folder / "photos" / "val" / name).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 256, (44, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / "val" / name / f"{index}.png")
    with torch.random.fork_rng(devices=[]):
        for seed, name in enumerate(("net", "other")):
            torch.manual_seed(seed)
            net = make_switchable(create_model("test_efficientnet", num_classes=3), (40, 32))
            for key, tensor in net.state_dict().items():
                if ".at." in key and tensor.is_floating_point():
                    tensor.mul_(1 + torch.rand_like(tensor))
            save(net, folder / f"{name}.safetensors")
    return folder


def words(place: Path, *more: object) -> list[str]:
    options = [
        "--data",
        place / "photos",
        "--batch-size",
        3,
        "--workers",
        0,
        "--device",
        "cpu",
        "--per-class",
        "--json",
    ]
    baseline = ["--baseline", place / "other.safetensors"]
    return [str(word) for word in ("evaluate", place / "net.safetensors", *options, *baseline, *more)]


def alone(*all_words: str) -> dict[str, Any]:
    result = CliRunner().invoke(main, all_words)
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def test_a_group_gives_the_one_result_of_one_and_outlives_a_failure(
    torchrun: Launch, place: Path, tmp_path: Path
) -> None:
    """Eleven photos for three processes of the caller's group: by the command, then in Python, where one has none."""
    sizes = ("--resolutions", "40,36,32,30x40")
    script, command = tmp_path / "script.py", words(place, *sizes, "--logits", tmp_path / "shared")
    script.write_text(IN_PYTHON.format(words=command, net=place / "net.safetensors", photos=place / "photos"))
    process = torchrun(str(script), processes=3)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "Warning" not in err
    by_command, in_python = (json.loads(line) for line in out.splitlines())
    assert by_command == alone(*words(place, *sizes, "--logits", tmp_path / "alone"))
    assert by_command["count"] == 11
    shared, whole = load_file(tmp_path / "shared"), load_file(tmp_path / "alone")
    assert shared.keys() == whole.keys()
    assert all(torch.equal(shared[name], value) for name, value in whole.items()), "the order is that of the data"
    wanted = alone(*words(place, "--batch-size", 6))
    del wanted["baselines"]
    assert in_python == wanted


def test_a_broken_image_ends_all_processes_with_its_name(torchrun: Launch, place: Path, tmp_path: Path) -> None:
    photos = tmp_path / "broken" / "val"
    for name in "abc":
        (photos / name).mkdir(parents=True)
        for file in (place / "photos" / "val" / name).iterdir():
            (photos / name / file.name).write_bytes(file.read_bytes()[: 60 if name == "c" else None])
    process = torchrun("-m", "rsconvert", *words(place, "--data", tmp_path / "broken"))
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert out == ""
    told = {line for line in err.splitlines() if line.startswith("Error: ")}
    assert any("c/0.png" in line for line in told)
    assert all("c/0.png" in line or "process 1 of 2 failed" in line for line in told)


def test_a_lost_peer_is_one_line() -> None:
    with pytest.raises(TrainingError, match="another process of the run ended") as caught, _plain_peer_errors():
        raise_from_gloo()
    assert "\n" not in str(caught.value)


def raise_from_gloo() -> None:
    raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer\nmore")


def test_an_incomplete_launch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert launched_rank() == 1
    with pytest.raises(ConfigError, match="LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set"), joined_processes("cpu"):
        pass


def test_alone_a_sum_is_the_value_itself() -> None:
    number = torch.ones(2)
    with joined_processes("cpu") as alone:
        assert (alone.rank, alone.world_size, alone.leads) == (0, 1, True)
        assert alone.total(number) is number
        assert alone.gather("mine") == ["mine"]


def test_alone_nobody_is_told_of_a_failure() -> None:
    alone = Processes(0, 1, torch.device("cpu"))
    with shared_failure(alone) as meet:
        assert meet("value") == ["value"]
    with pytest.raises(DataError, match="mine"), shared_failure(alone):
        raise DataError("mine")


def test_the_failure_of_another_is_one_line() -> None:
    said: list[Any] = []

    class Pair(Processes):
        def gather(self, value: Any) -> list[Any]:
            said.append(value)
            return [value, (True, None)]

    pair = Pair(0, 2, torch.device("cpu"))
    with pytest.raises(TrainingError, match=r"^process 1 of 2 failed; .* printed\.$"), shared_failure(pair) as meet:
        meet()
    assert said == [(False, None)], "who was told does not tell"
    with pytest.raises(KeyboardInterrupt), shared_failure(pair):
        raise KeyboardInterrupt
    assert said[1:] == [(True, None)]

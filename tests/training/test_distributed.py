"""Several processes over gloo, as torchrun starts them: their gradients, their counts, the death of one."""

import csv
import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from rsconvert.checkpoint import digest, save
from rsconvert.errors import ConfigError, TrainingError
from rsconvert.evaluation import Processes
from rsconvert.models import create_model
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel, make_switchable
from rsconvert.training.step.stepper import Stepper, _plain_reduction_errors
from rsconvert.training.timm_task import MREDTask

Launch = Callable[..., subprocess.Popen[str]]
pytestmark = pytest.mark.skipif(not dist.is_available() or os.name == "nt", reason="needs gloo and signals")

SCRIPT = """
import sys, torch
from safetensors.torch import save_file
sys.path.insert(0, {tests!r})
from test_distributed import averaged_statistics, gradients, quantized_steps, task_gradients
from rsconvert.cli import main
from rsconvert.evaluation import joined_processes
torch.set_num_threads(1)
with joined_processes("cpu") as processes:
    for low_memory in (False, True):
        for views, accumulate in (("all", 1), ("all", 2), ("sandwich", 2)):
            found = gradients(processes, low_memory=low_memory, accumulate=accumulate, views=views)
            if processes.leads:
                save_file(found, f"{folder}/{{low_memory}}-{{accumulate}}-{{views}}.safetensors")
    found = task_gradients(processes)
    if processes.leads:
        save_file(found, "{folder}/task.safetensors")
    averaged_statistics(processes)
    quantized_steps(processes)
    assert processes.gather(processes.rank) == [0, 1]
    assert processes.total(torch.tensor([1, processes.rank])).tolist() == [2, 1]
    for words in {runs!r}:
        main(words, standalone_mode=False)
"""
# The states of every step, for a run that is ended in its middle.
AVERAGE = ("--epochs", "4", "--set", "ema_decay=0.9")
STATES = ("--set", "save_minutes=1e-9", "--set", "keep_states=99")


def gradients(processes: Processes, *, low_memory: bool, accumulate: int, views: Any) -> dict[str, torch.Tensor]:
    """The gradients of 8 images with frozen statistics, shared by the processes and added in some parts.

    Of drawn views the first part leaves out 36 and 32, the second 40 and 32.
    """
    torch.manual_seed(0)
    sides = (48, 24) if views == "all" else (48, 40, 36, 32, 24)
    net = make_switchable(create_model("test_efficientnet", num_classes=3), sides, private=("bn", "head"))
    config = FinetuneConfig(low_memory=low_memory, grad_accum_steps=accumulate, batch_size=2, views=views)
    stepper = Stepper(net, config, 10, torch.float32, processes)
    stepper.objective.eval()
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(8, 3, r, r, generator=generator) for r in sides]
    target = torch.randint(3, (8,), generator=generator)
    parts = torch.arange(8).view(accumulate, processes.world_size, -1)
    for number, shares in enumerate(parts, start=1):
        mine, others = shares[processes.rank], (32, 36) if number == 1 else (32, 40)
        batch = [
            view[mine, :, :0, :0] if side in others else view[mine] for side, view in zip(sides, images, strict=True)
        ]
        stepper.add(batch, target[mine], last=number == accumulate)
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def task_gradients(processes: Processes) -> dict[str, torch.Tensor]:
    """The gradients of timm's task in two forwards of two images with frozen statistics, shared by the processes."""
    torch.manual_seed(0)
    net = make_switchable(create_model("test_efficientnet", num_classes=3), (48, 32))
    task = MREDTask(net, verbose=False).eval()
    if processes.world_size > 1:
        task.prepare_distributed()
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(4, 3, r, r, generator=generator) for r in (48, 32)]
    target = torch.tensor([0, 2, 1, 1])
    for shares in torch.arange(4).view(2, processes.world_size, -1):
        mine = shares[processes.rank]
        task([view[mine] for view in images], target[mine])["loss"].backward()
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def averaged_statistics(processes: Processes) -> None:
    """Statistics that training moves become those of all processes, also in the moving average; others stay."""
    net = make_switchable(create_model("test_resnet", num_classes=3), (48, 32))
    config = FinetuneConfig(train="bn", ema_decay=0.9)
    stepper = Stepper(net, config, 10, torch.float32, processes)
    stepper.objective.train()
    for model, base in ((net, 0.0), (stepper.judged, 10.0)):
        for _, buffer in model.named_buffers():
            buffer.fill_(base + processes.rank)
    stepper.average_statistics()
    for model, base in ((net, 0.0), (stepper.judged, 10.0)):
        for name, buffer in model.named_buffers():
            mean = ".at." in name and "running" in name
            assert (buffer == base + (0.5 if mean else processes.rank)).all(), name


def quantized_steps(processes: Processes) -> None:
    """After steps with other images in each process, all have the same weights, float weights and bases."""
    torch.manual_seed(0)
    net = make_switchable(create_model("test_resnet", num_classes=3), (48, 32))
    stepper = Stepper(net, FinetuneConfig(bits="2/2", lr=0.1), 10, torch.float32, processes)
    stepper.objective.train()
    generator = torch.Generator().manual_seed(processes.rank)
    before = digest({name: b for name, b in net.named_buffers() if "basis" in name})
    for step in range(2):
        views = [torch.randn(2, 3, r, r, generator=generator) for r in net.resolutions]
        stepper.add(views, torch.tensor([0, 1]), last=True)
        stepper.step(step)
    held = {name: tensor for name, tensor in net.state_dict().items() if "running" not in name}
    assert any(name.endswith("float_weight") for name in held)
    assert digest({name: b for name, b in net.named_buffers() if "basis" in name}) != before
    assert len(set(processes.gather(digest(held)))) == 1


def finetune(start: Path, photos: str, output: Path, *more: str) -> list[str]:
    words = ["finetune", str(start), "--data", photos, "--output", str(output), "--batch-size", "4", "--workers", "0"]
    return [*words, "--device", "cpu", *more]


def waited_for(process: subprocess.Popen[str], ready: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    net = make_switchable(create_model("test_efficientnet", num_classes=3, model_kwargs={"drop_rate": 0.3}), (40, 32))
    save(net, tmp_path_factory.mktemp("start") / "net.safetensors")
    return tmp_path_factory.getbasetemp() / "start0" / "net.safetensors"


@dataclass(frozen=True)
class Ended:
    """The folder of what two processes wrote, and what they printed."""

    folder: Path
    facts: list[dict[str, Any]]
    shown: str


@pytest.fixture(scope="module")
def ended(torchrun: Launch, start: Path, photos: str, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Two processes that computed gradients, finetuned, and finetuned until their patience ended."""
    folder = tmp_path_factory.mktemp("ended")
    frozen = ("--train", "head", "--lr", "1e-12", "--epochs", "9", "--set", "patience=1")
    runs = [
        finetune(start, photos, folder / "whole", *AVERAGE, "--json"),
        finetune(start, photos, folder / "patient", *frozen, "--json"),
    ]
    script = folder / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), folder=str(folder), runs=runs))
    process = torchrun(str(script))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return Ended(folder, [json.loads(line) for line in out.splitlines()], err)


def test_two_processes_give_the_gradients_of_one_with_the_double_batch(ended: Ended) -> None:
    alone = Processes(0, 1, torch.device("cpu"))
    whole = gradients(alone, low_memory=False, accumulate=1, views="all")
    drawn = gradients(alone, low_memory=False, accumulate=2, views="sandwich")
    assert {side for side in (40, 36, 32, 24) if any(f".at.{side}." in name for name in drawn)} == {40, 36, 24}
    assert max(float(g.abs().max()) for g in whole.values()) > 0.01
    task = task_gradients(alone)
    assert "rsconvert.alpha" in task
    ways = itertools.product((False, True), [("1-all", whole), ("2-all", whole), ("2-sandwich", drawn)])
    for way, wanted in [("task", task), *((f"{low_memory}-{way}", wanted) for low_memory, (way, wanted) in ways)]:
        found = load_file(ended.folder / f"{way}.safetensors")
        assert found.keys() == wanted.keys(), "what no forward drew has no gradient"
        for name, gradient in wanted.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-6, msg=f"{way} {name}")


def test_a_run_counts_every_image_once(ended: Ended) -> None:
    assert "Warning" not in ended.shown
    rows = ended.facts[0]["epochs"]
    # 12 images over two processes: an image missed or seen twice gives other percentages.
    hits = [row[key] * 12 / 100 for row in rows for key in row if key.startswith("top")]
    assert hits == pytest.approx([round(n) for n in hits], abs=1e-3)
    with open(ended.folder / "whole" / "summary.csv", newline="", encoding="utf-8") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]


def test_processes_stop_early_together(ended: Ended) -> None:
    facts = ended.facts[1]
    assert len(facts["epochs"]) == 2
    assert facts["stopped"] == "after epoch 2 of 9: no better mean top-1 since epoch 1, with patience 1"


def test_the_death_of_one_process_ends_the_others_and_the_run_goes_on_to_the_bit(
    torchrun: Launch, start: Path, photos: str, ended: Ended, tmp_path: Path
) -> None:
    command = finetune(start, photos, tmp_path, *AVERAGE, *STATES)
    process = torchrun("-m", "rsconvert", *command)
    waited_for(process, lambda: len(list((tmp_path / "state").glob("*.safetensors"))) >= 2)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    os.kill(int(children[1]), signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    again = torchrun("-m", "rsconvert", *command, "--resume")
    shown = again.communicate(timeout=240)
    assert again.returncode == 0, shown
    last, wanted = (load_file(folder / "last.safetensors") for folder in (tmp_path, ended.folder / "whole"))
    assert all(torch.equal(last[name], value) for name, value in wanted.items())


def test_idle_parameters_are_one_line() -> None:
    with (
        pytest.raises(TrainingError, match="some parameters have no part in the loss") as caught,
        _plain_reduction_errors(),
    ):
        raise_from_reducer()
    assert "\n" not in str(caught.value)


def raise_from_reducer() -> None:
    raise RuntimeError("Expected to have finished reduction in the prior iteration before starting a new one.\nMore")


@pytest.mark.parametrize(("world_size", "device"), [(1, "cuda"), (2, "cpu")])
def test_synchronized_statistics_need_several_gpus(net: SwitchableModel, world_size: int, device: str) -> None:
    processes = Processes(0, world_size, torch.device(device))
    with pytest.raises(ConfigError, match="sync_bn is on with"):
        Stepper(net, FinetuneConfig(sync_bn=True), 10, torch.float32, processes)

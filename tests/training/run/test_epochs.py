"""Run: stopped anywhere and resumed, it ends in the same bits; what it refuses to go on from."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rsconvert.checkpoint import read_metadata, temporary
from rsconvert.errors import CheckpointError, ConfigError, TrainingError
from rsconvert.evaluation import Accuracy, Evaluation
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training.finetune import finetune
from rsconvert.training.run.folder import RunFolder

MakeNet = Callable[..., SwitchableModel]
Held = Callable[[Path], tuple[dict[str, Any], dict[str, bytes]]]


def settings(**changes: Any) -> FinetuneConfig:
    usual = {"epochs": 2, "batch_size": 4, "lr": 0.05, "workers": 0, "warmup_epochs": 0.5, "device": "cpu"}
    return FinetuneConfig(**{**usual, **changes})


def pressed_at(net: SwitchableModel, forward: int) -> None:
    """Send Ctrl-C during one forward of the smallest path in train mode, counted from 0."""
    seen: list[int] = []

    def press(path: nn.Module, _: Any) -> None:
        if path.training:
            seen.append(len(seen))
            if seen[-1] == forward:
                signal.raise_signal(signal.SIGINT)

    net.at(net.resolutions[-1]).register_forward_pre_hook(press)


def stopped_and_resumed(
    make: Callable[[], SwitchableModel], photos: str, run: Path, config: FinetuneConfig, at: int
) -> SwitchableModel:
    net = make()
    pressed_at(net, at)
    with pytest.raises(KeyboardInterrupt):
        finetune(net, photos, run, config)
    again = make()
    finetune(again, photos, run, config, resume=True)
    return again


def bits(net: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in net.state_dict().items()}


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "adamw": {"optimizer": "adamw", "clip_grad": 0.5},
    "accumulated": {"grad_accum_steps": 2, "batch_size": 3},
    "averaged": {"ema_decay": 0.9, "mixup": 0.2, "cutmix": 1.0},
    "mixed after a probe": {"start_share": 0.5, "probe_epochs": 2},
    "by view": {"low_memory": True},
    "drawn": {"views": "sandwich"},
    "drawn, accumulated": {"views": "sandwich", "grad_accum_steps": 2, "batch_size": 3, "ema_decay": 0.9},
    "smaller sets": {"train": "bn", "labels": "none"},
    "unlabelled": {"labels": "none"},
    "contiguous": {"channels_last": False, "optimizer": "momentum"},
    "repeatable": {"deterministic": True},
    "private classifiers": {"ema_decay": 0.9},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [0, 3, 7])
def test_a_stopped_run_ends_in_the_same_bits(
    make_net: MakeNet, photos: str, tmp_path: Path, held: Held, kind: str, at: int
) -> None:
    config = settings(**KINDS[kind])
    resolutions = (32, 24, 16) if config.views == "all" else (32, 28, 24, 20, 16)

    def make() -> SwitchableModel:
        private = ("bn", "head") if kind == "private classifiers" else True
        return make_net(resolutions, dropout=0.5, private=private)

    whole = make()
    rows = finetune(whole, photos, tmp_path / "whole", config)
    again = stopped_and_resumed(make, photos, tmp_path / "run", config, at)
    assert bits(again) == bits(whole)
    for name in ("last", "best"):
        assert held(tmp_path / "run" / f"{name}.safetensors") == held(tmp_path / "whole" / f"{name}.safetensors")
    found = finetune(make(), photos, tmp_path / "run", config, resume=True)
    timed = ("images_per_second", "percent_waiting")
    assert [{k: v for k, v in row.items() if k not in timed} for row in found] == [
        {k: v for k, v in row.items() if k not in timed} for row in rows
    ]


def test_states_are_written_by_the_clock_and_the_last_are_kept(
    net: SwitchableModel, photos: str, tmp_path: Path
) -> None:
    finetune(net, photos, tmp_path, settings(save_minutes=1e-9, keep_states=3))
    # One after each of 12 steps, and one after each of 2 epochs.
    assert sorted(file.stem for file in (tmp_path / "state").iterdir()) == ["000000012", "000000013", "000000014"]
    finetune(net, photos, tmp_path, settings(epochs=1), force=True)
    assert [file.stem for file in (tmp_path / "state").iterdir()] == ["000000001"]


def test_every_state_leads_to_the_same_end(make_net: MakeNet, photos: str, tmp_path: Path) -> None:
    config = settings(epochs=1, save_minutes=1e-9, keep_states=9)
    whole = make_net(dropout=0.5)
    finetune(whole, photos, tmp_path, config)
    states = {file: file.read_bytes() for file in (tmp_path / "state").iterdir()}
    assert len(states) == 7
    for file, content in states.items():
        for other in (tmp_path / "state").iterdir():
            other.unlink()
        file.write_bytes(content)
        again = make_net(dropout=0.5)
        finetune(again, photos, tmp_path, config, resume=True)
        assert bits(again) == bits(whole)


def test_without_a_state_a_resumed_run_starts_afresh(make_net: MakeNet, photos: str, tmp_path: Path) -> None:
    whole, resumed = make_net(), make_net()
    rows = finetune(whole, photos, config=settings())
    seen: list[dict[str, Any]] = []
    assert (
        len(finetune(resumed, photos, tmp_path, settings(), resume=True, on_epoch=seen.append))
        == len(rows)
        == len(seen)
    )
    assert bits(resumed) == bits(whole)


def test_a_finished_run_is_resumed_to_its_end(make_net: MakeNet, photos: str, tmp_path: Path) -> None:
    whole, again = make_net(), make_net()
    rows = finetune(whole, photos, tmp_path, settings())
    seen: list[dict[str, Any]] = []
    assert finetune(again, photos, tmp_path, settings(), resume=True, on_epoch=seen.append) == rows
    assert seen == []
    assert bits(again) == bits(whole)


def test_a_run_that_stopped_early_is_the_beginning_of_the_long_one(
    make_net: MakeNet, photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in its third epoch and resumed, or resumed after its end, it ends in the same bits."""

    def unchanging(net: SwitchableModel, *_: Any, **__: Any) -> Evaluation:
        return Evaluation(12, {r: Accuracy(50.0, 90.0) for r in net.resolutions}, None)

    monkeypatch.setattr("rsconvert.training.run.epochs.measure", unchanging)
    whole, config = make_net(), settings(epochs=5, patience=2)
    result = finetune(whole, photos, tmp_path / "whole", config)
    assert (len(result), result.best) == (3, 1)
    assert result.stopped == "after epoch 3 of 5: no better mean top-1 since epoch 1, with patience 2"
    long = finetune(make_net(), photos, config=settings(epochs=5))
    assert long.stopped is None
    assert [(row["loss"], row["lr"]) for row in result] == [(row["loss"], row["lr"]) for row in long[:3]]
    stopped = stopped_and_resumed(make_net, photos, tmp_path / "run", config, 14)
    ended = make_net()
    again = finetune(ended, photos, tmp_path / "run", config, resume=True)
    assert (len(again), again.best, again.stopped) == (3, 1, result.stopped)
    assert bits(stopped) == bits(ended) == bits(whole)


def test_the_best_epoch_is_that_of_the_file(make_net: MakeNet, photos: str, tmp_path: Path) -> None:
    result = finetune(make_net(), photos, tmp_path, settings(epochs=4, lr=0.3))
    told = read_metadata(tmp_path / "best.safetensors").fields["training"]["epoch"]
    assert result.best == told == result.best_row["epoch"]
    # A state of a version that did not keep it.
    folder = RunFolder(tmp_path, resume=True)
    tensors, facts = folder.newest_state()  # type: ignore[misc]
    del facts["progress"]["best_epoch"]
    folder.add_state(facts["progress"]["saves"], tensors, facts)
    assert finetune(make_net(), photos, tmp_path, settings(epochs=4, lr=0.3), resume=True) == result


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"epochs": 3}, "epochs was 2 and is 3"),
        ({"crop_area": (0.5, 1.0)}, r"crop_area was \[0.35, 1.0\] and is \(0.5, 1.0\)"),
        ({"batch_size": 8}, "batch_size was 4 and is 8, .*steps_per_epoch was 6 and is 3"),
    ],
)
def test_other_settings_are_named_and_refused_unless_told(
    make_net: MakeNet, photos: str, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    finetune(make_net(), photos, tmp_path, settings())
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.*") if file.is_file()}
    with pytest.raises(ConfigError, match=rf"^the run to resume differs: {told}.*--force") as caught:
        finetune(make_net(), photos, tmp_path, settings(**changes), resume=True)
    assert "\n" not in str(caught.value)
    assert {file: file.read_bytes() for file in before} == before
    rows = finetune(make_net(), photos, tmp_path, settings(**changes), resume=True, force=True)
    assert len(rows) == changes.get("epochs", 2)


def test_a_run_that_is_forced_on_begins_its_epoch_anew_and_keeps_its_states(
    make_net: MakeNet, photos: str, tmp_path: Path
) -> None:
    net = make_net()
    pressed_at(net, 4)
    with pytest.raises(KeyboardInterrupt):
        finetune(net, photos, tmp_path, settings())
    changed = settings(batch_size=8, epochs=3)
    rows = finetune(make_net(), photos, tmp_path, changed, resume=True, force=True)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert sorted(file.stem for file in (tmp_path / "state").iterdir()) == ["000000003", "000000004"]
    again = make_net()
    assert finetune(again, photos, tmp_path, changed, resume=True) == rows
    assert json.loads((tmp_path / "config.json").read_text())["batch_size"] == 8


def test_other_images_are_named(make_net: MakeNet, photos: str, tmp_path: Path) -> None:
    finetune(make_net(), photos, tmp_path / "run", settings())
    shutil.copytree(photos, tmp_path / "copy")
    for split in ("train", "val"):
        (tmp_path / "copy" / split / "blue").rename(tmp_path / "copy" / split / "zebra")
    with pytest.raises(ConfigError, match=r"data was 24 train .* Give the images that the run started with"):
        finetune(make_net(), str(tmp_path / "copy"), tmp_path / "run", settings(), resume=True)


GONE = 2**22 + 1  # above every process id of Linux


@pytest.mark.skipif(os.name == "nt", reason="Windows can't say whether a process runs")
def test_what_a_killed_write_left_is_removed(make_net: MakeNet, photos: str, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    gone = temporary(Path("last.safetensors"), "part").name.replace(f"-{os.getpid()}", f"-{GONE}")
    others = [tmp_path / gone.replace(f"-{GONE}", f"-{os.getppid()}"), tmp_path / ".a download.part"]
    (tmp_path / gone).mkdir()
    for part in (tmp_path / "state" / gone.replace("last", "000000009"), *others):
        part.write_bytes(b"half")
    finetune(make_net(), photos, tmp_path, settings(epochs=1), resume=True)
    assert sorted(tmp_path.rglob(".*")) == sorted(others)


def test_another_network_is_named(make_net: MakeNet, photos: str, tmp_path: Path) -> None:
    finetune(make_net(), photos, tmp_path, settings())
    other = make_net()
    other.get_parameter("fc.bias").data.add_(1)
    with pytest.raises(ConfigError, match="starting_network was"):
        finetune(other, photos, tmp_path, settings(), resume=True)


@pytest.mark.parametrize("changes", [{"optimizer": "adamw"}, {"train": "bn"}, {"ema_decay": 0.9}])
def test_what_the_state_has_no_place_for_is_refused_even_by_force(
    make_net: MakeNet, photos: str, tmp_path: Path, changes: dict[str, Any]
) -> None:
    finetune(make_net(), photos, tmp_path, settings())
    with pytest.raises(ConfigError, match=f"its state fits the same {next(iter(changes))} alone"):
        finetune(make_net(), photos, tmp_path, settings(**changes), resume=True, force=True)


def test_broken_states_are_refused(make_net: MakeNet, photos: str, tmp_path: Path) -> None:
    finetune(make_net(), photos, tmp_path, settings())
    for file in (tmp_path / "state").iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"no state in .* is intact"):
        finetune(make_net(), photos, tmp_path, settings(), resume=True)


def test_resume_needs_a_folder(net: SwitchableModel, photos: str) -> None:
    with pytest.raises(ConfigError, match="resume is set without an output"):
        finetune(net, photos, config=settings(), resume=True)


def test_a_poisoned_network_is_never_a_state(net: SwitchableModel, photos: str, tmp_path: Path) -> None:
    seen: list[int] = []

    def poison(gradient: Tensor) -> Tensor:
        seen.append(0)
        return gradient * (torch.inf if len(seen) == 4 else 1)

    net.alpha.register_hook(poison)
    with pytest.raises(TrainingError, match="the sum of the weights is"):
        finetune(net, photos, tmp_path, settings(save_minutes=1e-9))
    found = RunFolder(tmp_path, resume=True).newest_state()
    assert found is not None
    assert found[1]["progress"]["batches"] == 3
    assert all(t.isfinite().all() for t in found[0].values() if t.is_floating_point())


def test_the_average_is_what_is_saved(net: SwitchableModel, photos: str, tmp_path: Path) -> None:
    finetune(net, photos, tmp_path, settings(ema_decay=0.9))
    found = RunFolder(tmp_path, resume=True).newest_state()
    assert found is not None
    saved = load_file(tmp_path / "last.safetensors")
    assert all(torch.equal(value, found[0][f"average.{name}"]) for name, value in saved.items())
    assert torch.equal(saved["fc.weight"], net.get_parameter("fc.weight"))
    assert not torch.equal(saved["fc.weight"], found[0]["net.fc.weight"])

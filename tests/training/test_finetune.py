"""finetune: what learns and what stays, the step against a hand-written one, what is left behind, what is refused."""

import csv
import ctypes
import dataclasses
import json
import multiprocessing
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsconvert.checkpoint import load, read_metadata
from rsconvert.data import Augmentation, Samples, normalize, open_train_val, training_loader
from rsconvert.errors import CheckpointError, ConfigError, DataError, NamelessModelWarning, TrainingError
from rsconvert.evaluation import Accuracy, Evaluation
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training.finetune import FinetuneResult, finetune, keep_freed_memory

MakeNet = Callable[..., SwitchableModel]
Held = Callable[[Path], tuple[dict[str, Any], dict[str, bytes]]]


def settings(**changes: Any) -> FinetuneConfig:
    usual = {"epochs": 1, "batch_size": 8, "lr": 0.05, "workers": 0, "warmup_epochs": 0.0, "device": "cpu"}
    return FinetuneConfig(**{**usual, **changes})


def state(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def changed(net: SwitchableModel, before: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}


def children() -> set[int | None]:
    return {process.pid for process in multiprocessing.active_children()}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# What learns


@pytest.mark.parametrize("private", [True, False])
def test_all_changes_everything(make_net: MakeNet, photos: str, private: bool) -> None:
    net = make_net(private=private)
    before = state(net)
    finetune(net, photos, config=settings(epochs=2))
    assert changed(net, before) == set(before)


def test_bn_changes_the_smaller_sets_and_alpha_alone(net: SwitchableModel, photos: str) -> None:
    before, image = state(net), torch.randn(2, 3, 32, 32)
    wanted = net.eval()(image)
    finetune(net.train(), photos, config=settings(epochs=2, train="bn", channels_last=False))
    assert changed(net, before) == {name for name in before if ".at." in name} | {"rsconvert.alpha"}
    assert torch.equal(net.eval()(image), wanted)


def test_head_changes_the_classifier_and_alpha_alone(net: SwitchableModel, photos: str) -> None:
    before = state(net)
    finetune(net, photos, config=settings(epochs=2, train="head"))
    assert changed(net, before) == {"fc.weight", "fc.bias", "rsconvert.alpha"}


def test_private_classifiers_learn_apart(make_net: MakeNet, photos: str) -> None:
    net, image = make_net(private=("bn", "head")), torch.randn(2, 3, 32, 32)
    before, wanted = state(net), net.eval()(image)
    heads = {name for name in before if name.startswith("fc.")}
    finetune(net.train(), photos, config=settings(epochs=2, train="bn", channels_last=False))
    assert changed(net, before) == {name for name in before.keys() - heads if ".at." in name} | {"rsconvert.alpha"}
    assert torch.equal(net.eval()(image), wanted)
    before = state(net)
    finetune(net, photos, config=settings(epochs=1, train="head"))
    assert changed(net, before) == heads | {"rsconvert.alpha"}
    assert len({one.weight.detach().numpy().tobytes() for one in net.fc.sets}) == 3


def test_a_network_learns_at_every_resolution(net: SwitchableModel, photos: str) -> None:
    rows = finetune(net, photos, config=settings(epochs=8, lr=0.1))
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert min(rows[-1][f"top1_{r}"] for r in net.resolutions) > 80


def test_one_resolution_makes_an_ordinary_network(make_net: MakeNet, photos: str) -> None:
    (row,) = finetune(make_net((32,)), photos, config=settings())
    assert (row["distillation"], row["score_32"]) == (0.0, 1.0)
    assert row["top1_32"] == row["top1_ensemble"]


# The step


def hand_written_step(net: SwitchableModel, views: list[Tensor], target: Tensor, lr: float, alpha_lr: float) -> None:
    """Plain gradient descent on the sum of losses, in its pairwise form."""
    logits = [net.at(r).train()(view) for r, view in zip(net.resolutions, views, strict=True)]
    mixed = sum(score * z.detach() for score, z in zip(net.alpha.softmax(0), logits, strict=True))
    family = [mixed.detach(), *logits]
    logs = [z.log_softmax(1) for z in family]
    pairs = [
        F.kl_div(logs[s], logs[t].detach(), reduction="batchmean", log_target=True)
        for s in range(len(logs))
        for t in range(s)
    ]
    loss = sum(F.cross_entropy(z, target) for z in logits) + F.cross_entropy(mixed, target)
    loss = loss + 2 / (len(logits) + 1) * sum(pairs)
    net.zero_grad()
    loss.backward()
    with torch.no_grad():
        for parameter in net.parameters():
            assert parameter.grad is not None
            parameter -= parameter.grad * (alpha_lr if parameter is net.alpha else lr)


def test_a_step_is_the_hand_written_one(make_net: MakeNet, photos: str) -> None:
    net, other = make_net().double(), make_net().double()
    train, val = open_train_val(photos)
    options = {"optimizer": "momentum", "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}
    (row,) = finetune(net, (train, val), config=settings(batch_size=24, alpha_lr=0.3, seed=4, **options))
    area = (0.35, 1.0)
    loader = training_loader(
        train, (32, 24, 16), batch_size=24, seed=4, workers=0, augmentation=Augmentation(crop_area=(area[0], area[1]))
    )
    ((views, target),) = loader
    inputs = [normalize(view, other.source.preprocessing, dtype=torch.float64) for view in views]
    hand_written_step(other, inputs, target, lr=0.05, alpha_lr=0.3)
    assert row["lr"] == 0.05
    for name, tensor in other.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], tensor, rtol=1e-8, atol=1e-10, msg=name)


def test_clipping_bounds_the_step(net: SwitchableModel, photos: str) -> None:
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    options = {"optimizer": "momentum", "momentum": 0.0, "weight_decay": 0.0}
    finetune(net, photos, config=settings(batch_size=24, lr=1.0, alpha_lr=1.0, clip_grad=0.01, **options))
    moved = torch.stack([(p.detach() - before[name]).norm() for name, p in net.named_parameters()]).norm()
    assert moved.item() == pytest.approx(0.01, rel=1e-3)


def test_a_run_that_never_warms_up_starts_at_the_peak_and_the_last_step_is_near_0(
    net: SwitchableModel, photos: str
) -> None:
    rows = finetune(net, photos, config=settings(epochs=3, lr=0.2))
    wanted = [0.2 * (1 + np.cos(np.pi * step / 9)) / 2 for step in (2, 5, 8)]
    assert [row["lr"] for row in rows] == pytest.approx(wanted)


def test_mixed_precision_runs_on_the_cpu(net: SwitchableModel, photos: str, tmp_path: Path) -> None:
    finetune(net, photos, tmp_path, settings(amp="bf16"))
    assert all(tensor.dtype != torch.bfloat16 for tensor in net.state_dict().values())
    assert json.loads((tmp_path / "config.json").read_text())["precision"] == "bfloat16"


def seen_inputs(net: SwitchableModel, resolution: int) -> list[Tensor]:
    """Collect what a path is given in training."""
    inputs: list[Tensor] = []
    net.at(resolution).register_forward_pre_hook(lambda path, args: inputs.append(args[0]) if path.training else None)
    return inputs


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_memory_format_is_that_of_network_and_input(net: SwitchableModel, photos: str, channels_last: bool) -> None:
    inputs = seen_inputs(net, 24)
    finetune(net.to(memory_format=torch.channels_last), photos, config=settings(channels_last=channels_last))
    wanted = torch.channels_last if channels_last else torch.contiguous_format
    assert all(x.is_contiguous(memory_format=wanted) for x in inputs)
    assert net.get_parameter("conv1.weight").is_contiguous(memory_format=wanted)


def test_views_may_have_other_sizes_than_the_resolutions(net: SwitchableModel, photos: str) -> None:
    inputs = [seen_inputs(net, r) for r in net.resolutions]
    finetune(net, photos, config=settings(view_sizes=(20, 20, 18)))
    assert [{x.shape[-1] for x in of_path} for of_path in inputs] == [{20}, {20}, {18}]


def test_the_settings_of_the_views_reach_the_loader(
    net: SwitchableModel, photos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: dict[str, Any] = {}

    def spy(*args: Any, **options: Any) -> Any:
        taken.update(options)
        return training_loader(*args, **options)

    monkeypatch.setattr("rsconvert.training.step.batches.training_loader", spy)
    net.source = replace(net.source, preprocessing=replace(net.source.preprocessing, interpolation="bicubic"))
    wanted = {"crop": "per-view", "flip": "off", "crop_area": (0.5, 0.6), "crop_aspect": (1.0, 1.1)}
    finetune(net, photos, config=settings(**wanted, seed=3))
    assert taken["augmentation"] == Augmentation(**wanted, interpolation="bicubic")
    assert taken["seed"] == 3


# Randomness


def test_one_seed_gives_one_file_whatever_the_workers(
    make_net: MakeNet, photos: str, tmp_path: Path, held: Held
) -> None:
    for name, changes in {"a": {}, "b": {}, "two": {"workers": 2}, "other": {"seed": 1}}.items():
        finetune(make_net(dropout=0.5), photos, tmp_path / name, settings(epochs=2, **changes))
    files = {folder.name: held(folder / "last.safetensors") for folder in tmp_path.iterdir()}
    assert files["a"] == files["b"] == files["two"]
    assert all(files["a"][1][name] != tensor for name, tensor in files["other"][1].items() if "batches" not in name)


def test_every_epoch_draws_anew(net: SwitchableModel, photos: str) -> None:
    inputs = seen_inputs(net, 32)
    finetune(net, photos, config=settings(epochs=2, batch_size=24))
    first, second = (x.flatten(1).sum(1).sort().values for x in inputs)
    assert not torch.isclose(first, second).all()


def test_the_callers_generators_are_left_alone(make_net: MakeNet, photos: str) -> None:
    rows = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
        rows.append(finetune(make_net(dropout=0.5), photos, config=settings())[0]["loss"])
        assert torch.equal(torch.get_rng_state(), before[0])
        assert random.getstate() == before[1]
        assert np.array_equal(np.random.get_state()[1], before[2])
    assert rows[0] == rows[1]


# What a run leaves behind


def test_the_summary_has_a_row_per_epoch(net: SwitchableModel, photos: str, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    rows = finetune(net, photos, tmp_path, settings(epochs=2), on_epoch=seen.append)
    assert seen == list(rows)
    with open(tmp_path / "summary.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == [
        *("epoch", "loss", "classification", "ensemble", "distillation", "lr", "score_32", "score_24", "score_16"),
        *("top1_32", "top5_32", "top1_24", "top5_24", "top1_16", "top5_16", "top1_ensemble", "images_per_second"),
        "percent_waiting",
    ]
    assert [{name: float(text) for name, text in row.items()} for row in table] == list(rows)
    for row in rows:
        assert row["loss"] == pytest.approx(row["classification"] + row["ensemble"] + row["distillation"], abs=1e-5)
        assert sum(row[f"score_{r}"] for r in net.resolutions) == pytest.approx(1, abs=1e-3)


def test_the_files_tell_how_they_came_about(net: SwitchableModel, photos: str, tmp_path: Path) -> None:
    finetune(net, photos, tmp_path, settings(epochs=2, lr=None, crop_area=(0.5, 1.0)))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["lr"] == pytest.approx(0.005 * 8 / 32 / 3)
    assert (config["steps_per_epoch"], config["resolutions"], config["precision"]) == (3, [32, 24, 16], "float32")
    assert (config["crop_area"], config["resolved_device"]) == ([0.5, 1.0], "cpu")
    metadata = read_metadata(tmp_path / "last.safetensors").fields
    assert metadata["class_names"] == ["blue", "green", "red"]
    assert (metadata["training"]["epoch"], metadata["training"]["seed"]) == (2, 0)


def test_a_trained_classifier_is_new_no_more(net: SwitchableModel, photos: str) -> None:
    net.source = replace(net.source, new_classifier=("fc.weight", "fc.bias"))
    finetune(net, photos, config=settings())
    assert net.source.new_classifier == ()


@pytest.mark.parametrize(
    "averaging", [{"ema_decay": 0.9}, {"start_share": 0.5}, {"ema_decay": 0.9, "start_share": 0.5}]
)
def test_the_network_ends_as_the_file_of_the_last_epoch(
    net: SwitchableModel, photos: str, tmp_path: Path, averaging: dict[str, float]
) -> None:
    finetune(net, photos, tmp_path, settings(epochs=2, **averaging))
    kept = load(tmp_path / "last.safetensors", net.extract(net.native))
    assert all(torch.equal(value, kept.state_dict()[name]) for name, value in net.state_dict().items())


def test_best_is_the_epoch_of_the_highest_mean(
    net: SwitchableModel, photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The last epoch is the best one at the largest resolution, the second in the mean.
    tables = iter([(50.0, 50.0, 50.0), (60.0, 60.0, 60.0), (90.0, 40.0, 40.0)])

    def scripted(net: SwitchableModel, *_: Any, **__: Any) -> Evaluation:
        rows = {r: Accuracy(top1, 100.0) for r, top1 in zip(net.resolutions, next(tables), strict=True)}
        return Evaluation(12, rows, None)

    monkeypatch.setattr("rsconvert.training.run.epochs.measure", scripted)
    rows = finetune(net, photos, tmp_path, settings(epochs=3))
    assert "top1_ensemble" not in rows[0]
    epochs = {
        name: read_metadata(tmp_path / f"{name}.safetensors").fields["training"]["epoch"] for name in ("best", "last")
    }
    assert epochs == {"best": 2, "last": 3}


@pytest.mark.parametrize(("best", "ended", "told"), [("mean", 4, "mean top-1 since epoch 2"), ("native", 6, None)])
def test_a_run_stops_when_its_patience_ends(
    net: SwitchableModel,
    photos: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    best: Any,
    ended: int,
    told: str | None,
) -> None:
    """The mean is 50, 60, 60, 57, …, so the second is the best; native it is 50, 60, 60, 61, 62, 50."""
    tables = iter([(50.0,) * 3, (60.0,) * 3, (60.0,) * 3, (61.0, 50.0, 60.0), (62.0,) * 3, (50.0,) * 3])

    def scripted(net: SwitchableModel, *_: Any, **__: Any) -> Evaluation:
        rows = {r: Accuracy(top1, 100.0) for r, top1 in zip(net.resolutions, next(tables), strict=True)}
        return Evaluation(12, rows, None)

    monkeypatch.setattr("rsconvert.training.run.epochs.measure", scripted)
    result = finetune(net, photos, tmp_path, settings(epochs=6, patience=2, best=best))
    assert len(result) == ended
    assert result.stopped == (told and f"after epoch 4 of 6: no better {told}, with patience 2")
    assert result.best == {"mean": 2, "native": 5}[best]
    since = {"mean": [0, 0, 1, 2], "native": [0, 0, 1, 0, 0, 1]}[best]
    assert [row["epochs_since_best"] for row in result] == since
    table = list(csv.DictReader((tmp_path / "summary.csv").read_text().splitlines()))
    assert [int(row["epochs_since_best"]) for row in table] == since


def test_progress_goes_to_stderr(net: SwitchableModel, photos: str, capsys: pytest.CaptureFixture[str]) -> None:
    finetune(net, photos, config=settings(), progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "epoch 1/1" in shown.err
    assert "img" in shown.err
    assert "loss per view " in shown.err.splitlines()[-1]  # which stays below the bar that has gone


def test_a_result_is_a_line_and_a_table(net: SwitchableModel, photos: str) -> None:
    result = finetune(net, photos, config=settings())
    assert repr(result) == f"<FinetuneResult, {result}>"
    assert str(result).startswith("best: epoch 1 of 1, top-1 (%) ")
    shown = result._repr_html_()
    assert shown.count("<tr>") == 2
    assert f"<th>top-1 (%) {net.native}</th>" in shown
    assert f"<td>{result[0]['lr']:.2g}</td>" in shown  # a small rate is no 0.00


def test_silence_is_the_default(net: SwitchableModel, photos: str, capsys: pytest.CaptureFixture[str]) -> None:
    finetune(net, photos, config=settings())
    assert capsys.readouterr() == ("", "")


# What goes wrong


def test_a_run_is_refused_in_the_folder_of_another(net: SwitchableModel, photos: str, tmp_path: Path) -> None:
    finetune(net, photos, tmp_path, settings())
    before, weights = contents(tmp_path), state(net)
    with pytest.raises(CheckpointError, match="or replace the run by --force"):
        finetune(net, photos, tmp_path, settings(seed=1))
    assert contents(tmp_path) == before
    assert changed(net, weights) == set()
    finetune(net, photos, tmp_path, settings(seed=1), force=True)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 1
    assert len((tmp_path / "summary.csv").read_text().splitlines()) == 2


def test_a_forced_run_that_fails_loses_nothing_of_the_earlier_one(
    make_net: MakeNet, photos: str, tmp_path: Path
) -> None:
    run, broken = tmp_path / "run", tmp_path / "broken"
    finetune(make_net(), photos, run, settings())
    before = contents(run)
    shutil.copytree(photos, broken)
    (broken / "train" / "green" / "3.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"3\.png"):
        finetune(make_net(), str(broken), run, settings(), force=True)
    with pytest.raises(ConfigError, match="device"):
        finetune(make_net(), photos, run, settings(device="banana"), force=True)
    with pytest.raises(TrainingError):
        finetune(make_net(), photos, run, settings(lr=1e30), force=True)
    assert contents(run) == before


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_image_is_named(net: SwitchableModel, photos: str, tmp_path: Path, workers: int) -> None:
    shutil.copytree(photos, tmp_path / "copy")
    (tmp_path / "copy" / "val" / "red" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"^[^\n]*val.red.1\.png[^\n]*$"):
        finetune(net, str(tmp_path / "copy"), tmp_path / "run", settings(workers=workers))
    assert contents(tmp_path / "run") == {}


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_epoch(
    net: SwitchableModel, photos: str, tmp_path: Path
) -> None:
    def poison(row: dict[str, Any]) -> None:
        net.get_parameter("bn1.at.24.weight").data.fill_(torch.nan)

    parts = r"\(classification, ensemble, distillation\)"
    told = rf"^the loss {parts} is nan at epoch 2, step 4, from the view of 24 on; .*is 0\.05"
    with pytest.raises(TrainingError, match=told) as caught:
        finetune(net, photos, tmp_path, settings(epochs=3), on_epoch=poison)
    assert "\n" not in str(caught.value)
    assert read_metadata(tmp_path / "last.safetensors").fields["training"]["epoch"] == 1
    assert len((tmp_path / "summary.csv").read_text().splitlines()) == 2


def test_weights_that_ran_away_in_the_last_step_are_not_kept(net: SwitchableModel, photos: str, tmp_path: Path) -> None:
    net.alpha.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(TrainingError, match=r"the sum of the weights is (inf|nan|-inf) at epoch 1"):
        finetune(net, photos, tmp_path, settings(batch_size=24))
    assert contents(tmp_path) == {}


def test_an_interrupt_leaves_the_last_full_epoch(net: SwitchableModel, photos: str, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    after_one: dict[str, Tensor] = {}

    def note(row: dict[str, Any]) -> None:
        after_one.update(state(net))
        net.at(24).conv2.register_forward_pre_hook(interrupt)

    with pytest.raises(KeyboardInterrupt):
        finetune(net, photos, tmp_path, settings(epochs=2), on_epoch=note)
    torch.manual_seed(0)
    plain = net.extract(32)
    plain.conv2._forward_pre_hooks.clear()
    kept = load(tmp_path / "last.safetensors", model=plain).state_dict()
    assert all(torch.equal(tensor, after_one[name]) for name, tensor in kept.items())


def test_ctrl_c_takes_effect_after_the_step(net: SwitchableModel, photos: str) -> None:
    others, steps = children(), []

    def press(*_: object) -> None:
        steps.append(len(steps))
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    net.at(16).register_forward_pre_hook(press)
    before = net.get_parameter("conv1.weight").detach().clone()
    with pytest.raises(KeyboardInterrupt):
        finetune(net, photos, config=settings(epochs=2, workers=1))
    assert steps == [0]
    assert not torch.equal(net.get_parameter("conv1.weight"), before), "the step is done"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert children() <= others


def test_the_workers_of_a_run_are_started_once(net: SwitchableModel, photos: str) -> None:
    others, seen = children(), []
    finetune(net, Path(photos), config=settings(epochs=3, workers=1), on_epoch=lambda _: seen.append(children()))
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0] - others) == 2, "one for training, one for evaluation"
    assert children() <= others


def test_maps_of_one_value_are_refused_in_train_mode(make_net: MakeNet, photos: str) -> None:
    with pytest.raises(
        TrainingError, match=r"resolution 7 does not train .*\(1, 3, 7, 7\).*Raise batch_size"
    ) as caught:
        finetune(make_net((32, 7)), photos, config=settings(batch_size=1))
    assert "\n" not in str(caught.value)


def test_out_of_memory_is_one_line(net: SwitchableModel, photos: str) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to")

    net.at(24).conv2.register_forward_pre_hook(full)
    with pytest.raises(TrainingError, match=r"^memory ran out.*Lower batch_size \(it is 8\) or workers \(0\)\.$"):
        finetune(net, photos, config=settings())


def test_splits_of_other_classes_are_refused(net: SwitchableModel, photos: str, tmp_path: Path) -> None:
    train, _val = open_train_val(photos)
    other = Samples([], "other", ("a", "b", "c"))
    with pytest.raises(DataError, match="the val set is empty"):
        finetune(net, (train, other), tmp_path / "run", settings())
    other._source = [(b"", 0)]
    with pytest.raises(DataError, match="train has the classes blue, green, red, val a, b, c"):
        finetune(net, (train, other), tmp_path / "run", settings())
    shutil.copytree(photos, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "train" / "red")
    with pytest.raises(DataError, match="other classes"):
        finetune(net, str(tmp_path / "copy"), tmp_path / "run", settings())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"num_classes": 10}, "the data has 3 classes, the classifier 10 outputs"),
        ({"class_names": ("blue", "green", "grey")}, "'red' where the network was trained on 'grey'"),
        ({"class_names": ("green", "blue", "red")}, "'blue' where the network was trained on 'green'"),
    ],
)
def test_classes_that_do_not_fit_the_network_are_refused(
    net: SwitchableModel, photos: str, tmp_path: Path, facts: dict[str, Any], expected: str
) -> None:
    net.source = replace(net.source, **facts)
    with pytest.raises(DataError, match=expected):
        finetune(net, photos, tmp_path / "run", settings())
    assert not (tmp_path / "run").exists()


def test_a_target_beyond_the_outputs_is_refused(make_net: MakeNet, photos: str) -> None:
    with pytest.raises(DataError, match="a target is 2; the network has 2 outputs"):
        finetune(make_net(classes=2), photos, config=settings(batch_size=24))


@pytest.mark.parametrize(
    ("changes", "error", "expected"),
    [
        ({"view_sizes": (32, 32)}, ConfigError, "view_sizes has 2 numbers; 3 are needed"),
        ({"class_weights": (1, 2)}, DataError, "class_weights has 2 numbers; 3"),
        ({"batch_size": 25}, DataError, "fewer than one batch of 25"),
        ({"amp": "fp16"}, ConfigError, "amp is fp16 on the CPU"),
        ({"device": "banana"}, ConfigError, "device is 'banana'"),
    ],
)
def test_a_setting_that_does_not_fit_writes_nothing(
    net: SwitchableModel, photos: str, tmp_path: Path, changes: dict[str, Any], error: type[Exception], expected: str
) -> None:
    net.source = replace(net.source, num_classes=3)
    with pytest.raises(error, match=expected) as caught:
        finetune(net, photos, tmp_path / "run", settings(**changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_half_precision_weights_do_not_learn(net: SwitchableModel, photos: str) -> None:
    with pytest.raises(ConfigError, match="weights are float16; float32 or float64 learns"):
        finetune(net.half(), photos, config=settings())


def test_a_network_without_a_name_is_told_of_once_before_the_work(
    make_net: MakeNet, photos: str, tmp_path: Path
) -> None:
    with pytest.warns(NamelessModelWarning, match=r"its file will need the plain model: rsconvert\.load") as caught:
        finetune(make_net(), photos, tmp_path / "run", settings(epochs=2))
    assert [warning.filename for warning in caught if warning.category is NamelessModelWarning] == [__file__]
    with pytest.warns(NamelessModelWarning), pytest.raises(DataError):
        finetune(make_net(), tmp_path / "nowhere", tmp_path / "other", settings())
    finetune(make_net(), photos, config=settings())  # no file, no warning


ROWS = tuple({"epoch": epoch, "top1_32": 50.0} for epoch in (1, 2, 3))


def test_it_is_the_sequence_of_its_rows() -> None:
    result = FinetuneResult(ROWS, 2)
    assert isinstance(result, Sequence)
    assert (len(result), list(result), result[0], result[-1], result[1:]) == (3, [*ROWS], ROWS[0], ROWS[2], ROWS[1:])
    (row,) = FinetuneResult(ROWS[:1], 1)
    assert row == ROWS[0]


def test_the_best_row_is_that_of_its_epoch() -> None:
    assert FinetuneResult(ROWS, 2).best_row is ROWS[1]


def test_it_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FinetuneResult(ROWS, 2).best = 1


CODE = """
import resource
from rsconvert.training.finetune import keep_freed_memory
import torch

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(2**22)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = faults()
told = keep_freed_memory()
faults()
print(told, first, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_used_again() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    told, before, after = done.stdout.split()
    if told == "True":
        assert int(after) < int(before) / 10


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert keep_freed_memory() is False

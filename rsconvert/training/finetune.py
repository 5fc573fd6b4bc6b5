"""The loop: epochs of S-view steps, each followed by an evaluation at every resolution."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from rsconvert.data import Samples, ViewLoader, normalize, open_train_val, training_loader
from rsconvert.errors import ConfigError, TrainingError
from rsconvert.evaluation import Evaluation, check_classes, evaluate
from rsconvert.surgery import SwitchableModel
from rsconvert.training.config import FinetuneConfig
from rsconvert.training.mred import MREDLoss
from rsconvert.training.objective import Objective
from rsconvert.training.optimizer import create_optimizer, create_schedule
from rsconvert.training.run_folder import RunFolder

__all__ = ["finetune"]

Row = dict[str, Any]


def finetune(
    net: SwitchableModel,
    data: str | tuple[Samples, Samples],
    output: str | Path | None = None,
    config: FinetuneConfig | None = None,
    *,
    force: bool = False,
    progress: bool = False,
    on_epoch: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Train all resolutions of a network together by multi-resolution ensemble distillation (RS-Nets, Sec. 3).

    The network is trained in place. Each step takes one crop of every image, resizes it to S views, runs path i on view i and
    sums the losses. The network's device, memory format and ``requires_grad`` flags are left as training needs them.

    Args:
        data: a folder with ``train/`` and ``val/``, a timm data-set string, or the two opened splits.
        output: the run folder; None keeps nothing but the network.
        force: let ``output`` replace an earlier run.
        on_epoch: is called with each row.
    Returns:
        A row per epoch, as in ``summary.csv``: loss parts, learning rate, importance scores, top-1 and top-5 in percent, images/s.
    Raises:
        ConfigError: a setting does not fit the network or the device.
        DataError: the classes do not fit the network, or an image can't be read.
        TrainingError: the loss is not finite.
        CheckpointError: the run folder holds a run, or can't be written.
    """
    config = config or FinetuneConfig()
    train, val = open_train_val(data, root=config.data_root) if isinstance(data, str) else data
    check_classes(net, train)
    run = _Run(net, train, val, config, progress)
    folder = None if output is None else RunFolder(output, force=force)
    if folder is not None:
        folder.write_config(config, run.facts())
    rows = []
    with torch.random.fork_rng():  # dropout draws from the global generator, which is the caller's
        torch.manual_seed(config.seed)
        for epoch in range(config.epochs):
            row, result = run.epoch(epoch)
            rows.append(row)
            if folder is not None:
                folder.add_epoch(net, row, result.mean_top1)
            if on_epoch is not None:
                on_epoch(row)
    return rows


class _Run:
    """What lives as long as one run: loader, optimizer, schedule, scaler."""

    def __init__(self, net: SwitchableModel, train: Samples, val: Samples, config: FinetuneConfig, progress: bool) -> None:
        self.net, self.val, self.config, self.progress = net, val, config, progress
        self.device = _device(config)
        self.amp = _precision(config, self.device)
        if config.channels_last:
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        net.to(self.device)
        self.objective = Objective(net, config, self.amp)
        self.loader = _loader(net, train, config, self.device)
        self.optimizer = create_optimizer(net, config)
        self.schedule = create_schedule(self.optimizer, config, len(self.loader))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp is torch.float16)
        self.steps = 0
        net.source = replace(net.source, class_names=train.classes)

    def facts(self) -> dict[str, Any]:
        """Return what the settings amount to."""
        return {
            "resolutions": self.net.resolutions,
            "peak_lr": self.config.peak_lr(len(self.net.resolutions)),
            "precision": str(self.amp or torch.float32).removeprefix("torch."),
            "steps_per_epoch": len(self.loader),
            "resolved_device": str(self.device),
        }

    def epoch(self, epoch: int) -> tuple[Row, Evaluation]:
        """Train one pass, evaluate, and note on the network how it came about."""
        started = time.perf_counter()
        sums = self._train(epoch)
        images = len(self.loader) * self.config.batch_size
        speed = images / (time.perf_counter() - started)
        workers, batch = self.config.workers, max(64, self.config.batch_size)
        result = evaluate(self.net, self.val, batch_size=batch, workers=workers, amp=self.amp, progress=self.progress)
        row = self._row(epoch, sums / len(self.loader), result, speed)
        self.net.source = replace(self.net.source, new_classifier=(), training=_record(self.config, self.facts(), row))
        return row, result

    def _train(self, epoch: int) -> Tensor:
        """Return the sums of (total, classification, ensemble, distillation) over the steps, (4,)."""
        self.objective.train()
        self.loader.set_epoch(epoch)
        sums = torch.zeros(4, dtype=torch.float64)
        bar = tqdm(
            total=len(self.loader) * self.config.batch_size,
            desc=f"epoch {epoch + 1}/{self.config.epochs}",
            unit="img",
            disable=not self.progress,
            leave=False,
        )
        with bar:
            for views, target in self.loader:
                loss = self._step(views, target)
                sums += self._finite(loss, epoch)
                bar.update(len(target))
                bar.set_postfix(loss=f"{loss.total.item():.3f}", refresh=False)
        return sums

    def _step(self, views: list[Tensor], target: Tensor) -> MREDLoss:
        preprocessing = self.net.source.preprocessing
        inputs = [normalize(view.to(self.device, non_blocking=True), preprocessing) for view in views]
        loss: MREDLoss = self.objective(inputs, target.to(self.device, non_blocking=True))
        self.schedule.step_update(self.steps)
        self.optimizer.zero_grad()
        self.scaler.scale(loss.total).backward()
        if self.config.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.objective.parameters(), self.config.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.steps += 1
        return loss

    def _finite(self, loss: MREDLoss, epoch: int) -> Tensor:
        parts = torch.stack([part.detach() for part in loss]).double().cpu()
        if not math.isfinite(parts[0]):
            raise TrainingError(
                f"the loss is {parts[0]:.0f} at epoch {epoch + 1}, step {self.steps}; a finite loss is needed. "
                f"Lower the learning rate (it is {self.config.peak_lr(len(self.net.resolutions)):g}), or set amp to off. "
                "What the last full epoch wrote is intact."
            )
        return parts

    def _row(self, epoch: int, losses: Tensor, result: Evaluation, speed: float) -> Row:
        names = ("loss", "classification", "ensemble", "distillation")
        row: Row = {"epoch": epoch + 1, **{n: round(v, 6) for n, v in zip(names, losses.tolist(), strict=True)}}
        row["lr"] = self.optimizer.param_groups[0]["lr"]
        row |= {f"score_{r}": round(s, 4) for r, s in zip(self.net.resolutions, self.net.alpha.softmax(0).tolist(), strict=True)}
        for r, accuracy in result.resolutions.items():
            row |= {f"top1_{r}": round(accuracy.top1, 3), f"top5_{r}": round(accuracy.top5, 3)}
        if result.ensemble is not None:
            row |= {"top1_ensemble": round(result.ensemble.top1, 3)}
        return {**row, "images_per_second": round(speed, 1)}


def _record(config: FinetuneConfig, facts: Mapping[str, Any], row: Row) -> dict[str, Any]:
    """Return what the checkpoint tells of its training."""
    kept = ("epochs", "batch_size", "alpha_lr", "optimizer", "weight_decay", "distill", "train", "crop_area", "seed")
    return {**{name: getattr(config, name) for name in kept}, "lr": facts["peak_lr"], "epoch": row["epoch"]}


def _loader(net: SwitchableModel, train: Samples, config: FinetuneConfig, device: torch.device) -> ViewLoader:
    sizes = config.view_sizes or net.resolutions
    if len(sizes) != len(net.resolutions):
        raise ConfigError(f"view_sizes has {len(sizes)} numbers; {len(net.resolutions)} are needed, one per resolution. Correct it.")
    return training_loader(
        train,
        sizes,
        batch_size=config.batch_size,
        seed=config.seed,
        workers=config.workers,
        crop_area=(config.crop_area[0], config.crop_area[-1]),
        crop_aspect=(config.crop_aspect[0], config.crop_aspect[-1]),
        crop=config.crop,
        flip=config.flip,
        interpolation=net.source.preprocessing.interpolation,
        pin_memory=device.type == "cuda",
    )


def _device(config: FinetuneConfig) -> torch.device:
    if config.device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=config.device).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device is {config.device!r}, which can't be used ({str(error).splitlines()[0]}); try cpu or cuda.") from error


def _precision(config: FinetuneConfig, device: torch.device) -> torch.dtype | None:
    if config.amp is None:
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else None
    if config.amp == "fp16" and device.type == "cpu":
        raise ConfigError("amp is fp16 on the CPU; bf16 or off is accepted there. Change it.")
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}[config.amp]

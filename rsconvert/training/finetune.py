"""The loop: epochs of S-view steps, each followed by an evaluation at every resolution."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from rsconvert.data import Samples, ViewLoader, normalize, open_train_val, postponed_interrupts, training_loader
from rsconvert.errors import ConfigError, DataError, TrainingError
from rsconvert.evaluation import (
    Evaluation,
    check_classes,
    choose_device,
    choose_precision,
    measure,
    plain_memory_errors,
    validation_loader,
)
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
    data: str | Path | tuple[Samples, Samples],
    output: str | Path | None = None,
    config: FinetuneConfig | None = None,
    *,
    force: bool = False,
    progress: bool = False,
    on_epoch: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Train all resolutions of a network together by multi-resolution ensemble distillation (RS-Nets, Sec. 3).

    The network is trained in place. Each step takes one crop of every image, resizes it to S views, runs path i on
    view i and sums the losses. The network's mode, device, memory format and ``requires_grad`` flags are left as
    training needs them; torch's global generator is left alone. Ctrl-C takes effect after the step in progress.

    Args:
        data: a folder with ``train/`` and ``val/``, a timm data-set string, or the two opened splits.
        output: the run folder; None keeps nothing but the network.
        force: let ``output`` replace an earlier run, which it does once the first epoch is done.
        progress: show a bar on stderr.
        on_epoch: is called with each row.
    Returns:
        A row per epoch, as in ``summary.csv``: loss parts, learning rate, importance scores, top-1 and top-5 in
        percent, images/s.
    Raises:
        ConfigError: a setting does not fit the network or the device.
        DataError: the classes do not fit the network, or an image can't be read.
        TrainingError: the loss or a weight is not finite; the network fails in train mode; memory ran out.
        CheckpointError: the run folder holds a run, or can't be written.
    """
    config = config or FinetuneConfig()
    train, val = open_train_val(str(data), root=config.data_root) if isinstance(data, str | Path) else data
    _check_data(net, train, val)
    folder = None if output is None else RunFolder(output, force=force)
    with (
        plain_memory_errors(config.batch_size, config.workers),
        postponed_interrupts() as check,
        closing(_Run(net, train, val, config, progress, check)) as run,
        _seeded(config.seed, run.device),
    ):
        if folder is not None:
            folder.start(config, run.facts())
        return _all_epochs(run, folder, on_epoch)


def _all_epochs(run: "_Run", folder: RunFolder | None, on_epoch: Callable[[Row], None] | None) -> list[Row]:
    rows = []
    for epoch in range(run.config.epochs):
        row, result = run.epoch(epoch)
        rows.append(row)
        if folder is not None:
            folder.add_epoch(run.net, row, result.mean_top1)
        if on_epoch is not None:
            on_epoch(row)
    return rows


class _Run:
    """What lives as long as one run: loaders, optimizer, schedule, scaler."""

    def __init__(
        self,
        net: SwitchableModel,
        train: Samples,
        val: Samples,
        config: FinetuneConfig,
        progress: bool,
        check: Callable[[], None],
    ) -> None:
        self.net, self.config, self.progress, self.check = net, config, progress, check
        self.device = choose_device(config.device)
        self.amp = choose_precision(config.amp, self.device)
        self.dtype = _dtype(net)
        self.layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.loader = _loader(net, train, config, self.device)
        net.to(device=self.device, memory_format=self.layout)  # type: ignore[call-overload]
        self.val_loader = validation_loader(net, val, batch_size=max(64, config.batch_size), workers=config.workers)
        self.objective = Objective(net, config, self.amp)
        self.optimizer = create_optimizer(net, config)
        self.schedule = create_schedule(self.optimizer, config, len(self.loader))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp is torch.float16)
        self.steps = 0
        net.source = replace(net.source, class_names=train.classes)

    def close(self) -> None:
        """End the worker processes."""
        self.loader.close()
        self.val_loader.close()

    def facts(self) -> dict[str, Any]:
        """Return what the settings amount to."""
        return {
            "resolutions": self.net.resolutions,
            "peak_lr": self.config.peak_lr(len(self.net.resolutions)),
            "precision": str(self.amp or self.dtype).removeprefix("torch."),
            "steps_per_epoch": len(self.loader),
            "resolved_device": str(self.device),
        }

    def epoch(self, epoch: int) -> tuple[Row, Evaluation]:
        """Train one pass, evaluate, and note on the network how it came about."""
        started = time.perf_counter()
        losses = self._train(epoch) / len(self.loader)
        speed = self._images() / (time.perf_counter() - started)
        result = measure(self.net, self.val_loader, amp=self.amp, progress=self.progress, check=self.check)
        row = self._row(epoch, losses, result, speed)
        self.net.source = replace(self.net.source, new_classifier=(), training=_record(self.config, self.facts(), row))
        return row, result

    def _images(self) -> int:
        """Return how many images an epoch takes: full batches only."""
        return len(self.loader) * self.config.batch_size

    def _train(self, epoch: int) -> Tensor:
        """Return the sums of (total, classification, ensemble, distillation) over the steps, (4,)."""
        self.objective.train()
        self.loader.set_epoch(epoch)
        sums = torch.zeros(4, dtype=torch.float64)
        title, hidden = f"epoch {epoch + 1}/{self.config.epochs}", not self.progress
        with tqdm(total=self._images(), desc=title, unit="img", disable=hidden, leave=False) as bar:
            for views, target in self.loader:
                parts = torch.stack([part.detach() for part in self._step(views, target)]).double().cpu()
                self._check_finite("the loss", parts[0], epoch)
                sums += parts
                bar.update(len(target))
                bar.set_postfix(loss=f"{parts[0]:.3f}", refresh=False)
                self.check()
        # A last step that ran away leaves no loss behind to tell.
        weights = torch.stack([parameter.detach().double().sum() for parameter in self.net.parameters()])
        self._check_finite("the sum of the weights", weights.sum(), epoch)
        return sums

    def _step(self, views: list[Tensor], target: Tensor) -> MREDLoss:
        inputs = [self._prepared(view) for view in views]
        loss: MREDLoss = self.objective(inputs, target.to(self.device, non_blocking=True))
        self.schedule.step_update(self.steps)
        self.optimizer.zero_grad()
        torch.autograd.backward(self.scaler.scale(loss.total))
        if self.config.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.objective.parameters(), self.config.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.steps += 1
        return loss

    def _prepared(self, view: Tensor) -> Tensor:
        view = view.to(self.device, non_blocking=True)
        return normalize(view, self.net.source.preprocessing, dtype=self.dtype, memory_format=self.layout)

    def _check_finite(self, what: str, value: Tensor, epoch: int) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"{what} is {value:.0f} at epoch {epoch + 1}, step {self.steps}; a finite number is needed. "
                f"Lower the learning rate (it is {self.config.peak_lr(len(self.net.resolutions)):g}), or set amp to "
                "off. What the last full epoch wrote is intact."
            )

    def _row(self, epoch: int, losses: Tensor, result: Evaluation, speed: float) -> Row:
        names = ("loss", "classification", "ensemble", "distillation")
        row: Row = {"epoch": epoch + 1, **{n: round(v, 6) for n, v in zip(names, losses.tolist(), strict=True)}}
        row["lr"] = self.optimizer.param_groups[0]["lr"]
        scores = self.net.alpha.detach().softmax(0).tolist()
        row |= {f"score_{r}": round(score, 4) for r, score in zip(self.net.resolutions, scores, strict=True)}
        for r, accuracy in result.resolutions.items():
            row |= {f"top1_{r}": round(accuracy.top1, 3), f"top5_{r}": round(accuracy.top5, 3)}
        if result.ensemble is not None:
            row["top1_ensemble"] = round(result.ensemble.top1, 3)
        return {**row, "images_per_second": round(speed, 1)}


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators that dropout draws from, and give the caller's back."""
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def _check_data(net: SwitchableModel, train: Samples, val: Samples) -> None:
    check_classes(net, train)
    if len(val) == 0:
        raise DataError("the val set is empty; each epoch ends with an evaluation on it. Add images.")
    if train.classes != val.classes:
        raise DataError(
            f"train has the classes {_listed(train.classes)}, val {_listed(val.classes)}; both need the same ones. "
            "Open the splits of one data set."
        )


def _listed(classes: tuple[str, ...] | None) -> str:
    return "without names" if classes is None else ", ".join(classes[:5]) + (", …" if len(classes) > 5 else "")


def _dtype(net: SwitchableModel) -> torch.dtype:
    dtype = next(p.dtype for p in net.parameters() if p.is_floating_point())
    if dtype not in (torch.float32, torch.float64):
        raise ConfigError(
            f"the network's weights are {str(dtype).removeprefix('torch.')}; float32 or float64 learns. "
            "Call net.float() before, and choose half precision by amp."
        )
    return dtype


def _record(config: FinetuneConfig, facts: Mapping[str, Any], row: Row) -> dict[str, Any]:
    """Return what the checkpoint tells of its training."""
    kept = ("epochs", "batch_size", "alpha_lr", "optimizer", "weight_decay", "distill", "train", "crop_area", "seed")
    return {**{name: getattr(config, name) for name in kept}, "lr": facts["peak_lr"], "epoch": row["epoch"]}


def _loader(net: SwitchableModel, train: Samples, config: FinetuneConfig, device: torch.device) -> ViewLoader:
    sizes = config.view_sizes or net.resolutions
    if len(sizes) != len(net.resolutions):
        raise ConfigError(
            f"view_sizes has {len(sizes)} numbers; {len(net.resolutions)} are needed, one per resolution. Correct it."
        )
    return training_loader(
        train,
        sizes,
        batch_size=config.batch_size,
        seed=config.seed,
        workers=config.workers,
        crop_area=(config.crop_area[0], config.crop_area[1]),
        crop_aspect=(config.crop_aspect[0], config.crop_aspect[1]),
        crop=config.crop,
        flip=config.flip,
        interpolation=net.source.preprocessing.interpolation,
        pin_memory=device.type == "cuda",
    )

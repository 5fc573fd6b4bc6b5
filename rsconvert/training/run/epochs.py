"""Run: one finetuning from its first batch, or from where it stopped, to its last epoch."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any, NoReturn

import torch
from torch import Tensor
from tqdm.auto import tqdm

from rsconvert.checkpoint import digest, fill
from rsconvert.data import Interrupts, Samples, Stream
from rsconvert.errors import CheckpointError, ConfigError, DataError, TrainingError
from rsconvert.evaluation import Evaluation, Processes, choose_precision, float_dtype, measure, validation_loader
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training.linear_probe import fit_classifier_first
from rsconvert.training.run.folder import RunFolder
from rsconvert.training.run.state import check_facts, check_same_run, collect_state, data_identity, restore_state
from rsconvert.training.run.summary import Board, Progress, Row, epoch_row, note_training
from rsconvert.training.step import Feed, Stepper, fill_defaults, learning_parameters

__all__ = ["Run"]


class Run:
    """What lives as long as one run: its feed, stepper, folder and progress.

    Args:
        outputs: the network's output for each class of the data; None if these are the same.
        visible: show a bar on stderr.
        planned: whether it is not to run: the network keeps its classifier.
    Raises:
        ConfigError, DataError: a setting does not fit the network or the data.
    """

    def __init__(
        self,
        net: SwitchableModel,
        samples: tuple[Samples, Samples],
        config: FinetuneConfig,
        processes: Processes,
        folder: RunFolder | None,
        interrupts: Interrupts,
        *,
        outputs: Sequence[int] | None = None,
        visible: bool = False,
        planned: bool = False,
    ) -> None:
        if isinstance(samples[0], Stream) and config.probe_epochs is None:
            config = replace(config, probe_epochs=0)  # an epoch of a stream may have no end
        config = fill_defaults(net, config, processes=processes.world_size)
        self.net, self.config, self.processes, self.folder = net, config, processes, folder
        self.interrupts, self.outputs, self.visible = interrupts, outputs, visible and processes.leads
        self.done, self._saved = Progress(), time.monotonic()
        self.amp = choose_precision(config.amp, processes.device)
        self.identity = {**data_identity(net, samples, outputs), "starting_network": digest(net.state_dict())}
        if len(set(processes.gather(self.identity["starting_network"]))) > 1:
            raise ConfigError(
                "the processes start from different networks; one is needed. Give all the same checkpoint."
            )
        if len(set(processes.gather((self.identity["data"], self.identity["image_files"])))) > 1:
            raise DataError("the processes see different images; all need the same. Share the folder.")
        self.val_images = len(samples[1])
        self.feed = Feed(net, samples[0], config, processes, classes=None if outputs is None else len(outputs))
        net.to(device=processes.device, memory_format=self.feed.layout)  # type: ignore[call-overload]
        self.val_loader = validation_loader(
            net,
            samples[1],
            batch_size=max(64, config.batch_size),
            workers=config.workers,
            rank=processes.rank,
            world_size=processes.world_size,
            resize=config.resize,
        )
        if not planned:
            self._fit_classifier(samples[0])
        self.stepper = Stepper(net, config, len(self.feed), self.amp, processes, outputs)
        if self.visible and self.stepper.quantized is not None and not planned:
            tqdm.write(str(self.stepper.quantized), file=sys.stderr)
        self.board: Board | None = None
        # With a class map the outputs keep the names that they had.
        self.class_names = samples[0].classes if outputs is None else net.source.class_names

    def _fit_classifier(self, train: Samples) -> None:
        """Fit the classifier first, if asked; a resumed run does so again, for it starts from the same network."""
        config, processes = self.config, self.processes
        if not config.probe_epochs:
            return
        fit_classifier_first(
            self.net,
            train,
            config.probe_epochs,
            outputs=self.outputs,
            seed=config.seed,
            workers=config.workers,
            device=processes.device,
            amp=config.amp,
            progress=self.visible,
        )
        if processes.world_size > 1:  # a GPU need not give all of them the same bits
            for tensor in learning_parameters(self.net, "head", alpha=False):
                tensor.data.copy_(processes.total(tensor.data) / processes.world_size)

    def close(self) -> None:
        """End the worker processes and the curves."""
        with ExitStack() as ends:  # from the last one to the first, each whatever another raises
            if self.board is not None:
                ends.callback(self.board.close)
            if self.folder is not None:
                ends.callback(self.folder.release)
            ends.callback(self.stepper.close)
            ends.callback(self.val_loader.close)
            ends.callback(self.feed.close)

    def facts(self) -> dict[str, Any]:
        """Return what the settings amount to."""
        dtype = float_dtype(self.net) if self.amp is torch.float32 else self.amp
        return {
            "resolutions": self.net.resolutions,
            "precision": str(dtype).removeprefix("torch."),
            "steps_per_epoch": self.stepper.steps_per_epoch,
            "processes": self.processes.world_size,
            "resolved_device": self.processes.device.type,
        }

    @property
    def stopped(self) -> str | None:
        """Why the run ends before its last epoch, in words; None if it goes on, or has come to its end."""
        done, config = self.done, self.config
        if config.patience is None or done.since_best < config.patience or done.epoch == config.epochs:
            return None
        title = self.net.source.task.metric.title
        what = f"mean {title}" if config.best == "mean" else f"{title} of {self.net.native}"
        where = f"after epoch {done.epoch} of {config.epochs}"
        return f"{where}: no better {what} since epoch {done.best_epoch}, with patience {config.patience}"

    def begin(self, *, resume: bool, force: bool) -> None:
        """Go on from the newest state of the folder, if asked and if there is one; open what the run writes.

        Raises:
            ConfigError: the run was made with other settings, or on another network, and ``force`` is not set.
            CheckpointError: there are states, but none is intact, or the processes found different ones; the folder
                can't be written.
        """
        if resume:
            if self.folder is None:
                raise ConfigError("resume is set without an output; the folder of the run is needed.")
            if self.processes.leads:
                self.folder.hold()
            self._resume(self.folder, force)
        if self.folder is not None and self.processes.leads:
            self.folder.start({**asdict(self.config), **self.facts()}, fresh=not self.done.started)
        if self.config.log_dir is not None and self.processes.leads:
            self.board = Board(self.config.log_dir, self._steps() + 1)

    def epoch(self) -> Row:
        """Train what is left of an epoch, evaluate, record on the network how it was trained, and write it."""
        self._train()
        self.stepper.average_statistics()
        self.stepper.mix()
        result = self._evaluate()
        row = epoch_row(self.done, self.stepper.judged, result, lr=self._lr(), images=self._images())
        self._note(row["epoch"])
        score = result.mean_score if self.config.best == "mean" else result.resolutions[self.net.native].score
        is_best = self.done.next_epoch(row, score)
        if self.config.patience is not None:
            row["epochs_since_best"] = self.done.since_best
        if self.folder is not None and self.processes.leads:
            self.folder.add_epoch(self.stepper.judged, self.done.rows, is_best=is_best)
        if self.board is not None:
            self.board.add_epoch(row, self._steps())
        self._save_state()
        return row

    def finish(self) -> None:
        """Leave in the network what was evaluated and saved last."""
        self.stepper.mix()
        if self.stepper.judged is not self.net:
            fill(self.net, self.stepper.judged.state_dict(), "the run")

    def _resume(self, folder: RunFolder, force: bool) -> None:
        found = folder.newest_state()
        if found is not None:
            check_facts(found[1])
        if len(set(self.processes.gather(None if found is None else found[1]["progress"].get("saves")))) > 1:
            raise CheckpointError(
                "the processes found different states of the run; a folder that all of them share is needed."
            )
        if found is None:
            return
        tensors, facts = found
        check_same_run(facts["settings"], self.config, self._identity(), force=force)
        done = Progress.of(facts["progress"], self.config.epochs)
        restore_state(tensors, self.stepper)
        if facts["scaler"]:  # empty without fp16
            self.stepper.scaler.load_state_dict(facts["scaler"])
        self.done = done
        if self.done.rows and not self.done.best_epoch:
            self.done.best_epoch = folder.best_epoch()  # a state of a version that did not keep it
        if facts["settings"]["steps_per_epoch"] != self.stepper.steps_per_epoch:
            self.done.begin_epoch()  # its place has no meaning in epochs of another length
        self.stepper.schedule.step_update(max(0, self._steps() - 1))  # the rate that the last step had
        if self.done.rows:
            self._note(self.done.epoch)
        if self.visible:
            tqdm.write(f"resumed after {self._position()}", file=sys.stderr)

    def _save_state(self) -> None:
        """Keep where the run stands, unless a weight is not finite; all processes must come here."""
        if self.folder is None:
            return
        self._check_weights()
        self.done.saves += 1
        tensors = collect_state(self.stepper)
        facts = {
            "progress": asdict(self.done),
            "settings": {**asdict(self.config), **self._identity()},
            "scaler": self.stepper.scaler.state_dict(),
        }
        if self.processes.leads:
            self.folder.add_state(self.done.saves, tensors, facts)
        self._saved = time.monotonic()

    def _train(self) -> None:
        done = self.done
        self.stepper.objective.train()
        total = self.stepper.steps_per_epoch * self.config.grad_accum_steps
        with self._bar(total) as bar:
            mark = time.perf_counter()
            for views, target in self.feed.batches(done.epoch, done.batches, total):
                done.waited += time.perf_counter() - mark
                self._learn(views, target)
                bar.update(len(target) * self.processes.world_size)
                done.seconds, mark = done.seconds + time.perf_counter() - mark, time.perf_counter()
                self._meet()
        # A last step that ran away shows in no loss.
        self._check_weights()

    def _learn(self, views: list[Tensor], target: Tensor) -> None:
        """Take one batch, and step if it is the last one of a step."""
        last = (self.done.batches + 1) % self.config.grad_accum_steps == 0
        parts = self.stepper.add(views, target, last=last)
        means = (self.processes.total(parts) / self.processes.world_size).tolist()
        if not math.isfinite(means[0]):
            self._refuse_loss(means[0], parts, views, target)
        if last:
            self.stepper.step(self._steps())
        self.done.add(means)
        if last and self.board is not None:
            self.board.add_step(means, self._lr(), self._steps())

    def _meet(self) -> None:
        """After a step, agree with the other processes whether to save, and whether to stop."""
        if self.done.batches % self.config.grad_accum_steps:
            return
        due = self.processes.leads and time.monotonic() - self._saved > 60 * self.config.save_minutes
        stop, save = self.processes.total(torch.tensor([self.interrupts.came, due], dtype=torch.int64)).tolist()
        if stop:
            self._stop()
        if save:
            self._save_state()

    def _evaluate(self) -> Evaluation:
        # With several processes a request to stop must reach all at the same place: the next step.
        check: Callable[[], None] = self.interrupts if self.processes.world_size == 1 else lambda: None
        try:
            result = measure(
                self.stepper.judged,
                self.val_loader,
                amp=self.amp,
                outputs=self.outputs,
                progress=self.visible,
                check=check,
                reduce=self.processes.total,
                resize=self.config.resize,
            )
        except KeyboardInterrupt:
            self._stop()
        if result.count != self.val_images:
            raise DataError(f"{result.count} of {self.val_images} val images came; all are needed. Check the data.")
        return result

    def _stop(self) -> NoReturn:
        self._save_state()
        kept = () if self.folder is None else (f"its state after {self._position()} is kept",)
        raise KeyboardInterrupt(*kept) from None

    def _position(self) -> str:
        step = self.done.batches // self.config.grad_accum_steps
        return f"epoch {self.done.epoch} of {self.config.epochs}" + (f" and {step} steps" if step else "")

    def _steps(self) -> int:
        """Return the steps done since the beginning."""
        here = self.done.batches // self.config.grad_accum_steps
        return self.done.epoch * self.stepper.steps_per_epoch + here

    def _lr(self) -> float:
        return float(self.stepper.optimizer.param_groups[0]["lr"])

    def _images(self) -> int:
        """Return how many images all processes take in an epoch: full batches only."""
        per_step = self.config.grad_accum_steps * self.config.batch_size * self.processes.world_size
        return self.stepper.steps_per_epoch * per_step

    def _identity(self) -> dict[str, Any]:
        """Return what must be the same, in addition to the settings, to resume from a state."""
        facts = self.facts()
        kept = {key: facts[key] for key in ("resolutions", "steps_per_epoch", "processes", "resolved_device")}
        return {**kept, **self.identity, "teacher_network": self.stepper.taught_by}

    def _note(self, epoch: int) -> None:
        for net in (self.net, self.stepper.judged):
            note_training(net, self.config, epoch, self.class_names)

    def _check_weights(self) -> None:
        weights = torch.stack([parameter.detach().double().sum() for parameter in self.net.parameters()])
        if not math.isfinite(weights.sum()):
            self._refuse("the sum of the weights", float(weights.sum()), "")

    def _refuse_loss(self, mean: float, own: Tensor, views: list[Tensor], target: Tensor) -> NoReturn:
        """Say where a loss stopped being finite; no step was made along its gradients."""
        parts, resolution = self.stepper.diagnose(views, target)  # by all, for with --sync-bn it is a common forward
        if bool(own.isfinite().all()):
            self._refuse("the loss of another process", mean, "")
        where = ", though all logits are finite" if resolution is None else f", from the view of {resolution} on"
        self._refuse(f"the loss ({', '.join(parts)})", mean, where)

    def _refuse(self, what: str, value: float, where: str) -> NoReturn:
        raise TrainingError(
            f"{what} is {value:.0f} at epoch {self.done.epoch + 1}, step {self._steps() + 1}{where}; a finite number "
            f"is needed. Lower the learning rate (it is {self.config.lr:g}), or set amp to off. What was "
            "written before is intact."
        )

    def _bar(self, batches: int) -> "tqdm[Any]":
        size = self.config.batch_size * self.processes.world_size
        return tqdm(
            total=batches * size,
            initial=self.done.batches * size,
            desc=f"epoch {self.done.epoch + 1}/{self.config.epochs}",
            unit="img",
            disable=not self.visible,
            leave=False,
        )

"""finetune: epochs of S-view steps, each followed by an evaluation at every resolution."""

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import torch
from tqdm.auto import tqdm

from rsconvert.checkpoint import warn_of_loading
from rsconvert.data import Samples, postponed_interrupts
from rsconvert.evaluation import Processes, joined_processes, launched_rank, plain_memory_errors
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training.run import Row, Run, RunFolder, accuracies, epoch_line, epochs_table, open_for_training

__all__ = ["FinetuneResult", "finetune", "keep_freed_memory"]

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _NEVER = -1, -4, 2**31 - 1


@dataclass(frozen=True)
class FinetuneResult(Sequence[Row]):
    """What a run reached: a sequence of its rows, one per epoch as in ``summary.csv``, rates and shares in percent.

    ``best`` is the epoch, counted from 1, whose network ``best.safetensors`` holds: the first of the highest top-1 as
    ``FinetuneConfig.best`` counts it, before the rows were rounded. ``stopped`` says in words why the run ended before
    its last epoch, see ``FinetuneConfig.patience``; None if it did not.
    """

    rows: tuple[Row, ...]
    best: int
    stopped: str | None = None

    @property
    def best_row(self) -> Row:
        """The row of the best epoch."""
        return next(row for row in self.rows if row["epoch"] == self.best)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Row, ...]: ...

    def __getitem__(self, place: int | slice) -> Row | tuple[Row, ...]:
        return self.rows[place]

    def __str__(self) -> str:
        return f"best: epoch {self.best} of {len(self.rows)}, {accuracies(self.best_row)}"

    def __repr__(self) -> str:
        return f"<FinetuneResult, {self}>"

    def _repr_html_(self) -> str:
        return epochs_table(self.rows, str(self)).as_html()


def finetune(
    net: SwitchableModel,
    data: str | Path | tuple[Samples, Samples],
    output: str | Path | None = None,
    config: FinetuneConfig | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    progress: bool = False,
    on_epoch: Callable[[Row], None] | None = None,
) -> FinetuneResult:
    """Train all resolutions of a network together by multi-resolution ensemble distillation (RS-Nets, Sec. 3).

    The network is trained in place and ends as the last evaluation saw it. Each step takes one crop of every image,
    resizes it to S views, runs path i on view i and sums the losses. The network's mode, device, memory format and
    ``requires_grad`` flags are left as training needs them; torch's global generator is left alone. Ctrl-C and SIGTERM
    take effect after the step in progress. Started by torchrun, processes share the images; only the first one writes.

    Args:
        data: a folder with ``train/`` and ``val/``, a timm data-set string, or the two opened splits.
        output: the run folder; by default nothing is kept but the network.
        resume: continue, bit for bit, from the newest intact state in ``output``; without one, start afresh. Give the
            network that the run started from.
        force: replace an earlier run in ``output`` once the first epoch is done; with ``resume``, continue although
            settings differ.
        progress: show a bar on stderr, and a line for each epoch that stays; without the line if ``on_epoch`` is given.
        on_epoch: is called with each new row, in the first process alone, so not with ``evaluate``, which needs all.
    Raises:
        NamelessModelWarning, as a warning: the run's files alone will not be enough to load the network.
        ConfigError: a setting does not fit the network, the device or the run that is resumed.
        DataError: the classes do not fit the network, or an image can't be read.
        TrainingError: a loss or weight is not finite; the network fails; memory ran out; another process ended.
        CheckpointError: the run folder holds a run, or can't be written; no state in it is intact.
    """
    config = config or FinetuneConfig()
    if output is not None and launched_rank() == 0:  # before the work, in the process that writes
        warn_of_loading(net, stacklevel=3)
    samples, outputs = open_for_training(net, data, config)
    with (
        plain_memory_errors(config.batch_size, config.workers),
        joined_processes(config.device) as processes,
        postponed_interrupts() as interrupts,
    ):
        # The other processes must not refuse what the first one has written.
        forced = force or not processes.leads
        folder = None if output is None else RunFolder(output, keep=config.keep_states, force=forced, resume=resume)
        run = Run(net, samples, config, processes, folder, interrupts, outputs=outputs, visible=progress)
        with closing(run), _seeded(config.seed, processes), _repeatable(config.deterministic), _compilable(run):
            run.begin(resume=resume, force=force)
            return _all_epochs(run, on_epoch)


def _all_epochs(run: Run, on_epoch: Callable[[Row], None] | None) -> FinetuneResult:
    while run.done.epoch < run.config.epochs and run.stopped is None:
        row = run.epoch()
        if run.processes.leads and on_epoch is not None:
            on_epoch(row)
        elif run.visible:
            views = run.config.drawn_views(len(run.net.resolutions))
            tqdm.write(epoch_line(row, run.config.epochs, views), file=sys.stderr)
    run.finish()
    return FinetuneResult(tuple(run.done.rows), run.done.best_epoch, run.stopped)


@contextmanager
def _seeded(seed: int, processes: Processes) -> Iterator[None]:
    """Seed the global generators that dropout draws from, differently in each process, and give the caller's back."""
    on_gpu = processes.device.type == "cuda"
    with torch.random.fork_rng(devices=[processes.device] if on_gpu else []):
        torch.default_generator.manual_seed(seed + processes.rank)
        if on_gpu:
            with torch.cuda.device(processes.device):
                torch.cuda.manual_seed(seed + processes.rank)
        yield


@contextmanager
def _repeatable(deterministic: bool) -> Iterator[None]:
    """If asked, allow only algorithms that repeat bit for bit."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def _compilable(run: Run) -> Iterator[None]:
    """Allow torch.compile one version of the code for each path, in train and in eval mode.

    The paths share one code object; beyond torch's limit of 8 versions they would run uncompiled.
    """
    limit = max(8, 2 * len(run.net.resolutions))
    with nullcontext() if run.config.compile == "off" else torch._dynamo.config.patch(recompile_limit=limit):
        yield


def keep_freed_memory() -> bool:
    """Let this process keep freed memory; return whether the C library can.

    By default glibc gives every large tensor back to the system when it is freed, and a step on a CPU pays for getting
    each of its pages again. The process holds about a tenth more memory for it. It is a setting of the whole process,
    so a program calls it, never a library's function.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # macOS, Windows, musl
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER))

"""finetune: epochs of S-view steps, each followed by an evaluation at every resolution."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path

import torch

from rsconvert.checkpoint import warn_of_loading
from rsconvert.data import Samples, postponed_interrupts
from rsconvert.errors import ConfigError
from rsconvert.evaluation import Processes, joined_processes, launched_rank, plain_memory_errors
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training.result import FinetuneResult
from rsconvert.training.run import Row, Run, RunFolder, open_for_training

__all__ = ["finetune"]


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

    The network is trained in place. Each step takes one crop of every image, resizes it to S views, runs path i on
    view i and sums the losses. The network's mode, device, memory format and ``requires_grad`` flags are left as
    training needs them; torch's global generator is left alone. Ctrl-C and SIGTERM take effect after the step in
    progress, whose state is kept. Started by torchrun, processes share the images; only the first one writes.

    Args:
        data: a folder with ``train/`` and ``val/``, a timm data-set string, or the two opened splits.
        output: the run folder; None keeps nothing but the network.
        resume: go on, bit for bit, from the newest intact state in ``output``; without one, start afresh. Give the
            network that the run started from.
        force: let ``output`` replace an earlier run, which it does once the first epoch is done; with ``resume``, go on
            although settings differ.
        progress: show a bar on stderr.
        on_epoch: is called with each new row, in the first process alone, so not with ``evaluate``, which needs all.
    Returns:
        A row per epoch, as in ``summary.csv``, rates and shares in percent; and which epoch is the best.
    Raises:
        NamelessModelWarning, as a warning: the run's files alone will not be enough to load the network.
        ConfigError: a setting does not fit the network, the device or the run that is resumed.
        DataError: the classes do not fit the network, or an image can't be read.
        TrainingError: the loss or a weight is not finite; the network fails in train mode; memory ran out; another
            process of the run ended.
        CheckpointError: the run folder holds a run, or can't be written; no state in it is intact.
    """
    config = config or FinetuneConfig()
    _warn_once(net, output)
    samples, outputs = open_for_training(net, data, config)
    with (
        plain_memory_errors(config.batch_size, config.workers),
        joined_processes(config.device) as processes,
        postponed_interrupts() as interrupts,
    ):
        folder = _folder(output, config, processes, force=force, resume=resume)
        shown = progress and processes.leads
        run = Run(net, samples, config, processes, folder, interrupts, outputs=outputs, visible=shown)
        with closing(run), _surroundings(config, processes, len(net.resolutions)):
            return _all_epochs(run, on_epoch if processes.leads else None, resume=resume, force=force)


def _all_epochs(run: Run, on_epoch: Callable[[Row], None] | None, *, resume: bool, force: bool) -> FinetuneResult:
    if resume:
        run.resume(force=force)
    if run.folder is not None and run.processes.leads:
        run.folder.start(run.settings(), fresh=not run.done.started)
    run.open_board()
    while run.done.epoch < run.config.epochs:
        row = run.epoch()
        if on_epoch is not None:
            on_epoch(row)
    return FinetuneResult(tuple(run.done.rows), run.done.best_epoch)


def _folder(
    output: str | Path | None, config: FinetuneConfig, processes: Processes, *, force: bool, resume: bool
) -> RunFolder | None:
    if output is None and resume:
        raise ConfigError("resume is set without an output; the folder of the run is needed. Give it.")
    if output is None:
        return None
    # Only the first process may be surprised by what it has written itself.
    return RunFolder(output, keep=config.keep_states, force=force or not processes.leads, resume=resume)


@contextmanager
def _surroundings(config: FinetuneConfig, processes: Processes, paths: int) -> Iterator[None]:
    with _seeded(config.seed, processes), _repeatable(config.deterministic), _compilable(config.compile, paths):
        yield


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
    """If asked, allow only algorithms that repeat to the bit."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _compilable(mode: str, paths: int) -> AbstractContextManager[None]:
    """Allow torch.compile one version of the code for each path, in train and in eval mode.

    The paths share one code object; beyond torch's limit of 8 versions they would run uncompiled.
    """
    if mode == "off":
        return nullcontext()
    limits: AbstractContextManager[None] = torch._dynamo.config.patch(recompile_limit=max(8, 2 * paths))
    return limits


def _warn_once(net: SwitchableModel, output: str | Path | None) -> None:
    """Say before the work what a file of the run will need, in the process that writes it."""
    if output is not None and launched_rank() == 0:
        warn_of_loading(net, stacklevel=4)

"""compare: every run of a plan, seed after seed, with a report after each seed."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from rsconvert.data import Samples
from rsconvert.settings import FinetuneConfig
from rsconvert.study.comparison.markdown import write_report
from rsconvert.study.comparison.methods import choose_methods
from rsconvert.study.comparison.plan import Plan, make_plan
from rsconvert.study.comparison.results import Comparison, tabulate
from rsconvert.study.comparison.runs import complete
from rsconvert.surgery import SwitchableModel
from rsconvert.training import Row

__all__ = ["compare", "plan_comparison"]


def plan_comparison(
    net: SwitchableModel,
    data: str | Path | tuple[Samples, Samples],
    output: str | Path,
    config: FinetuneConfig | None = None,
    *,
    methods: Sequence[str] = ("inets", "parallel", "rsnet"),
    subsets: Sequence[Sequence[int]] = (),
    crop_area: Sequence[float] | str | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    resolutions: Sequence[int] | None = None,
    same_lr: bool = False,
) -> Plan:
    """Return the runs of a comparison for ``compare``; nothing is written.

    Args:
        net: as ``make_switchable`` or ``wrap`` leaves it; all runs start from its weights.
        data: a folder with ``train/`` and ``val/``, a timm data-set string, or the two opened splits.
        output: a new folder, or that of the same comparison, whose runs are taken up; methods, seeds and resolutions
            may be added to it.
        config: what all runs have in common; its ``lr`` is the rate of a network of one resolution, divided by S for a
            network of S, and ``distill``, ``view_sizes`` and ``seed`` are left to the comparison.
        methods: names out of ``KNOWN``.
        subsets: resolutions for further networks, trained in parallel (RS-Nets, Fig. 5).
        crop_area: a second range of crop areas, with which all methods are trained once more (RS-Nets, Fig. 9); text
            such as ``0.08,1`` is parsed.
        seeds: each method is trained with each.
        resolutions: where all are tested, in pixels; None takes those of the network.
        same_lr: give networks of S resolutions the rate of one, as the paper does.
    Raises:
        ConfigError: a method, subset, seed or setting is unknown, repeated or without effect; the folder holds another
            comparison.
        CheckpointError: the folder holds something else.
        DataError, ResolutionError: as ``finetune``, and ``evaluate``.
    """
    chosen = choose_methods(methods, net.resolutions, subsets=subsets, crop_area=crop_area)
    common = config or FinetuneConfig()
    return make_plan(net, data, output, common, chosen, seeds=seeds, resolutions=resolutions, same_lr=same_lr)


def compare(
    plan: Plan,
    *,
    command: str | None = None,
    progress: bool = False,
    log: Callable[[str], None] = lambda line: None,
    on_epoch: Callable[[Row], None] | None = None,
) -> Comparison:
    """Train what a plan lacks, measure it, and write the report: ``report.md`` in the plan's folder, and what it shows.

    One seed after the other, so that an interruption leaves whole seeds; the report is written after each. Called
    again with the same plan it goes on where it was left.

    Args:
        command: the line that asks for it, for the report.
        progress: show bars on stderr.
        log: is called with a line before each run.
        on_epoch: is called with each new row.
    Raises:
        TrainingError, CheckpointError, DataError, ConfigError: as ``finetune`` and ``evaluate``.
    """
    plan.write_settings()
    numbers = itertools.count(1)
    for _, runs in itertools.groupby(plan.runs, key=lambda run: run.seed):
        for run in runs:
            name = run.folder.relative_to(plan.folder).as_posix()
            log(f"run {next(numbers)}/{len(plan.runs)}, {name}: {run.status}")
            complete(plan, run, progress=progress, on_epoch=on_epoch)
        found = tabulate(plan)
        write_report(found, command)
    return found

"""Plan: which runs a comparison consists of, checked against each other and against what the folder holds."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from rsconvert.checkpoint import digest, replacing
from rsconvert.data import Samples
from rsconvert.errors import CheckpointError, ConfigError
from rsconvert.evaluation import launched_processes
from rsconvert.settings import FinetuneConfig
from rsconvert.study.comparison.methods import Method
from rsconvert.surgery import SwitchableModel, check_resolutions
from rsconvert.training import FREE_SETTINGS, data_identity, open_for_training

__all__ = ["Plan", "PlannedRun", "make_plan"]

# A comparison gives them to each run itself.
_OWN = ("distill", "seed", "view_sizes")
# Told otherwise, or without influence on the last epoch's network.
_APART = {*FREE_SETTINGS, *_OWN, "lr", "device", "best"}
_SETTINGS = "comparison.json"


@dataclass(frozen=True)
class PlannedRun:
    """One training: of one network, by one method, with one seed. ``resolutions`` are those of its network."""

    method: Method
    seed: int
    resolutions: tuple[int, ...]
    config: FinetuneConfig
    folder: Path

    @property
    def result(self) -> Path:
        """The file that tells that the run is over, and what it reached."""
        return self.folder / "result.json"

    @property
    def status(self) -> str:
        """``done``, ``begun`` or ``to do``."""
        if self.result.is_file():
            return "done"
        return "begun" if (self.folder / "state").is_dir() else "to do"


@dataclass(frozen=True)
class Plan:
    """The runs of a comparison in their order: all methods of the first seed first.

    ``resolutions`` are those of the evaluation; ``settings`` what all runs have in common.
    """

    net: SwitchableModel
    samples: tuple[Samples, Samples]
    folder: Path
    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    resolutions: tuple[int, ...]
    runs: tuple[PlannedRun, ...]
    settings: Mapping[str, Any]

    def write_settings(self) -> None:
        """Note in the folder what the comparison is, or see that it is the same as before.

        Raises:
            CheckpointError: the folder can't be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.folder / _SETTINGS) as part:
                part.write_text(json.dumps(self.settings, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise CheckpointError(
                f"{self.folder} can't be written ({error}); a folder is needed. Choose another."
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        runs = [
            {
                "folder": str(run.folder.relative_to(self.folder)),
                "seed": run.seed,
                "resolutions": list(run.resolutions),
                "lr": run.config.lr,
                "status": run.status,
            }
            for run in self.runs
        ]
        return {"output": str(self.folder), "runs": runs, "settings": dict(self.settings)}

    def __str__(self) -> str:
        config, images = self.runs[0].config, len(self.samples[0])
        per_step = config.batch_size * config.grad_accum_steps
        names = [run.folder.relative_to(self.folder).as_posix() for run in self.runs]
        width = max(map(len, names))
        rows = [
            f"  {name:<{width}}  views {len(run.resolutions)}  lr {run.config.lr:<8.4g}  {run.status}"
            for name, run in zip(names, self.runs, strict=True)
        ]
        steps = f"{images // per_step} steps of {per_step} images"
        head = (
            f"{len(self.runs)} runs, each of {config.epochs} epochs of {steps}, tested at {len(self.resolutions)} sizes"
        )
        return "\n".join([head, *rows])


def make_plan(
    net: SwitchableModel,
    data: str | Path | tuple[Samples, Samples],
    output: str | Path,
    config: FinetuneConfig,
    methods: Sequence[Method],
    *,
    seeds: Sequence[int],
    resolutions: Sequence[int] | None = None,
    same_lr: bool = False,
) -> Plan:
    """Return the runs that a comparison needs; nothing is written.

    Raises:
        ConfigError: a setting is the comparison's own; seeds repeat; the network was finetuned; two methods are the
            same; the folder holds another comparison.
        CheckpointError: the folder holds something else.
        DataError, ResolutionError: as ``finetune``, and ``evaluate``.
    """
    _check(net, config, seeds)
    folder, asked = Path(output), check_resolutions(net.resolutions if resolutions is None else resolutions)
    samples, outputs = open_for_training(net, data, config)
    common = {name: value for name, value in asdict(config).items() if name not in _APART}
    settings = {
        **common,
        "lr": config.peak_lr(1),
        "same_lr": same_lr,
        "trained": net.resolutions,
        "starting_network": digest(net.state_dict()),
        **data_identity(net, samples, outputs),
    }
    _check_folder(folder, json.loads(json.dumps(settings)))
    runs = tuple(_runs(net, folder, config, methods, seeds, same_lr))
    _check_different(runs)
    return Plan(net, samples, folder, tuple(methods), tuple(seeds), asked, runs, settings)


def _runs(
    net: SwitchableModel,
    folder: Path,
    config: FinetuneConfig,
    methods: Sequence[Method],
    seeds: Sequence[int],
    same_lr: bool,
) -> Iterator[PlannedRun]:
    for seed in seeds:
        for method in methods:
            trained = method.subset or net.resolutions
            for sides in [(r,) for r in trained] if method.apart else [trained]:
                name = f"{method.name}-{sides[0]}" if method.apart else method.name
                lr = config.peak_lr(1) / (1 if same_lr else len(sides))
                place = folder / name / f"seed-{seed}"
                board = config.log_dir and str(Path(config.log_dir) / name / f"seed-{seed}")
                own = replace(config, **method.settings, seed=seed, lr=lr, log_dir=board)
                yield PlannedRun(method, seed, sides, own, place)


def _check(net: SwitchableModel, config: FinetuneConfig, seeds: Sequence[int]) -> None:
    for item in fields(config):
        if item.name in _OWN and getattr(config, item.name) != item.default:
            raise ConfigError(
                f"{item.name} is {getattr(config, item.name)}, which a comparison chooses for each run. Leave it out."
            )
    if not seeds or len(set(seeds)) != len(seeds):
        told = ",".join(map(str, seeds)) or "empty"
        raise ConfigError(f"seeds is {told}; one or more different ones are needed. Mend the list.")
    if (processes := launched_processes()) > 1:
        raise ConfigError(f"a launcher started {processes} processes; a comparison runs in one. Start it by itself.")
    if not net.private:
        raise ConfigError(
            "the network has one BN set for all resolutions; one with a set for each is needed. Give that one."
        )
    if net.source.training is not None:
        raise ConfigError(
            "the network was finetuned already; a comparison starts from one as wrap leaves it. Give that one."
        )


def _check_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    file = folder / _SETTINGS
    if not file.is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise CheckpointError(
                f"{folder} exists and holds no comparison; a new or empty folder is needed. Choose another by --output."
            )
        return
    try:
        saved = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file} can't be read ({error}); choose another folder by --output.") from error
    differing = [name for name in settings if saved.get(name) != settings[name]]
    if differing:
        told = ", ".join(f"{name} was {saved.get(name)} and is {settings[name]}" for name in differing)
        raise ConfigError(
            f"{folder} holds another comparison: {told}; one budget serves all runs of a comparison. "
            "Give the same again, or choose another folder by --output."
        )


def _check_different(runs: Sequence[PlannedRun]) -> None:
    seen: dict[str, PlannedRun] = {}
    for run in runs:
        key = repr((run.resolutions, run.method.private, replace(run.config, log_dir=None)))
        if key in seen:
            raise ConfigError(
                f"{run.method.name} trains as {seen[key].method.name} does with these settings; methods that differ "
                "are needed. Leave one out."
            )
        seen[key] = run

"""Plan: the runs of a comparison, from the methods that are compared, checked against each other and its folder."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from rsconvert.checkpoint import digest, holds_nothing, read_tensors, replacing, subset
from rsconvert.data import Samples
from rsconvert.errors import CheckpointError, ConfigError
from rsconvert.evaluation import launched_processes
from rsconvert.settings import FinetuneConfig
from rsconvert.study.comparison.methods import AGAINST, Method, another_network, choose_methods
from rsconvert.surgery import SwitchableModel, check_resolutions
from rsconvert.text import Table, plain, printable, read_json
from rsconvert.training import FREE_SETTINGS, data_identity, fill_defaults, open_for_training

__all__ = ["Plan", "PlannedRun", "plan_comparison"]

# A comparison gives them to each run itself.
_OWN = ("distill", "seed", "view_sizes")
# Recorded under another name, or without influence on the last epoch's network.
_APART = {*FREE_SETTINGS, *_OWN, "lr", "device", "best"}
_SETTINGS = "comparison.json"


@dataclass(frozen=True)
class PlannedRun:
    """One network to be made by one method with one seed.

    ``name`` is that of its folder within the comparison's, ``resolutions`` are those of its network.
    """

    name: str
    method: Method
    seed: int
    resolutions: tuple[int, ...]
    config: FinetuneConfig
    folder: Path

    @property
    def result(self) -> Path:
        """The file with what the run reached, written when it is over."""
        return self.folder / "result.json"

    @property
    def hits(self) -> Path:
        """The file with which images its network gets right: resolution → (N,), 0 or 1; of masks `Overlaps.counts`."""
        return self.folder / "hits.safetensors"

    @property
    def status(self) -> str:
        """``done``, ``begun`` or ``to do``."""
        if self.result.is_file():
            return "done"
        return "begun" if (self.folder / "state").is_dir() else "to do"

    def read_result(self) -> dict[str, Any]:
        """Return what is known of a finished run, else nothing."""
        if not self.result.is_file():
            return {}
        result = _read(self.result, "delete its folder")
        if not _is_result(result):
            raise CheckpointError(
                f"{self.result} is damaged; what compare writes of a finished run is needed: delete its folder."
            )
        return result

    def read_hits(self) -> dict[str, Tensor]:
        """Return what ``hits`` holds; nothing before its network was measured."""
        held = read_tensors(self.hits) if self.hits.is_file() else {}
        if len({tensor.shape for tensor in held.values()}) > 1 or any(t.ndim not in (1, 3) for t in held.values()):
            raise CheckpointError(
                f"{self.hits} is damaged; what compare writes of a finished run is needed: delete its folder."
            )
        return held

    @property
    def lr(self) -> float | None:
        """The peak rate of its training; None without one."""
        return self.config.lr if self.method.fit is None else None

    def tested(self, resolutions: Sequence[int]) -> list[int]:
        """Return at which of some resolutions its network is tested."""
        return [r for r in resolutions if not self.method.own_size or r in self.resolutions]


@dataclass(frozen=True)
class Plan:
    """The runs of a comparison in their order: all methods of the first seed first.

    ``resolutions`` are those of the evaluation; ``settings`` what all runs have in common; ``others`` the networks of
    the methods that train another one.
    """

    net: SwitchableModel
    samples: tuple[Samples, Samples]
    folder: Path
    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    resolutions: tuple[int, ...]
    runs: tuple[PlannedRun, ...]
    settings: Mapping[str, Any]
    others: Mapping[Method, SwitchableModel] = field(default_factory=dict)

    def network(self, method: Method) -> SwitchableModel:
        """Return the network from which a method starts."""
        return self.others.get(method, self.net)

    def make_folder(self) -> None:
        """Make the folder, unless it exists."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{self.folder} can't be written ({error}); a folder is needed.") from error

    def write_settings(self) -> None:
        """Record in the folder what the comparison is."""
        self.make_folder()
        with replacing(self.folder / _SETTINGS) as part:
            part.write_text(json.dumps(self.settings, indent=2) + "\n", encoding="utf-8")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        rows = [(run.name, run.seed, list(run.resolutions), run.lr, run.status) for run in self.runs]
        runs = [dict(zip(("folder", "seed", "resolutions", "lr", "status"), row, strict=True)) for row in rows]
        return {"output": str(self.folder), "runs": runs, "settings": dict(self.settings)}

    def __str__(self) -> str:
        config = self.runs[0].config
        per_step = config.batch_size * config.grad_accum_steps
        rows = [(run.name, len(run.resolutions), plain(run.lr or "-"), run.status) for run in self.runs]
        fits = sum(run.lr is None for run in self.runs)
        steps = f"{len(self.samples[0]) // per_step} steps of {per_step} images"
        others = f"and {fits} without epochs, " if fits else ""
        head = (
            f"{len(rows) - fits} runs, each of {config.epochs} epochs of {steps}, {others}"
            f"tested at {len(self.resolutions)} sizes"
        )
        return f"{head}\n{Table(('run', 'views', 'learning rate', 'status'), rows).as_text()}"


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
    against: Mapping[str, SwitchableModel] | None = None,
) -> Plan:
    """Return the runs of a comparison for ``compare``; nothing is written.

    Args:
        net: as ``make_switchable`` or ``wrap`` leaves it; all runs start from its weights.
        data: a folder with ``train/`` and ``val/``, a timm data-set string, or the two opened splits.
        output: a new folder, or that of the same comparison, whose runs are resumed; methods, seeds and resolutions
            may be added to it.
        config: what all runs have in common; ``lr`` is the rate for one resolution, divided by S for a network of S;
            ``views`` are of those that train all. Leave out ``distill``, ``view_sizes`` and ``seed``.
        methods: names out of ``methods.KNOWN``.
        subsets: resolutions for further networks, trained in parallel (RS-Nets, Fig. 5).
        crop_area: a second range of crop areas, with which all methods are trained once more (Fig. 9); text is parsed.
        seeds: each method is trained with each.
        resolutions: where all are tested, in pixels; None takes those of the network.
        same_lr: give networks of S resolutions the rate of one, as the paper does.
        against: other networks by name, see ``load_others``, each trained as an I-Net at the native size of ``net``.
    Raises:
        ConfigError: a method, subset, seed or setting is unknown, repeated or without effect; the folder holds another
            comparison.
        CheckpointError: the folder holds something else.
        DataError, ResolutionError: as ``finetune``, and ``evaluate``.
    """
    chosen = choose_methods(methods, net.resolutions, subsets=subsets, crop_area=crop_area)
    config = config or FinetuneConfig()
    _check(net, config, seeds, chosen)
    folder, asked = Path(output), check_resolutions(net.resolutions if resolutions is None else resolutions)
    samples, outputs = open_for_training(net, data, config)
    others = _others(against or {}, net.native, samples, config)
    own = _common(net, fill_defaults(net, config, views=1), same_lr)
    common = {**own, **data_identity(net, samples, outputs), **_digests(others)}
    settings, every = _checked_against_folder(folder, json.loads(json.dumps(common))), (*chosen, *others)
    of_method = partial(_runs, resolutions=net.resolutions, folder=folder, same_lr=same_lr)
    each = {method: fill_defaults(others.get(method, net), _of_opened(config), views=1) for method in every}
    budgets = [(method, seed, each[method]) for seed in seeds for method in every]
    runs = _tested([run for budget in budgets for run in of_method(*budget)], asked)
    return Plan(net, samples, folder, every, tuple(seeds), asked, runs, settings, others)


def _of_opened(config: FinetuneConfig) -> FinetuneConfig:
    """Return the settings of what reads images that were opened by others."""
    return replace(config, split=None, skip_broken=0)


def _others(
    given: Mapping[str, SwitchableModel], native: int, samples: tuple[Samples, Samples], config: FinetuneConfig
) -> dict[Method, SwitchableModel]:
    """Return the training of each other network, with its native path alone."""
    found: dict[Method, SwitchableModel] = {}
    for name, other in given.items():
        if native not in other.resolutions or other.source.training is not None:
            reason = f"has the resolutions {other.resolutions}" if other.source.training is None else "was finetuned"
            raise ConfigError(
                f"against has {name}, which {reason}; a network as wrap leaves it, with {native} pixels, is needed."
            )
        open_for_training(other, samples, _of_opened(config))
        method = another_network(name, native)
        if any(method.name == earlier.name for earlier in found):
            raise ConfigError(f"against has {name} twice; each network needs a name of its own.")
        found[method] = subset(other, (native,))
    return found


def _common(net: SwitchableModel, config: FinetuneConfig, same_lr: bool) -> dict[str, Any]:
    """Return the settings that all runs have in common."""
    settings = {name: value for name, value in asdict(config).items() if name not in _APART}
    own = {"lr": config.peak_lr(1), "same_lr": same_lr, "trained": net.resolutions}
    return {**settings, **own, "starting_network": digest(net.state_dict())}


def _digests(others: Mapping[Method, SwitchableModel]) -> dict[str, str]:
    return {method.name: digest(other.state_dict()) for method, other in others.items()}


def _runs(
    method: Method, seed: int, common: FinetuneConfig, *, resolutions: tuple[int, ...], folder: Path, same_lr: bool
) -> Iterator[PlannedRun]:
    trained = method.subset or resolutions
    for sides in [(r,) for r in trained] if method.apart else [trained]:
        name = f"{method.name}-{sides[0]}/seed-{seed}" if method.apart else f"{method.name}/seed-{seed}"
        views = common.views if sides == resolutions and not method.one_size else "all"
        config = replace(
            common,
            views=views,
            distill=method.distill,
            crop=method.crop or common.crop,
            crop_area=method.crop_area or common.crop_area,
            view_sizes=resolutions[:1] * len(resolutions) if method.one_size else None,
            seed=seed,
            lr=common.peak_lr(1) / (1 if same_lr else replace(common, views=views).drawn_views(len(sides))),
            log_dir=common.log_dir and str(Path(common.log_dir, name)),
        )
        yield PlannedRun(name, method, seed, sides, config, folder / name)


def _check(net: SwitchableModel, config: FinetuneConfig, seeds: Sequence[int], methods: Sequence[Method]) -> None:
    for name in _OWN:
        if (value := getattr(config, name)) != getattr(FinetuneConfig(), name):
            raise ConfigError(f"{name} is {value}, which a comparison chooses for each run. Leave it out.")
    if config.patience is not None:
        raise ConfigError(f"patience is {config.patience}; all runs of a comparison are equally long. Leave it out.")
    config.drawn_views(len(net.resolutions))
    if not seeds or len(set(seeds)) != len(seeds):
        given = ",".join(map(str, seeds)) or "empty"
        raise ConfigError(f"seeds is {given}; one or more different ones are needed.")
    if (processes := launched_processes()) > 1:
        raise ConfigError(f"a launcher started {processes} processes; a comparison runs in one.")
    if not net.private:
        raise ConfigError("the network has one BN set for all resolutions; one with a set for each is needed.")
    if net.source.training is not None:
        raise ConfigError("the network was finetuned already; a comparison starts from one as wrap leaves it.")

    if unfit := [method for method in methods if net.source.task.dense and _needs_classes(method)]:
        raise ConfigError(
            f"{unfit[0].name} needs one class per image, or a crop per view; for segmentation inets, parallel, rsnet, "
            "shared-bn, vanilla, top-down, largest, source and calibrated are accepted."
        )
    untrained = [method.name for method in methods if method.fit in ("source", "calibrated")]
    if untrained and net.source.new_classifier:
        raise ConfigError(
            f"{untrained[0]} takes the classifier as it is, which is new; heads, or a network whose classifier fits "
            "the data, is accepted."
        )


def _needs_classes(method: Method) -> bool:
    return method.fit in ("heads", "fixres") or method.crop == "per-view"


def _checked_against_folder(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with the other networks that the folder knows; another comparison there is an error."""
    file = folder / _SETTINGS
    if not file.is_file():
        if folder.exists() and (not folder.is_dir() or not holds_nothing(folder)):
            raise CheckpointError(
                f"{folder} exists and holds no comparison; a new or empty folder is needed. Choose another by --output."
            )
        return dict(settings)
    saved = _read(file, "choose another folder by --output")
    known = {key: digest for key, digest in saved.items() if key.startswith(AGAINST)}
    same = {**{key: settings[key] for key in settings if key.startswith(AGAINST)}, **saved}  # networks may be added
    same.setdefault("image_files", settings.get("image_files"))  # of a comparison from before it was kept
    differing = {key: new for key, new in settings.items() if same.get(key) != new}
    changes = [f"{key} was {printable(str(same.get(key)))} and is {new}" for key, new in differing.items()]
    if changes:
        raise ConfigError(
            f"{folder} holds another comparison: {', '.join(changes)}; one budget serves all runs of a comparison. "
            "Choose another folder by --output."
        )
    return {**settings, **known}


def _read(file: Path, remedy: str) -> dict[str, Any]:
    try:
        return dict(read_json(file))
    except (OSError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file} can't be read ({error}); what compare wrote is needed: {remedy}.") from error


def _is_result(result: Mapping[str, Any]) -> bool:
    """Return whether a result has the types of one that compare wrote."""
    numbers: list[Any] = [result.get("seconds"), result.get("count")]
    rows = result.get("resolutions")
    if type(rows) is not dict or type(result.get("machine")) is not dict:
        return False
    for side, row in rows.items():
        parts = ("miou", "pixel_accuracy") if type(row) is dict and "miou" in row else ("top1", "top5")
        numbers += [row.get(part) for part in (*parts, "multiply_adds")] if type(row) is dict else [None]
        numbers.append(int(side) if side.isdecimal() else None)
    return all(type(number) in (int, float) and number >= 0 for number in numbers)


def _tested(runs: Sequence[PlannedRun], resolutions: Sequence[int]) -> tuple[PlannedRun, ...]:
    """Return the runs whose networks are tested; the same run twice, or a method without any, is an error."""
    seen: dict[str, str] = {}
    for run in runs:
        own = run.method.name if run.method.other else run.method.fit
        key = repr((run.resolutions, run.method.private, own, replace(run.config, log_dir=None)))
        if other := seen.get(key):
            raise ConfigError(f"{run.method.name} trains as {other} does with these settings. Leave one out.")
        seen[key] = run.method.name
    for method in dict.fromkeys(run.method for run in runs):
        sides = [r for run in runs if run.method == method for r in run.resolutions]
        if method.own_size and not set(sides) & set(resolutions):
            raise ConfigError(
                f"{method.name} is tested at {', '.join(map(str, sorted({*sides}, reverse=True)))} alone, and "
                "resolutions has none of them. Add one."
            )
    return tuple(run for run in runs if run.tested(resolutions))

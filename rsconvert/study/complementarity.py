"""How resolutions complement each other: what one gets right and another wrong (RS-Nets, Table 1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from rsconvert.data import Samples
from rsconvert.errors import ConfigError
from rsconvert.evaluation import check_classifies, check_order, predict
from rsconvert.study.figures import COLUMN, PAGE, new_figure, paper_style
from rsconvert.surgery import SwitchableModel
from rsconvert.text import Table

__all__ = [
    "Complementarity",
    "complementarity",
    "complementarity_data",
    "complementarity_of",
    "own_resolutions",
    "plot_complementarity",
    "right_answers",
]


@dataclass(frozen=True)
class Complementarity:
    """Shares of ``count`` images, in percent, over the paths of a network or over a set of networks.

    Attributes:
        top1: the share that each resolution gets right, in the order as given.
        right_wrong: ``right_wrong[i][j]`` is the share that i gets right and j gets wrong; 0 where i = j.
        right_anywhere: the share that at least one gets right: what a perfect choice of the resolution would reach.
        right_everywhere: the share that all get right.
    """

    count: int
    top1: dict[int, float]
    right_wrong: dict[int, dict[int, float]]
    right_anywhere: float
    right_everywhere: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with the resolutions as strings."""
        matrix = {str(r): {str(other): share for other, share in row.items()} for r, row in self.right_wrong.items()}
        return {**vars(self), "top1": {str(r): share for r, share in self.top1.items()}, "right_wrong": matrix}

    def table(self) -> Table:
        """Return the matrix, a row for the resolution that is right."""
        titles = ["right at", *(f"wrong at {r}" for r in self.top1), "top-1"]
        rows = [
            [r, *(None if other == r else share for other, share in row.items()), self.top1[r]]
            for r, row in self.right_wrong.items()
        ]
        note = (
            f"Percent of {self.count} images. Right at one resolution at least: {self.right_anywhere:.2f}, "
            f"at all: {self.right_everywhere:.2f}."
        )
        return Table(titles, rows, note)


def complementarity(right: Mapping[int, Tensor]) -> Complementarity:
    """Compare predictions for the same images.

    Args:
        right: resolution → whether each prediction is right, (N,), bool.
    """
    every = torch.stack(list(right.values())).bool()
    images = every.double()
    count = images.shape[1]
    matrix = (100 * (images @ (1 - images).T) / count).tolist()
    return Complementarity(
        count,
        dict(zip(right, (100 * images.sum(1) / count).tolist(), strict=True)),
        {r: dict(zip(right, row, strict=True)) for r, row in zip(right, matrix, strict=True)},
        100 * int(every.any(0).sum()) / count,
        100 * int(every.all(0).sum()) / count,
    )


def own_resolutions(networks: Mapping[str, nn.Module]) -> dict[int, nn.Module]:
    """Return the resolution that each network stands for, from the largest to the smallest.

    One switchable network stands for all that it was trained for; of several each for its native one, or, if its name
    is a number, for that.

    Raises:
        ConfigError: two networks stand for one resolution; a plain one has no number for a name.
    """
    name, net = next(iter(networks.items()))
    if len(networks) == 1 and isinstance(net, SwitchableModel) and not name.isdigit():
        return dict.fromkeys(net.resolutions, net)
    own: dict[int, nn.Module] = {}
    for name, net in networks.items():
        resolution = int(name) if name.isdigit() else getattr(net, "native", None)
        if resolution is None or resolution in own:
            raise ConfigError(
                f"network {name} stands for {resolution or 'no resolution'}; of several networks each stands for one "
                "of its own, the native one or that in RESOLUTION=FILE."
            )
        own[resolution] = net
    return dict(sorted(own.items(), reverse=True))


def right_answers(networks: Mapping[int, nn.Module], data: str | Path | Samples, **options: Any) -> dict[int, Tensor]:
    """Return whether each prediction is right, (N,), bool, by resolution.

    Args:
        networks: resolution → what runs at it, switchable or plain.
        options: as of ``predict``, whose errors these are.
    """
    right: dict[int, Tensor] = {}
    targets: list[Tensor] = []
    for net in dict.fromkeys(networks.values()):
        check_classifies(net, "complementarity")
        sizes = [r for r, other in networks.items() if other is net]
        found = predict({"": net}, data, sizes, **options)
        right |= {r: found.right("", r) for r in sizes}
        targets.append(found.targets)
    check_order(targets)
    return {r: right[r] for r in networks}


def complementarity_of(
    groups: Sequence[Mapping[str, nn.Module]], data: str | Path | Samples, **options: Any
) -> dict[str, Complementarity]:
    """Compare the resolutions of each group of networks by name, by title: the name of a single one, or I-Nets.

    Args:
        options: as of ``predict``, whose errors these are.
    """
    found: dict[str, Complementarity] = {}
    for networks in filter(None, groups):
        title = next(iter(networks)) if len(networks) == 1 else "I-Nets"
        right = right_answers(own_resolutions(networks), data, **options)
        found[f"{title} (network)" if title in found else title] = complementarity(right)
    return found


def complementarity_data(groups: Mapping[str, Complementarity]) -> Table:
    """Return the entries of the matrices of named groups, a row each."""
    rows = [
        (name, right, wrong, share)
        for name, group in groups.items()
        for right, row in group.right_wrong.items()
        for wrong, share in row.items()
    ]
    return Table(("network", "right_at", "wrong_at", "percent"), rows)


@paper_style
def plot_complementarity(groups: Mapping[str, Complementarity]) -> Figure:
    """Draw the matrix of each named group, side by side on one scale of colours."""
    highest = max(share for group in groups.values() for row in group.right_wrong.values() for share in row.values())
    figure = new_figure(COLUMN if len(groups) == 1 else PAGE, 2.9)
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    for axes, (name, group) in zip(panels, groups.items(), strict=True):
        _draw_matrix(axes, group, highest or 1.0)
        axes.set(title=name, xlabel="wrong at (pixels)")
    panels[0].set_ylabel("right at (pixels)")
    figure.colorbar(panels[0].images[0], ax=list(panels), label="images (%)", shrink=0.9).outline.set_visible(False)
    return figure


def _draw_matrix(axes: Axes, group: Complementarity, highest: float) -> None:
    rows = [list(row.values()) for row in group.right_wrong.values()]
    shares = torch.tensor(rows, dtype=torch.float64).fill_diagonal_(float("nan"))
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=highest)
    axes.invert_xaxis()  # small to large to the right, as in every figure, and upwards
    axes.set_xticks(range(len(rows)), map(str, group.top1))
    axes.set_yticks(range(len(rows)), map(str, group.top1))
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    for i, row in enumerate(rows):
        for j, share in enumerate(row):
            text, colour = ("–", "0.5") if i == j else (f"{share:.1f}", "white" if share > 0.6 * highest else "black")
            axes.text(j, i, text, ha="center", va="center", color=colour)

"""How far an export agrees with the network it came from: figures per size, and the verdict on them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rsconvert.errors import CheckpointError, first_line

__all__ = ["Agreement", "Verification", "compare"]

_ROUNDING = 10  # times the tolerance: no rounding goes so far in a network of use


@dataclass(frozen=True)
class Agreement:
    """How an export agrees with the network at one size.

    ``difference`` is the largest, over images, of max |export - network| / max |network|. Of ``clear`` predictions,
    where the network's two best logits differ by more than the tolerance in that unit, ``agreeing`` are the same.
    ``float64`` images were compared with the network in double precision. ``failure`` says why the export gave no
    logits.
    """

    difference: float = 0.0
    images: int = 0
    clear: int = 0
    agreeing: int = 0
    float64: int = 0
    failure: str | None = None

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(
            max(self.difference, other.difference),
            self.images + other.images,
            self.clear + other.clear,
            self.agreeing + other.agreeing,
            self.float64 + other.float64,
            self.failure or other.failure,
        )


@dataclass(frozen=True)
class Verification:
    """The agreement at each size, named such as ``160`` or ``224x96``, and the verdict."""

    tolerance: float
    sizes: Mapping[str, Agreement]

    @property
    def difference(self) -> float:
        """The largest relative difference of all sizes."""
        return max(row.difference for row in self.sizes.values())

    @property
    def passed(self) -> bool:
        """Whether no difference exceeds the tolerance, and all clear predictions agree."""
        return not self._wrong()

    def check(self, what: str) -> None:
        """Raise unless the export agrees; ``what`` names it.

        Raises:
            CheckpointError: it does not.
        """
        if not (wrong := self._wrong()):
            return
        row = self.sizes[wrong[0]]
        found = row.failure or f"difference {row.difference:.2g}, {row.clear - row.agreeing} other classes"
        raise CheckpointError(
            f"{what} disagrees with the network at {', '.join(wrong)} ({wrong[0]}: {found}); a relative difference of "
            f"{self.tolerance:g} and equal classes are accepted. Compare the checkpoint that it came from, or export "
            "it once more, in another format if need be."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; a difference that is no number is None."""
        rows = {size: {**vars(row), "difference": _finite(row.difference)} for size, row in self.sizes.items()}
        whole = {"passed": self.passed, "tolerance": self.tolerance, "difference": _finite(self.difference)}
        return {**whole, "resolutions": rows}

    def __str__(self) -> str:
        lines = [f"{'resolution':>12}{'images':>8}{'difference':>12}{'same class':>14}"]
        for size, row in self.sizes.items():
            same = f"{row.agreeing} of {row.clear}"
            note = row.failure or (f"{row.float64} compared in float64" if row.float64 else "")
            lines.append(f"{size:>12}{row.images:>8}{row.difference:>12.1e}{same:>14}  {note}".rstrip())
        verdict = "agrees" if self.passed else "disagrees"
        return "\n".join(
            [*lines, f"{verdict}: largest difference {self.difference:.1e}, {self.tolerance:g} is accepted"]
        )

    def _wrong(self) -> list[str]:
        rows = self.sizes.items()
        return [size for size, row in rows if row.difference > self.tolerance or row.agreeing < row.clear]


def compare(
    run: Callable[[Tensor], Tensor],
    x: Tensor,
    expected: Tensor,
    tolerance: float,
    exact: Callable[[Tensor], Tensor | None] = lambda x: None,
) -> Agreement:
    """Compare what an export gives for images (N, C, H, W) with what the network gives, (N, classes, …).

    Args:
        exact: gives what the network gives in double precision, or None if it can't. Images whose difference is above
            the tolerance, yet not so far that rounding is out of question, are compared with that: where a network
            amplifies rounding, PyTorch's own may be the larger part.
    """
    try:
        got = run(x)
    except Exception as error:  # whatever the software raises
        return Agreement(math.inf, len(x), failure=f"it fails: {first_line(error)}")
    if got.shape != expected.shape:
        return Agreement(math.inf, len(x), failure=f"it gives {tuple(got.shape)}, not {tuple(expected.shape)}")
    relative = _relative(got, expected)
    doubtful = (relative > tolerance) & (relative < _ROUNDING * tolerance)
    again = exact(x[doubtful]) if doubtful.any() else None
    if again is not None:
        relative[doubtful] = _relative(got[doubtful].double(), again).to(relative)
    clear, agreeing = _classes(got, expected, expected.flatten(1).abs().amax(1) * tolerance)
    return Agreement(float(relative.max()), len(x), clear, agreeing, 0 if again is None else len(again))


def _relative(got: Tensor, expected: Tensor) -> Tensor:
    """Return the largest difference of each image, by its largest logit."""
    scale = expected.flatten(1).abs().amax(1)
    errors = (got - expected).flatten(1).abs().amax(1)
    # Logits that are all zero, of a new classifier, have no scale.
    return (errors / scale.where(errors != 0, scale.new_ones(()))).nan_to_num(math.inf, math.inf)


def _classes(got: Tensor, expected: Tensor, gap: Tensor) -> tuple[int, int]:
    """Count the predictions that are clear, and those of them that agree."""
    if expected.shape[1] < 2:
        return 0, 0
    best = expected.topk(2, dim=1).values
    clear = (best[:, 0] - best[:, 1]) > gap.view(-1, *[1] * (expected.ndim - 2))
    return int(clear.sum()), int((clear & (got.argmax(1) == expected.argmax(1))).sum())


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None

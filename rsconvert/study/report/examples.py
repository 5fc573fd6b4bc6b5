"""Example images: drawn by a seed from all images, shown as the inputs of the paths."""

import base64
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from PIL import Image
from torch import Tensor

from rsconvert.data import EvaluationViews, Samples
from rsconvert.errors import ConfigError, DataError
from rsconvert.evaluation import NETWORK, Predictions, size_name

__all__ = ["draw_images", "encoded_views", "short_name"]

_QUALITY = 88


def draw_images(count: int, of: int, seed: int) -> list[int]:
    """Return the sorted indices of images drawn without replacement; all if there are no more.

    Raises:
        ConfigError: the count is negative.
    """
    if count < 0:
        raise ConfigError(f"examples is {count}; a number of images of 0 or more is accepted.")
    return sorted(Random(seed).sample(range(of), min(count, of)))


def encoded_views(found: Predictions, samples: Samples, drawn: Sequence[int]) -> Iterator[dict[str, str]]:
    """Yield for each drawn image its view at every size, a JPEG as a data URI, by the size's name.

    Raises:
        DataError: one can't be read.
    """
    subject = found.subjects[NETWORK]
    interpolation = subject.preprocessing.interpolation
    views = EvaluationViews(samples, list(subject.paths), crop_pct=subject.crop_pct, interpolation=interpolation)
    for index in drawn:
        seen = views[index]
        if isinstance(seen, DataError):
            raise seen
        yield {size_name(size): _data_uri(view) for size, view in zip(subject.paths, seen[0], strict=True)}


def short_name(samples: Samples, index: int) -> str:
    """Return the file of a sample with the name of its folder."""
    return "/".join(Path(samples.name(index)).parts[-2:])


def _data_uri(view: Tensor) -> str:
    file = io.BytesIO()
    Image.fromarray(view.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=_QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"

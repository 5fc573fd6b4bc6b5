"""predict: photos in, names of classes with their probabilities out."""

import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from rsconvert.checkpoint import load
from rsconvert.data import (
    Photo,
    Samples,
    evaluation_loader,
    photo_samples,
    postponed_interrupts,
    read_output_names,
    without_broken,
)
from rsconvert.errors import ConfigError, TrainingError
from rsconvert.evaluation import Amp, check_labels, choose_device, plain_memory_errors
from rsconvert.models import readable_names
from rsconvert.runtime.cascade import CascadeOutput
from rsconvert.runtime.predictors import (
    Predictor,
    cascade_predictor,
    chosen_resolution,
    onnx_predictor,
    path_predictor,
)
from rsconvert.surgery import SwitchableModel, eval_mode
from rsconvert.text import Table

__all__ = ["ClassProbability", "Prediction", "PredictionList", "predict"]


@dataclass(frozen=True)
class ClassProbability:
    """A class: its output, its name if it is known, and its probability in [0, 1]."""

    index: int
    name: str | None
    probability: float

    @property
    def label(self) -> str:
        """The name, else the output."""
        return str(self.index) if self.name is None else self.name


@dataclass(frozen=True)
class Prediction:
    """What a network predicts for one image: the most probable classes, the best first.

    ``image`` is its file, or its place in the list; ``resolution`` that of the path that predicted, in pixels.
    """

    image: str
    resolution: int
    classes: tuple[ClassProbability, ...]

    @property
    def name(self) -> str | None:
        """The name of the most probable class, if it is known."""
        return self.classes[0].name

    @property
    def probability(self) -> float:
        """The probability of the most probable class."""
        return self.classes[0].probability


class PredictionList(tuple[Prediction, ...]):
    """Predictions in the order of the images; printed as a table."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: ``images``, each with image, resolution and classes; probabilities in [0, 1]."""
        return {"images": [asdict(prediction) for prediction in self]}

    def as_csv(self) -> str:
        """Return a row per image and class: image, resolution, rank, index, class, probability in [0, 1]."""
        rows = [
            (p.image, p.resolution, rank, c.index, c.name, c.probability)
            for p in self
            for rank, c in enumerate(p.classes, 1)
        ]
        return Table(("image", "resolution", "rank", "index", "class", "probability"), rows).as_csv()

    def __str__(self) -> str:
        return self._table().as_text()

    def __repr__(self) -> str:
        return f"<predictions for {len(self)} {'image' if len(self) == 1 else 'images'}>"

    def _repr_html_(self) -> str:
        return self._table().as_html()

    def _table(self) -> Table:
        rows = [
            (*((p.image, p.resolution) if rank == 0 else (None, None)), c.label, f"{100 * c.probability:.1f}")
            for p in self
            for rank, c in enumerate(p.classes)
        ]
        return Table(("image", "resolution", "class", "probability (%)"), rows)


def predict(
    net: SwitchableModel | str | os.PathLike[str],
    images: Photo | Iterable[Photo],
    *,
    resolution: int | None = None,
    latency_ms: float | None = None,
    cascade: bool = False,
    top_k: int = 5,
    class_map: str | Path | None = None,
    batch_size: int = 64,
    workers: int = 2,
    device: str | torch.device | None = None,
    amp: Amp = None,
    skip_broken: int = 0,
    progress: bool = False,
) -> PredictionList:
    """Predict the classes of photos.

    A view is cut out of each photo as ``evaluate`` does. Modes are left as they are; the network moves to the device.

    Args:
        net: a network, a place as of ``load``, or an ONNX file that ``export`` wrote, which runs on the CPU.
        images: files, folders with all images below them, images of Pillow, uint8 pixels (H, W, 3) of NumPy or
            (3, H, W) or (1, H, W) of torch; one or several.
        resolution: of the path, in pixels, trained or not; None takes the native one.
        latency_ms: the path is the best within this time for one image, see ``for_budget``.
        cascade: run the stored cascade, which chooses the path of each image.
        top_k: classes for each image.
        class_map: a file of lines NAME INDEX: the names of the outputs, among which alone is predicted.
        workers: processes that read images, where there is more than one batch.
        skip_broken: photos that can't be read and may be left out, see ``without_broken``.
    Raises:
        DataError: a photo does not exist or can't be read, or the network takes neither colours nor grey.
        ConfigError: an argument is unusable, or two of them choose the path.
        CheckpointError, ResolutionError: of the network's file and path.
        UnsupportedModelError: the output is not logits (N, classes).
        TrainingError: a logit is no finite number.
    """
    if top_k < 1:
        raise ConfigError(f"top_k is {top_k}; at least 1 class is needed for each image.")
    samples = photo_samples(images)
    predictor = _predictor(net, resolution, latency_ms, cascade, device, amp)
    if class_map is not None:
        predictor = _mapped(predictor, class_map)
    (samples,) = without_broken([samples], skip_broken, workers=workers)
    with plain_memory_errors(batch_size, workers):
        return PredictionList(_predicted(predictor, samples, top_k, batch_size, workers, progress))


def _predicted(
    predictor: Predictor, samples: Samples, top_k: int, batch_size: int, workers: int, progress: bool
) -> list[Prediction]:
    loader = evaluation_loader(
        samples,
        predictor.sizes,
        batch_size=batch_size,
        workers=workers if len(samples) > batch_size else 0,
        crop_pct=predictor.crop_pct,
        interpolation=predictor.interpolation,
        channels=predictor.channels,
    )
    found: list[Prediction] = []
    with (
        postponed_interrupts() as check,
        closing(loader),
        eval_mode(predictor.modules),
        torch.no_grad(),
        tqdm(total=len(samples), desc="predict", unit="image", disable=not progress, leave=False) as bar,
    ):
        for views, _ in loader:
            output = predictor.run(views)
            names = [samples.name(len(found) + i) for i in range(len(output.logits))]
            found += _predictions(output, names, predictor, top_k)
            bar.update(len(names))
            check()
    return found


def _predictor(
    net: SwitchableModel | str | os.PathLike[str],
    resolution: int | None,
    latency_ms: float | None,
    cascade: bool,
    device: str | torch.device | None,
    amp: Amp,
) -> Predictor:
    if cascade and (resolution is not None or latency_ms is not None):
        raise ConfigError("cascade is set, which chooses the path of each image. Leave resolution and latency_ms out.")
    if not isinstance(net, SwitchableModel):
        if Path(net).suffix == ".onnx":
            _check_onnx(latency_ms=latency_ms, cascade=cascade or None, device=device, amp=amp)
            return onnx_predictor(net, resolution)
        net = load(os.fspath(net))
    net = net.to(choose_device(device))
    if cascade:
        return cascade_predictor(net, amp)
    return path_predictor(net, chosen_resolution(net, resolution, latency_ms, amp), amp)


def _check_onnx(**given: object) -> None:
    for name, value in given.items():
        if value is not None:
            raise ConfigError(
                f"{name} is {value} for an ONNX file, which knows no costs and runs on the CPU as it is; a checkpoint "
                "is needed for it. Leave it out, or give the checkpoint."
            )


def _mapped(predictor: Predictor, class_map: str | Path) -> Predictor:
    """Return a predictor that predicts among the outputs of a file alone, under its names."""
    names = read_output_names(class_map)
    labels = readable_names([*names.values()])
    return replace(predictor, names=dict(zip(names, labels, strict=True)), outputs=tuple(names))


def _predictions(output: CascadeOutput, images: Sequence[str], how: Predictor, top_k: int) -> list[Prediction]:
    logits, names = output.logits, how.names or {}
    _check_finite(logits, images)
    places = torch.arange(logits.shape[1]) if how.outputs is None else torch.tensor(how.outputs)
    check_labels(places, logits.shape[1])
    best = logits[:, places.to(logits.device)].softmax(1).topk(min(top_k, len(places)), dim=1)
    indices: list[list[int]] = places[best.indices.cpu()].tolist()
    classes = [
        tuple(ClassProbability(index, names.get(index), probability) for index, probability in zip(*row, strict=True))
        for row in zip(indices, best.values.tolist(), strict=True)
    ]
    return list(map(Prediction, images, output.resolution.tolist(), classes))


def _check_finite(logits: Tensor, images: Sequence[str]) -> None:
    broken = (~logits.isfinite()).any(1).nonzero()
    if len(broken):
        raise TrainingError(
            f"the network's logits for {images[int(broken[0])]} are not all finite numbers; its weights are broken, or "
            "the precision is too low. Evaluate it, or try amp off."
        )

"""A network's report: asked once about every image, told on one page that needs nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from rsconvert.checkpoint import replacing
from rsconvert.data import Samples, Size, open_split
from rsconvert.errors import CheckpointError
from rsconvert.evaluation import default_resolutions, predict, with_baselines
from rsconvert.study.report.class_names import read_class_names
from rsconvert.study.report.examples import draw_images, encoded_views, short_name
from rsconvert.study.report.facts import answer_facts, drawn_facts, network_facts
from rsconvert.study.report.page import render
from rsconvert.study.report.provenance import file_facts, made_facts, read_curves
from rsconvert.surgery import SwitchableModel

__all__ = ["write_report"]


def write_report(
    net: SwitchableModel,
    data: str | Path | Samples,
    path: str | Path,
    resolutions: Sequence[Size] | None = None,
    *,
    baselines: Mapping[str, nn.Module] | None = None,
    examples: int = 24,
    seed: int = 0,
    class_names: str | Path | None = None,
    origin: str | Path | None = None,
    command: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Write one HTML file about a network: accuracy, cost and example images with each path's answers.

    The file holds its figures as JSON too, under the id ``facts``; they are returned. Every figure is that of
    ``evaluate``, whose further options ``predict`` takes too.

    Args:
        path: the file to write, in the place of one of that name.
        resolutions: None takes the trained ones and, where the network works there, those midway between.
        baselines: other networks by name, see ``evaluate``.
        examples: how many images to show, drawn from all alike by ``seed``.
        class_names: a file that gives classes names for people, see `read_class_names`.
        origin: the file of the network, whose size and date are told, or the folder of its run, whose curves are too.
        command: what made the page, to be told on it.
    Raises:
        RSConvertError: as ``evaluate``; images can't be read by index; a file can't be read or written.
    """
    _check_folder(Path(path))
    samples = open_split(str(data), "val", root=options.get("data_root")) if isinstance(data, str | Path) else data
    drawn = draw_images(examples, len(samples), seed)
    shown = samples.subset(drawn) if drawn else samples
    labels = None if class_names is None else read_class_names(class_names, samples.classes)
    known = _known(origin)
    sizes = default_resolutions(net) if resolutions is None else resolutions
    found = predict(with_baselines(net, baselines), samples, sizes, **options)
    facts = {
        "made": made_facts(command, net.alpha.device),
        **known,
        "data": _data_name(data),
        "network": network_facts(net),
        **answer_facts(found, labels),
        "examples": {"seed": seed, "images": drawn_facts(found, drawn, [short_name(samples, i) for i in drawn])},
    }
    text = render(facts, list(encoded_views(found, shown, range(len(drawn)))))
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
    return facts


def _check_folder(path: Path) -> None:
    """Refuse before the work what else would fail after it."""
    if not path.absolute().parent.is_dir():
        raise CheckpointError(
            f"{path} can't be written (its folder does not exist); a name in a folder that exists is needed. Make it."
        )


def _known(origin: str | Path | None) -> dict[str, Any]:
    """Return what is known of the network's file, and of its run."""
    if origin is None:
        return {"checkpoint": None, "epochs": None}
    return {"checkpoint": file_facts(origin), "epochs": read_curves(origin) if Path(origin).is_dir() else None}


def _data_name(data: str | Path | Samples) -> str:
    return str(data) if isinstance(data, str | Path) else "samples"

"""A folder for a model hub: the switchable file, the native network for others, and a model card."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torchvision
from huggingface_hub import ModelCardData

from rsconvert.checkpoint import PUBLISHED, save, sync
from rsconvert.errors import ConfigError, first_line
from rsconvert.evaluation import Accuracy, Evaluation, MaskAccuracy, Paired, multiply_adds
from rsconvert.export.push import check_repository, push_folder
from rsconvert.export.stock import TIMM_FILES, stock_library, write_timm, write_torchvision
from rsconvert.export.target import Exported, check_folder, replacing_folder
from rsconvert.models import TORCHVISION, count_outputs
from rsconvert.surgery import SwitchableModel
from rsconvert.text import Table

__all__ = ["export_hub", "model_card"]

_CARD = "README.md"
_PLACE = "USER/NAME"
_PRETRAINED = "pretrained "
# The identifiers that the hub takes, of those that weights are published under; it wants all else as "other".
_LICENCES = (
    "agpl-3.0", "apache-2.0", "apple-amlr", "apple-ascl", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0",
    "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-4.0", "cc0-1.0",
    "fair-noncommercial-research-license", "gemma", "gpl-3.0", "isc", "lgpl-3.0", "mit", "mpl-2.0", "openrail",
    "unknown", "unlicense",
)  # fmt: skip
# The data, as the tags of timm and torchvision have them.
_DATASETS = {f"in{size}": f"imagenet-{size}" for size in ("1k", "12k", "21k", "22k")} | {"imagenet1k": "imagenet-1k"}


def export_hub(
    net: SwitchableModel,
    folder: str | Path,
    *,
    results: Evaluation | Mapping[str, Any] | None = None,
    licence: str | None = None,
    push: str | None = None,
    force: bool = False,
) -> Exported:
    """Write a folder fit for upload to a model hub, and upload it if asked.

    It holds ``README.md``, the model card; the native network as ``model.safetensors``, with ``config.json`` for
    stock timm, which opens the folder strictly, or as the state_dict of torchvision; and the switchable file as
    ``rsconvert.safetensors``.

    Args:
        results: of ``evaluate``, or the object that ``rsconvert evaluate --json`` printed, for the card's table.
        licence: of the source weights, for all files; None takes what timm says of weights that were downloaded.
        push: USER/NAME of the repository to upload to, by the hub's own client; the licence must be known then.
        force: replace an earlier export; a folder that holds anything else is never replaced.
    Raises:
        UnsupportedModelError: the network has no name of a library, or gives features.
        ConfigError: the results are of another network, or the licence is no line of text.
        CheckpointError: the folder exists, holds other files, can't be written, or can't be uploaded.
    """
    folder = Path(folder)
    library = stock_library(net)
    check_folder(folder, force, {*TIMM_FILES, PUBLISHED, _CARD})
    licence = _known_licence(net, licence)
    if push is not None:
        check_repository(push)
        _check_licence(licence)
    with _licensed(net, licence), replacing_folder(folder) as part:
        card = model_card(net, results, licence, place=push or _PLACE)
        if library == "timm":
            write_timm(net, net.native, part)
        else:
            write_torchvision(net, net.native, part / "model.safetensors")
        save(net, part / PUBLISHED)
        (part / _CARD).write_text(card, encoding="utf-8")
        sync(part / _CARD)
        sync(part / _CARD)
    left = [line.removeprefix("- ").partition(":")[0] for line in card.splitlines() if "unknown: fill in" in line]
    address = None if push is None else push_folder(folder, push)
    return Exported({folder: None}, left_open=(*left, *([_PLACE] if push is None else [])), address=address)


@contextmanager
def _licensed(net: SwitchableModel, licence: str | None) -> Iterator[None]:
    """Let the files that are written say a licence."""
    before = net.source
    net.source = replace(before, licence=licence)
    try:
        yield
    finally:
        net.source = before


def _check_licence(licence: str | None) -> None:
    if licence is None:
        raise ConfigError(
            "the licence of the source weights is unknown; what is uploaded needs one. Give it by --licence, such as "
            "apache-2.0, or unknown."
        )


def _known_licence(net: SwitchableModel, given: str | None) -> str | None:
    """Return the licence of the source weights: the given one, that of the source, or what timm says of them."""
    if given is not None and not (given.strip() and given.isprintable()):
        raise ConfigError(f"licence is {given!r}; a name such as apache-2.0 is accepted. Give it on one line.")
    published = _published(net)
    known = given or net.source.licence
    if published is not None and published.license != "unknown":  # for files from before the licence was kept
        known = known or published.license
    return known


def model_card(
    net: SwitchableModel,
    results: Evaluation | Mapping[str, Any] | None = None,
    licence: str | None = None,
    *,
    place: str = _PLACE,
) -> str:
    """Return the text of README.md, with the front matter that a hub reads; arguments are those of `export_hub`.

    Without results the table holds multiply-adds alone.
    """
    licence = _known_licence(net, licence)
    datasets = _datasets(net.source.weights or "", _published(net))
    sides, name = ", ".join(map(str, net.resolutions)), str(net.source.architecture)
    parts = [
        f"---\n{_front_matter(net, licence, datasets)}\n---",
        f"# {name.removeprefix(TORCHVISION)} at {sides} pixels",
        f"One network for several input resolutions, made with rsconvert. {_shared(net)}",
        "## What it is",
        "\n".join(f"- {key}: {value}" for key, value in _facts(net, licence, datasets).items()),
        "## By resolution",
        _costs(net) if results is None else _accuracies(net, results),
        "## How to load it",
        "`USER/NAME` is the place of this folder on the hub." if place == _PLACE else "",
        _loading_plain(net),
        _loading_other(net),
        _LOADING.replace("(N, 3, H, W)", f"(N, {net.source.preprocessing.channels}, H, W)"),
    ]
    return "\n\n".join(filter(None, parts)).replace(_PLACE, place) + "\n"


def _shared(net: SwitchableModel) -> str:
    """Say what all resolutions share, and what each has of its own."""
    own = ["BatchNorm"] * net.private + ["a classifier"] * any(net.switchable_heads())
    if not own:
        return "All resolutions share all weights; an image costs what the table says."
    return (
        f"All resolutions share the weights of the layers; each has {' and '.join(own)} of its own (RS-Nets, "
        "[arXiv 2007.09558](https://arxiv.org/abs/2007.09558)). The size of the input chooses, and costs what the "
        f"table says; sizes between run on interpolated {' and '.join(own).replace('a classifier', 'classifiers')}."
    )


def _published(net: SwitchableModel) -> Any:
    """Return what timm says of weights that it downloaded by a name of its own, else None."""
    kind, _, name = (net.source.weights or "").partition(" ")
    try:
        return timm.get_pretrained_cfg(name) if kind == "pretrained" and timm.is_model(name) else None
    except (RuntimeError, ValueError):  # the tag is one of another version of timm
        return None


def _datasets(weights: str, published: Any) -> list[str]:
    """Return the sets that the source weights were trained on, as far as their tag says."""
    tag = published.tag if published is not None else weights if weights.startswith(_PRETRAINED) else ""
    words = re.split(r"[^a-z0-9]+", tag.lower())
    return sorted({_DATASETS[word] for word in words if word in _DATASETS})


def _front_matter(net: SwitchableModel, licence: str | None, datasets: list[str]) -> str:
    known = licence is None or licence in _LICENCES
    library = stock_library(net)
    data = ModelCardData(
        library_name=library,
        license=(licence or "unknown") if known else "other",
        license_name=None if known else licence,
        datasets=datasets or None,
        pipeline_tag=_pipeline(net),
        tags=[library, "rsconvert", "resolution-switchable"],
    )
    return data.to_yaml()


def _pipeline(net: SwitchableModel) -> str | None:
    if net.source.task.dense:
        return "image-segmentation"
    return "image-classification" if count_outputs(net.at(net.native)) else None


def _facts(net: SwitchableModel, licence: str | None, datasets: list[str]) -> dict[str, str]:
    source, weights = net.source, net.source.weights or ""
    weights = weights if weights.startswith(_PRETRAINED) else Path(weights).name  # a file's folders are private
    classes = f"{source.num_classes}" + (", named in the files" if source.class_names else "")
    return {
        "architecture": f"{_code(str(source.architecture))} of {stock_library(net)}"
        + (f" with {_code(json.dumps(dict(source.model_kwargs)))}" if source.model_kwargs else ""),
        "parameters": f"{sum(p.numel() for p in net.parameters()):,}",
        "classes": "unknown" if source.num_classes is None else classes,
        "images": f"{_colours(source.preprocessing.channels)}, {_code(json.dumps(vars(source.preprocessing)))}",
        "source weights": _code(weights) if weights else "unknown: fill in",
        "data of the source weights": ", ".join(datasets) or "unknown: fill in",
        "finetuned": _code(json.dumps(dict(source.training))) if source.training else "no",
        **_int8(net),
        "licence of the source weights": _code(licence) if licence else "unknown: fill in before you publish",
    }


def _colours(channels: int) -> str:
    return {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")


def _int8(net: SwitchableModel) -> dict[str, str]:
    held = net.measured.int8
    return {} if held is None else {"int8": f"ranges of activations, from {held['images']} images, for ONNX files"}


def _code(text: str) -> str:
    return f"`{''.join(c if c.isprintable() and c != '`' else ' ' for c in text)}`"


def _costs(net: SwitchableModel) -> str:
    rows = [(r, f"{multiply_adds(net.at(r), r) / 1e6:.1f}") for r in net.resolutions]
    return Table(("resolution", "multiply-adds (M)"), rows).as_markdown()


def _accuracies(net: SwitchableModel, results: Evaluation | Mapping[str, Any]) -> str:
    try:
        found = results if isinstance(results, Evaluation) else _evaluation(results)
        table = found.as_markdown()
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(
            f"results are not those of an evaluation ({type(error).__name__}: {first_line(error)}); what "
            "`rsconvert evaluate --json` prints is accepted. Evaluate again."
        ) from error
    trained = {size for size, row in found.resolutions.items() if not row.interpolated}
    if not trained or not trained <= {*net.resolutions}:
        raise ConfigError(
            f"results are of a network trained at {sorted(map(str, trained))}; this one is trained at "
            f"{net.resolutions}. Give those of this network."
        )
    return table


def _evaluation(facts: Mapping[str, Any]) -> Evaluation:
    """Return the evaluation that was written as JSON, without the classes."""
    baselines = {re.sub(r"[^\w .+-]", "_", name): other for name, other in facts.get("baselines", {}).items()}
    return Evaluation(
        count=facts["count"],
        resolutions={_size(size): _accuracy(row) for size, row in facts["resolutions"].items()},
        ensemble=_accuracy(facts["ensemble"]) if facts.get("ensemble") else None,
        baselines={name: _evaluation({"count": facts["count"], **other}) for name, other in baselines.items()},
    )


def _accuracy(row: Mapping[str, Any]) -> Accuracy | MaskAccuracy:
    if "miou" in row:
        return MaskAccuracy(**{key: value for key, value in row.items() if key != "per_class"})
    paired = {"paired": Paired(**row["paired"])} if "paired" in row else {}
    return Accuracy(**{key: value for key, value in row.items() if key != "per_class"} | paired)


def _size(text: str) -> Any:
    height, _, width = text.partition("x")
    return (int(height), int(width)) if width else int(height)


_LOADING = """With rsconvert, at every resolution:

```python
import rsconvert

net = rsconvert.load("hf-hub:USER/NAME")
logits = net(images)  # (N, 3, H, W); net.at(r) is the path of one resolution
```

Its commands take that place too: `rsconvert evaluate hf-hub:USER/NAME --data DIR`."""


def _loading_plain(net: SwitchableModel) -> str:
    """Say how the native network is loaded by the library that it is from."""
    source, short = net.source, str(net.source.architecture).removeprefix(TORCHVISION)
    if stock_library(net) == "timm":
        lines = ["import timm", "", 'model = timm.create_model("hf-hub:USER/NAME", pretrained=True).eval()']
    else:
        taken = inspect.signature(torchvision.models.get_model_builder(short)).parameters
        arguments: dict[str, Any] = {key: None for key in ("weights", "weights_backbone") if key in taken}
        arguments |= {} if source.num_classes is None else {"num_classes": source.num_classes}
        given = ", ".join(f"{key}={value!r}" for key, value in (arguments | dict(source.model_kwargs)).items())
        lines = [
            "import torchvision",
            "from huggingface_hub import hf_hub_download",
            "from safetensors.torch import load_file",
            "",
            f'model = torchvision.models.get_model("{short}", {given}).eval()',
            'model.load_state_dict(load_file(hf_hub_download("USER/NAME", "model.safetensors")))',
        ]
    code = "\n".join(lines)
    return f"With {stock_library(net)} alone, the network of {net.native} pixels:\n\n```python\n{code}\n```"


def _loading_other(net: SwitchableModel) -> str:
    """Say how the tensors of another resolution come into that model, where that is a matter of names."""
    tensors = net.state_dict(keep_vars=True).values()
    tied = len({id(tensor) for tensor in tensors}) < len(tensors)
    if tied or len(net.resolutions) < 2 or not any(net.switchable_layers()) or net.source.built_with is not None:
        return ""
    side = net.resolutions[-1]
    return f"""The path of {side} pixels has tensors of its own, named with `.at.{side}.`; they go into `model`:

```python
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file

tensors = load_file(hf_hub_download("USER/NAME", "rsconvert.safetensors"))
own = {{name.replace(".at.{side}.", "."): tensors[name] for name in tensors if ".at.{side}." in name}}
tensors |= own
model.load_state_dict({{name: tensors[name] for name in model.state_dict()}})
```"""

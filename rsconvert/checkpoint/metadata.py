"""What a switchable file tells of its network: one JSON object in the header."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsconvert.checkpoint.costs import check_costs
from rsconvert.checkpoint.tensors import read_header, read_tensors
from rsconvert.data import Preprocessing
from rsconvert.errors import CheckpointError
from rsconvert.models import ImageArgument, Source
from rsconvert.surgery import BUILD, WAYS, Measured, SwitchableModel, check_resolutions, check_stages

__all__ = [
    "FORMAT_VERSION",
    "describe",
    "encode_metadata",
    "measured_in",
    "names_library",
    "read_metadata",
    "source_in",
]

FORMAT_VERSION = 1

_TYPES = {
    "architecture": str,
    "model_kwargs": dict,
    "num_classes": int,
    "built_with": str,
    "images": list,
    "private": bool,
    "private_tensors": list,
    "aliases": dict,
    "class_names": list,
    "source": str,
    "license": str,
    "new_classifier": list,
    "training": dict,
    "costs": dict,
    "cascade": dict,
}
_OF_STRINGS = ("aliases", "class_names", "new_classifier", "private_tensors")


def encode_metadata(net: SwitchableModel, aliases: Mapping[str, str]) -> dict[str, str]:
    """Return the header's metadata for a network; ``aliases`` maps further names of a tensor to the stored one.

    Raises:
        CheckpointError: an argument of the model can't be told in JSON, or ``crop_pct`` has another length.
    """
    source, measured = net.source, net.measured
    facts = {
        "format_version": FORMAT_VERSION,
        "architecture": None if net.restructured else source.architecture,
        "model_kwargs": dict(source.model_kwargs),
        "num_classes": source.num_classes,
        "built_with": source.built_with,
        "resolutions": net.resolutions,
        "mean": source.preprocessing.mean,
        "std": source.preprocessing.std,
        "interpolation": source.preprocessing.interpolation,
        "crop_pct": source.preprocessing.crop_pct,
        "private": net.private,
        "private_tensors": net.private_beside(),
        "aliases": dict(aliases),
        "source": source.weights,
        "license": source.licence,
        "new_classifier": source.new_classifier,
        "class_names": source.class_names,
        "training": None if source.training is None else dict(source.training),
        "costs": None if measured.costs is None else {key: list(rows) for key, rows in measured.costs.items()},
        "cascade": None if measured.cascade is None else dict(measured.cascade),
    }
    try:
        _check_crop_pct(source.preprocessing.crop_pct, net.resolutions)
        kept: dict[str, Any] = {key: value for key, value in facts.items() if value not in (None, {}, (), [])}
        if source.images is not None:  # that there are none is a fact, too
            kept["images"] = [image.to_dict() for image in source.images]
        text = json.dumps(kept)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"the network can't be described in JSON ({error}); model_kwargs {source.model_kwargs} and the training "
            "record need plain values, and crop_pct one number or one per resolution. Correct net.source."
        ) from error
    return {"format": "pt", "rsconvert": text}


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return the ``rsconvert`` metadata of a file, checked, without reading its tensors.

    Raises:
        CheckpointError: there is no such file, it is no safetensors file, or no switchable one of this version.
    """
    header = read_header(path)
    if "rsconvert" not in header:
        raise CheckpointError(
            f"{path} is a plain checkpoint, without the metadata of a switchable one; a file that rsconvert wrote is "
            "needed. Convert it: rsconvert wrap MODEL --weights FILE."
        )
    try:
        facts = _parsed(header["rsconvert"])
        if facts["format_version"] <= FORMAT_VERSION:
            return _checked(facts)
    except (ValueError, OverflowError, RecursionError) as error:
        raise CheckpointError(
            f"{path} has damaged metadata ({' '.join(str(error).split())}); "
            "the fields of docs/checkpoint_format.md are needed. Write the file again."
        ) from error
    raise CheckpointError(
        f"{path} has format version {facts['format_version']}; this rsconvert reads versions up to {FORMAT_VERSION}. "
        "Update rsconvert."
    )


def names_library(facts: Mapping[str, Any]) -> bool:
    """Tell whether metadata names a model of timm or torchvision, which alone are built from a file."""
    name = facts.get("architecture")
    return name is not None and ":" not in name  # as of a user's file, the hub, a local folder


def source_in(facts: Mapping[str, Any]) -> Source:
    """Return what the checked metadata of a file tells of the source."""
    names = facts.get("class_names")
    return Source(
        architecture=facts.get("architecture"),
        model_kwargs=facts.get("model_kwargs", {}),
        num_classes=facts.get("num_classes"),
        built_with=facts.get("built_with"),
        images=_images(facts),
        preprocessing=_preprocessing(facts),
        weights=facts.get("source"),
        licence=facts.get("license"),
        new_classifier=tuple(facts.get("new_classifier", ())),
        class_names=None if names is None else tuple(names),
        training=facts.get("training"),
    )


def measured_in(facts: Mapping[str, Any]) -> Measured:
    """Return what the checked metadata of a file tells of measurements."""
    return Measured(costs=facts.get("costs"), cascade=facts.get("cascade"))


def describe(path: str | Path) -> dict[str, Any]:
    """Return what a file holds as plain data, without building its network.

    That is its metadata, ``importance_scores`` by resolution (softmax of alpha), the number of ``tensors`` and
    of the ``values`` in them, their ``dtypes``, and the size in ``bytes``.

    Raises:
        CheckpointError: the file is no intact switchable file of a known version.
    """
    facts, tensors = read_metadata(path), read_tensors(path)
    alpha = tensors.get("rsconvert.alpha")
    if alpha is None or alpha.shape != (len(facts["resolutions"]),) or not alpha.is_floating_point():
        raise CheckpointError(
            f"{path} has no rsconvert.alpha with a number for each of {facts['resolutions']}; a complete switchable "
            "file is needed. Write it again."
        )
    scores = alpha.float().softmax(0).tolist()
    return {
        **facts,
        "resolutions": list(facts["resolutions"]),
        "importance_scores": {str(r): score for r, score in zip(facts["resolutions"], scores, strict=True)},
        "tensors": len(tensors),
        "values": sum(t.numel() for t in tensors.values()),
        "dtypes": sorted({str(t.dtype).removeprefix("torch.") for t in tensors.values()}),
        "bytes": Path(path).stat().st_size,
    }


def _parsed(text: str) -> dict[str, Any]:
    facts = json.loads(text)
    if type(facts) is not dict:
        raise ValueError("it is no JSON object")
    version = facts.get("format_version")
    if type(version) is not int or version < 1:
        raise ValueError(f"format_version is {version!r}")
    return facts


def _checked(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts without null fields and with a tuple of resolutions.

    Raises:
        ValueError: a field is missing or has another type.
    """
    facts = {name: value for name, value in facts.items() if value is not None}
    for name, kind in _TYPES.items():
        if type(facts.get(name, kind())) is not kind:
            raise ValueError(f"{name} is {facts[name]!r}")
    if facts.get("num_classes", 0) < 0:
        raise ValueError(f"num_classes is {facts['num_classes']}")
    for name in _OF_STRINGS:
        values = facts.get(name, [])
        if not all(type(value) is str for value in (values.values() if isinstance(values, dict) else values)):
            raise ValueError(f"{name} holds something else than strings")
    _images(facts)
    check_costs(facts.get("costs", {}))
    if facts.get("built_with", BUILD) not in (BUILD, *WAYS):
        raise ValueError(f"built_with is {facts['built_with']!r}")
    for name in ("architecture", "license"):
        if not facts.get(name, "").isprintable():
            raise ValueError(f"{name} is {facts[name]!r}")
    resolutions = facts.get("resolutions")
    if type(resolutions) is not list or check_resolutions(resolutions) != tuple(resolutions):
        raise ValueError(f"resolutions is {resolutions!r}")
    _check_crop_pct(_preprocessing(facts).crop_pct, resolutions)
    if "cascade" in facts:
        _check_cascade(facts["cascade"], facts.get("num_classes"))
    return {**facts, "resolutions": tuple(resolutions)}


def _images(facts: Mapping[str, Any]) -> tuple[ImageArgument, ...] | None:
    images = facts.get("images")
    if images is None:
        return None
    if not all(type(image) is dict for image in images):
        raise ValueError(f"images is {images!r}")
    return tuple(map(ImageArgument.from_dict, images))


def _preprocessing(facts: Mapping[str, Any]) -> Preprocessing:
    names = ("mean", "std", "interpolation", "crop_pct")
    if missing := [name for name in names if name not in facts]:
        raise ValueError(f"{missing[0]} is missing")
    return Preprocessing(**{name: facts[name] for name in names})


def _check_cascade(cascade: Mapping[str, Any], num_classes: int | None) -> None:
    fields = {name: cascade.get(name, []) for name in ("stages", "thresholds", "outputs")}
    if wrong := [name for name, values in fields.items() if type(values) is not list]:
        raise ValueError(f"{wrong[0]} of the cascade is {fields[wrong[0]]!r}")
    check_stages(fields["stages"], fields["thresholds"])
    most = math.inf if num_classes is None else num_classes
    if not all(type(output) is int and 0 <= output < most for output in fields["outputs"]):
        raise ValueError(f"outputs of the cascade is {fields['outputs']!r}")


def _check_crop_pct(crop_pct: float | tuple[float, ...], resolutions: tuple[int, ...] | list[int]) -> None:
    if isinstance(crop_pct, tuple) and len(crop_pct) != len(resolutions):
        raise ValueError(f"crop_pct has {len(crop_pct)} numbers for {len(resolutions)} resolutions")

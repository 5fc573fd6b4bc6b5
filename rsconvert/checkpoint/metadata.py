"""What a switchable file says of its network: one JSON object in the header."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsconvert.checkpoint.limits import check_entries, check_kwargs, check_sides
from rsconvert.checkpoint.packed import bytes_by_part, check_codes
from rsconvert.checkpoint.tensors import Entry, read_entries, read_header, read_tensors
from rsconvert.data import Preprocessing
from rsconvert.errors import CheckpointError, one_line
from rsconvert.models import SMP, ImageArgument, Source, Task, is_file_name
from rsconvert.quantization import layout_of, parse_bits
from rsconvert.surgery import BUILD, WAYS, Measured, SwitchableModel, check_resolutions, check_stages
from rsconvert.text import parse_json

__all__ = ["FORMAT_VERSION", "Metadata", "check_file", "describe", "encode_metadata", "names_library", "read_metadata"]

# A file without quantized convolutions has version 1, which every reader knows.
FORMAT_VERSION = 2
_LONGEST = 2**24  # characters of JSON
_COLOURS = 3

_TYPES = {
    "architecture": str,
    "model_kwargs": dict,
    "num_classes": int,
    "task": str,
    "output": str,
    "ignore_index": int,
    "auxiliary": dict,
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
    "quantized": dict,
    "int8": dict,
}
_OF_STRINGS = ("aliases", "class_names", "new_classifier", "private_tensors", "quantized")
_COUNTS = ("resolution", "batch_size", "multiply_adds")


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The checked metadata of a file; ``fields`` is all of it as plain data, without what is null.

    ``private_tensors`` are those that no BatchNorm owns; ``aliases`` maps further names of a tensor to the stored one;
    ``quantized`` maps a quantized convolution to its numbers of bits (weights, activations).
    """

    source: Source
    measured: Measured
    resolutions: tuple[int, ...]
    private: bool
    private_tensors: Sequence[str]
    aliases: Mapping[str, str]
    quantized: Mapping[str, tuple[int, int]]
    fields: Mapping[str, Any]


def encode_metadata(net: SwitchableModel, aliases: Mapping[str, str]) -> dict[str, str]:
    """Return the header's metadata for a network; ``aliases`` maps further names of a tensor to the stored one.

    Raises:
        CheckpointError: an argument of the model has no form in JSON, or ``crop_pct`` has another length.
    """
    source, measured = net.source, net.measured
    quantized = {name: f"{own}/{activations}" for name, (own, activations) in layout_of(net).items()}
    facts = {
        "format_version": FORMAT_VERSION if quantized else 1,
        "architecture": None if net.restructured else source.architecture,
        "model_kwargs": dict(source.model_kwargs),
        "num_classes": source.num_classes,
        **_task_facts(source.task),
        "built_with": source.built_with,
        "resolutions": net.resolutions,
        "native": net.native,
        **vars(source.preprocessing),
        "private": net.private,
        "private_tensors": net.other_private_tensors(),
        "aliases": dict(aliases),
        "quantized": quantized,
        "source": source.weights,
        "license": source.licence,
        "new_classifier": source.new_classifier,
        "class_names": source.class_names,
        "training": dict(source.training or {}),
        "costs": {key: list(rows) for key, rows in (measured.costs or {}).items()},
        "cascade": dict(measured.cascade or {}),
        "int8": dict(measured.int8 or {}),
    }
    try:
        _check_crop_pct(source.preprocessing, net.resolutions)
        _check_channels(source.preprocessing, source.channels)
        check_sides("resolutions", net.resolutions)
        check_kwargs(facts["model_kwargs"])
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


def read_metadata(path: str | Path) -> Metadata:
    """Return the metadata of a file, without reading its tensors.

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
        if len(header["rsconvert"]) > _LONGEST:
            raise ValueError(f"it has {len(header['rsconvert'])} characters, and at most {_LONGEST} are read")
        facts = parse_json(header["rsconvert"])
        if type(facts) is not dict:
            raise ValueError("it is no JSON object")
        version = facts.get("format_version")
        if type(version) is not int or version < 1:
            raise ValueError(f"format_version is {version!r}")
        if version <= FORMAT_VERSION:
            return _metadata({name: value for name, value in facts.items() if value is not None})
    except (ValueError, OverflowError) as error:
        raise CheckpointError(
            f"{path} has damaged metadata ({one_line(error)}); "
            "the fields of docs/checkpoint_format.md are needed. Write the file again."
        ) from error
    raise CheckpointError(
        f"{path} has format version {version}; this rsconvert reads versions up to {FORMAT_VERSION}. Update rsconvert."
    )


def names_library(source: Source) -> bool:
    """Return whether a source is a model of a library by name, which alone is built from a file."""
    name = source.architecture
    if name is None or is_file_name(name):
        return False
    return name.startswith(SMP) or ":" not in name  # as in hf-hub:…


def describe(path: str | Path) -> dict[str, Any]:
    """Return what a file holds as plain data, without building its network.

    That is its metadata, ``importance_scores`` by resolution (softmax of alpha), the number of ``tensors`` and
    of the ``values`` in them, their ``dtypes``, the size in ``bytes``, and that of its parts; of a quantized network
    also how many convolutions have which bits.

    Raises:
        CheckpointError: the file is no intact switchable file of a known version.
    """
    held, entries = read_metadata(path), read_entries(path)
    check_file(path, held, entries)
    tensors = read_tensors(path)
    scores = tensors["rsconvert.alpha"].float().softmax(0).tolist()
    int8 = held.measured.int8
    ranges = {"int8": f"ranges of activations, from {int8.get('images')} images"} if int8 else {}
    return {
        **held.fields,
        **ranges,
        "importance_scores": {str(r): score for r, score in zip(held.resolutions, scores, strict=True)},
        "tensors": len(tensors),
        "values": sum(t.numel() for t in tensors.values()),
        "dtypes": sorted({str(t.dtype).removeprefix("torch.") for t in tensors.values()}),
        "bytes": Path(path).stat().st_size,
        "bytes_by_part": bytes_by_part(tensors),
        **({"layers_by_bits": dict(Counter(held.fields["quantized"].values()))} if held.quantized else {}),
    }


def check_file(path: str | Path, held: Metadata, entries: Mapping[str, Entry]) -> None:
    """Raise a CheckpointError if the tensors of a file, as its header has them, do not fit its metadata."""
    try:
        check_entries(entries, held.resolutions, held.source.num_classes)
        check_codes(entries, held.quantized)
    except ValueError as error:
        raise CheckpointError(
            f"{path} can't be a network ({error}); a complete switchable file is needed. Write it again."
        ) from error


def _metadata(facts: Mapping[str, Any]) -> Metadata:
    """Check the fields, and return what they say.

    Raises:
        ValueError: a field is missing or has another type.
    """
    _check_types(facts)
    if "quantized" in facts and facts["format_version"] < 2:
        raise ValueError(f"format_version is {facts['format_version']} with quantized")
    resolutions = facts.get("resolutions")
    if type(resolutions) is not list or check_resolutions(resolutions) != tuple(resolutions):
        raise ValueError(f"resolutions is {resolutions!r}")
    check_sides("resolutions", resolutions)
    if facts.get("native", resolutions[0]) != resolutions[0]:
        raise ValueError(f"native is {facts['native']!r} and the largest of resolutions {resolutions[0]}")
    check_kwargs(facts.get("model_kwargs", {}))
    source = _source(facts)
    _check_crop_pct(source.preprocessing, resolutions)
    source = _with_each_channel(source)
    _check_costs(facts.get("costs", {}))
    if "cascade" in facts:
        _check_cascade(facts["cascade"], source.num_classes)
    if "int8" in facts:
        _check_int8(facts["int8"], resolutions)
    return Metadata(
        source=source,
        measured=Measured(costs=facts.get("costs"), cascade=facts.get("cascade"), int8=facts.get("int8")),
        resolutions=tuple(resolutions),
        private=facts.get("private", True),
        private_tensors=facts.get("private_tensors", ()),
        aliases=facts.get("aliases", {}),
        quantized={name: parse_bits(bits) for name, bits in facts.get("quantized", {}).items()},
        fields=facts,
    )


def _check_types(facts: Mapping[str, Any]) -> None:
    for name, kind in _TYPES.items():
        if type(facts.get(name, kind())) is not kind:
            raise ValueError(f"{name} is {facts[name]!r}")
    for name in _OF_STRINGS:
        values = facts.get(name, [])
        if not all(type(value) is str for value in (values.values() if isinstance(values, dict) else values)):
            raise ValueError(f"{name} holds something else than strings")
    unusable = {
        "num_classes": facts.get("num_classes", 0) < 0,
        "built_with": facts.get("built_with", BUILD) not in (BUILD, *WAYS),
        **{name: not facts.get(name, "").isprintable() for name in ("architecture", "license")},
    }
    if wrong := [name for name, is_wrong in unusable.items() if is_wrong]:
        raise ValueError(f"{wrong[0]} is {facts[wrong[0]]!r}")


def _source(facts: Mapping[str, Any]) -> Source:
    names, images = facts.get("class_names"), facts.get("images")
    if not all(type(image) is dict for image in images or ()):
        raise ValueError(f"images is {images!r}")
    if missing := [name for name in ("mean", "std", "interpolation", "crop_pct") if name not in facts]:
        raise ValueError(f"{missing[0]} is missing")
    mean, std, interpolation, crop_pct = facts["mean"], facts["std"], facts["interpolation"], facts["crop_pct"]
    return Source(
        architecture=facts.get("architecture"),
        model_kwargs=facts.get("model_kwargs", {}),
        num_classes=facts.get("num_classes"),
        task=_task(facts),
        built_with=facts.get("built_with"),
        images=None if images is None else tuple(map(ImageArgument.from_dict, images)),
        preprocessing=Preprocessing(mean=mean, std=std, interpolation=interpolation, crop_pct=crop_pct),
        weights=facts.get("source"),
        licence=facts.get("license"),
        new_classifier=tuple(facts.get("new_classifier", ())),
        class_names=None if names is None else tuple(names),
        training=facts.get("training"),
    )


def _task_facts(task: Task) -> dict[str, Any]:
    """Return what a file says of a task; nothing of a classifier whose output is a tensor."""
    facts = {"task": task.name if task.dense else None, "output": task.output, "ignore_index": task.ignore_index}
    return {**facts, "auxiliary": dict(task.auxiliary)}


def _task(facts: Mapping[str, Any]) -> Task:
    own = {name: facts[name] for name in ("output", "ignore_index", "auxiliary") if name in facts}
    return Task(name=facts.get("task", "classification"), **own)


def _check_crop_pct(preprocessing: Preprocessing, resolutions: Sequence[int]) -> None:
    crop_pct = preprocessing.crop_pct
    if isinstance(crop_pct, tuple) and len(crop_pct) != len(resolutions):
        raise ValueError(f"crop_pct has {len(crop_pct)} numbers for {len(resolutions)} resolutions")


def _with_each_channel(source: Source) -> Source:
    """Return a source with a mean for each channel: earlier writers gave three, also of networks that take grey."""
    whole = source.for_its_images() if source.preprocessing.channels == _COLOURS else source
    _check_channels(whole.preprocessing, whole.channels)
    return whole


def _check_channels(preprocessing: Preprocessing, channels: int | None) -> None:
    if channels not in (None, preprocessing.channels):
        raise ValueError(f"mean has {preprocessing.channels} numbers, the images have the channels {channels}")


def _check_costs(costs: Mapping[str, Any]) -> None:
    for machine, rows in costs.items():
        if type(rows) is not list or not all(type(row) is dict and _is_cost(row) for row in rows):
            raise ValueError(f"costs of {machine!r} hold a row of other fields or types")


def _is_cost(row: Mapping[str, Any]) -> bool:
    counts = all(type(row.get(name)) is int and 0 < row[name] < 2**63 for name in _COUNTS)
    words = all(type(row.get(name)) is str for name in ("form", "amp"))
    numbers: list[Any] = [row.get("latency_ms"), row.get("top1") or 0, row.get("miou") or 0]
    return counts and words and all(type(number) in (int, float) and number >= 0 for number in numbers)  # no nan


def _check_cascade(cascade: Mapping[str, Any], num_classes: int | None) -> None:
    fields = {name: cascade.get(name, []) for name in ("stages", "thresholds", "outputs")}
    if wrong := [name for name, values in fields.items() if type(values) is not list]:
        raise ValueError(f"{wrong[0]} of the cascade is {fields[wrong[0]]!r}")
    check_stages(fields["stages"], fields["thresholds"])
    check_sides("stages of the cascade", fields["stages"])
    most = math.inf if num_classes is None else num_classes
    if not all(type(output) is int and 0 <= output < most for output in fields["outputs"]):
        raise ValueError(f"outputs of the cascade is {fields['outputs']!r}")


def _check_int8(held: Mapping[str, Any], resolutions: Sequence[int]) -> None:
    ranges, images = held.get("ranges"), held.get("images")
    if type(images) is not int or images < 1:
        raise ValueError(f"int8 has ranges from {images!r} images")
    if type(ranges) is not dict or set(ranges) != {str(r) for r in resolutions}:
        raise ValueError("int8 holds no ranges of each resolution")
    names = [set(found) if type(found) is dict else None for found in ranges.values()]
    if None in names or any(own != names[0] for own in names):
        raise ValueError("int8 has ranges of other activations at one resolution than at another")
    for name, ends in (item for found in ranges.values() for item in found.items()):
        numbers = type(ends) is list and all(type(end) in (int, float) and math.isfinite(end) for end in ends)
        if not numbers or len(ends) != 2 or ends[0] > ends[1]:
            raise ValueError(f"int8 has the range {ends!r} of {name!r}")
    _check_shifts(held.get("shifts", {}), resolutions)


def _check_shifts(shifts: Any, resolutions: Sequence[int]) -> None:
    if type(shifts) is not dict or (shifts and set(shifts) != {str(r) for r in resolutions}):
        raise ValueError("int8 holds no shifts of each resolution")
    for found in shifts.values():
        if type(found) is not dict:
            raise ValueError(f"int8 holds {str(found)[:60]} in place of the shifts of a resolution")
        for name, values in found.items():
            if type(values) is not list or not all(type(v) in (int, float) and math.isfinite(v) for v in values):
                raise ValueError(f"int8 shifts the means of {name!r} by {str(values)[:60]}")

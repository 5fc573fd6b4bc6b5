"""A file that maps class names to output indices, for networks that know more classes than the data."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rsconvert.errors import DataError

__all__ = ["read_class_map"]

_Pairs = list[tuple[str, Any]]

# The name may hold blanks and commas; the index is what follows the last of them.
_LINE = re.compile(r"(.*?\S)(?:\s*,\s*|\s+)(\S+)")


def read_class_map(path: str | Path, classes: Sequence[str] | None) -> tuple[int, ...]:
    """Return the output index of each class, in the order of ``classes``, such as ``samples.classes``.

    The file is a JSON object, ``{"n01440764": 0, …}``, or has a line ``NAME INDEX`` for each class, with blanks or a
    comma between. It may name more classes than the data holds.

    Raises:
        DataError: the file can't be read; it lacks a class, or names one twice; an index is no whole number of 0 or
            more, or is that of two classes; ``classes`` is None.
    """
    if classes is None:
        raise DataError(f"class map {path} needs classes with names; the data has none. Leave it out.")
    indices: dict[str, int] = {}
    for name, value in _read_pairs(path):
        if name in indices:
            raise DataError(f"class map {path} names {name!r} twice; one index per class is needed. Remove a line.")
        indices[name] = _index(path, name, value)
    owners: dict[int, str] = {}
    for name in classes:
        if name not in indices:
            raise DataError(
                f"class map {path} lacks {name!r}; each of the {len(classes)} classes of the data needs its index. "
                "Add it."
            )
        if other := owners.get(indices[name]):
            raise DataError(
                f"class map {path} gives {indices[name]} to {other!r} and {name!r}; each class needs an output of its "
                "own. Correct it."
            )
        owners[indices[name]] = name
    return tuple(owners)


def _read_pairs(path: str | Path) -> _Pairs:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        return _json_pairs(text) if text.lstrip().startswith("{") else _text_pairs(text)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"class map {path} can't be read ({' '.join(str(error).split())}); a JSON object of names and indices, or "
            "lines NAME INDEX, are needed. Correct it."
        ) from error


def _json_pairs(text: str) -> _Pairs:
    # As pairs, for a dict would hide a name that comes twice; an object inside stays a list and is refused later.
    pairs: _Pairs = json.loads(text, object_pairs_hook=list)
    return pairs


def _text_pairs(text: str) -> _Pairs:
    pairs: _Pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        found = _LINE.fullmatch(line.strip())
        if found:
            name, index = found.groups()
            pairs.append((name, int(index) if index.isdecimal() else index))
        elif line.strip():
            raise ValueError(f"line {number} is {line.strip()!r}")
    return pairs


def _index(path: str | Path, name: str, value: object) -> int:
    if type(value) is not int or value < 0:
        raise DataError(
            f"class map {path} gives {value!r} to {name!r}; the index of an output, a whole number of 0 or more, is "
            "needed. Correct it."
        )
    return value

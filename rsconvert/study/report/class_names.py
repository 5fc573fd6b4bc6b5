"""A file that gives classes names for people, where the data names them by codes."""

import json
from collections.abc import Sequence
from pathlib import Path

from rsconvert.errors import DataError

__all__ = ["read_class_names"]


def read_class_names(path: str | Path, classes: Sequence[str] | None) -> tuple[str, ...]:
    """Return what to call each class, in the order of ``classes``.

    The file is a JSON object, ``{"n01440764": "tench", …}``, or has a line ``NAME LABEL`` for each class, with a tab or
    blanks between. It may name more classes than the data holds.

    Raises:
        DataError: the file can't be read, or lacks a class; ``classes`` is None.
    """
    if classes is None:
        raise DataError(f"class names {path} need classes with names; the data has none. Leave them out.")
    labels = _read_labels(path)
    if missing := [name for name in classes if name not in labels]:
        raise DataError(
            f"class names {path} lack {missing[0]!r}; each of the {len(classes)} classes of the data needs a label. "
            "Add it."
        )
    return tuple(labels[name] for name in classes)


def _read_labels(path: str | Path) -> dict[str, str]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        if text.lstrip().startswith("{"):
            return {str(name): str(label) for name, label in json.loads(text).items()}
        return dict(_pair(line) for line in text.splitlines() if line.strip())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"class names {path} can't be read ({' '.join(str(error).split())}); a JSON object of names and labels, or "
            "lines NAME LABEL, are needed. Correct it."
        ) from error


def _pair(line: str) -> tuple[str, str]:
    parts = line.strip().split("\t" if "\t" in line.strip() else None, 1)
    if len(parts) != 2:
        raise ValueError(f"a line is {line.strip()!r}")
    return parts[0].strip(), parts[1].strip()

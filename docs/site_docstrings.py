"""Docstrings for the site: a section that follows another without an empty line begins one there, too."""

import re
from typing import Any

import griffe

__all__ = ["ApartSections"]

_SECTION = re.compile(r"(?<=[^\n])\n(?=(?:Args|Returns|Yields|Raises|Attributes):\n)")


class ApartSections(griffe.Extension):
    """Put an empty line before each section of a docstring, which griffe needs to know it as one."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = _SECTION.sub("\n\n", obj.docstring.value)

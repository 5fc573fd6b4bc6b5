"""Values of settings: text or data → the type of a field, and the words for what a field accepts."""

import operator
import types
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

from rsconvert.errors import ConfigError

__all__ = ["typed"]


def typed(name: str, value: Any, hint: Any) -> Any:
    """Return a value in its field's type; text is parsed."""
    try:
        return _parse(value, hint)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} is {value!r}; {_describe(hint)} is accepted. Change it.") from None


def _parse(value: Any, hint: Any) -> Any:
    plain = _plain(hint)
    if plain is not hint and (value is None or (value == "none" and "none" not in get_args(plain))):
        return None
    if get_origin(plain) is Literal:
        if value not in get_args(plain):
            raise ValueError
        return value
    if get_origin(plain) is tuple:
        return _items(value, get_args(plain)[0])
    return _truth(value) if plain is bool else _scalar(value, plain)


def _items(value: Any, kind: Any) -> tuple[Any, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, Sequence) or not items:
        raise ValueError
    return tuple(_scalar(item, kind) for item in items)


def _truth(value: Any) -> bool:
    text = str(value).lower()
    if text not in ("true", "false"):
        raise ValueError
    return text == "true"


def _scalar(value: Any, kind: Any) -> Any:
    if isinstance(value, bool) or (kind is str and not isinstance(value, str)):
        raise TypeError
    # Other than int(), index() refuses a fraction.
    return operator.index(value) if kind is int and not isinstance(value, str) else kind(value)


def _plain(hint: Any) -> Any:
    """Return what an optional type may be besides None; any other type as it is."""
    arguments = get_args(hint)
    if isinstance(hint, types.UnionType) or type(None) in arguments:
        return next(a for a in arguments if a is not type(None))
    return hint


def _describe(hint: Any) -> str:
    plain = _plain(hint)
    if plain is not hint:
        return f"{_describe(plain)} or none"
    if get_origin(hint) is Literal:
        return ", ".join(get_args(hint))
    if get_origin(hint) is tuple:
        return f"a list of {'whole numbers' if get_args(hint)[0] is int else 'numbers'}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[hint]

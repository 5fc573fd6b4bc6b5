"""The archive of a program, checked record by record and written again, so that opening it runs no code of the file.

`torch.export.load` trusts its file: it unpickles the sample inputs and what the weight table asks to unpickle,
evaluates the expressions of sizes and guards as Python, takes any function below ``torch`` for an operator, and imports
the modules that a tree of arguments names. Here the archive is read as what it should be, a list of operators with
tensors, and only that is handed on.
"""

import ast
import io
import json
import operator
import re
import zipfile
from collections.abc import Callable, Mapping
from math import prod
from os import PathLike
from typing import Any

import torch

__all__ = ["checked_program", "is_compiled"]

_MODEL, _INPUTS = "models/model.json", "data/sample_inputs/model.pt"
_WEIGHTS, _CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"
_NAMED = ("archive_format", "archive_version", "byteorder", "version", ".data/version", ".data/serialization_id")
_RECORD = re.compile(r"data/(weights/weight|constants/tensor)_\d+|extra/[\w.-]+")
_OPERATOR = re.compile(r"torch\.ops\.(aten|torchvision|quantized_decomposed)\.(\w+)\.(\w+)")
_PLAIN_FUNCTION = re.compile(
    r"_operator\.(add|sub|mul|neg|pos|abs|truediv|floordiv|mod|pow|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
    r"|math\.(ceil|floor|trunc)|torch\._?sym_(int|float|max|min|not|ite|sqrt|sum)"
)
_SIZE_FUNCTION = re.compile(
    "Symbol|Integer|Float|Rational|Add|Mul|Pow|Min|Max|Mod|Eq|Ne|Gt|Ge|Lt|Le|Equality|Unequality|And|Or|Not|floor|ceiling"
    "|GreaterThan|LessThan|StrictGreaterThan|StrictLessThan|FloorDiv|ModularIndexing|Where|PythonMod|CleanDiv|CeilToInt"
    "|FloorToInt|CeilDiv|IntTrueDiv|FloatTrueDiv|ToFloat|TruncToInt|Identity"
)
_SIZE_SYNTAX = (
    *(ast.Expression, ast.Load, ast.keyword, ast.BinOp, ast.UnaryOp),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.USub),
)
_SYMBOL = re.compile(r"[a-z]+\d+")
_LONGEST = 1000  # of a string: names, sizes
_SMALL = 2**20  # elements that a constant may have beyond the bytes of its record, as an expanded scalar has


def is_compiled(path: str | PathLike[str]) -> bool:
    """Return whether an archive holds a library of AOTInductor, whose machine code runs as it is loaded."""
    with zipfile.ZipFile(path) as archive:
        return any("/aotinductor/" in name.replace("\\", "/") for name in archive.namelist())


def checked_program(path: str | PathLike[str]) -> io.BytesIO:
    """Return the archive of a program of ``torch.export.save`` again, without sample inputs, guards and traces.

    Raises:
        ValueError: a record is none that a program needs, is compressed or pickled, or names something else than
            tensors, sizes and operators that compute.
    """
    records = _records(path)
    model = _Checked().of(json.loads(records[_MODEL]))
    for name in (_WEIGHTS, _CONSTANTS):
        _check_payloads(json.loads(records[name]), name.rpartition("/")[0], records)
    records |= {_MODEL: json.dumps(model).encode(), _INPUTS: b""}
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records.items():
            archive.writestr(f"archive/{name}", content)
    written.seek(0)
    return written


def _records(path: str | PathLike[str]) -> dict[str, bytes]:
    """Return the records of an archive by name, each of them known and stored as it is."""
    records: dict[str, bytes] = {}
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > _size_of(archive):
            raise ValueError("its records are larger than the file")
        for entry in entries:
            name = entry.filename.partition("/")[2]
            if entry.compress_type != zipfile.ZIP_STORED or name in records:
                raise ValueError(f"its record {name!r} is compressed or stands twice")
            if name not in (_MODEL, _INPUTS, _WEIGHTS, _CONSTANTS, *_NAMED) and not _RECORD.fullmatch(name):
                raise ValueError(f"its record {name!r} is none of a program of one model")
            records[name] = b"" if name == _INPUTS else archive.read(entry)
    if missing := [name for name in (_MODEL, _WEIGHTS, _CONSTANTS) if name not in records]:
        raise ValueError(f"its record {missing[0]} is missing")
    return records


def _size_of(archive: zipfile.ZipFile) -> int:
    assert archive.fp is not None
    return archive.fp.seek(0, io.SEEK_END)


def _check_payloads(table: Any, folder: str, records: Mapping[str, bytes]) -> None:
    """Check the table of weights or constants: tensors in the archive, none pickled, none larger than its record."""
    for name, entry in table["config"].items():
        record = f"{folder}/{entry['path_name']}"
        if entry["use_pickle"] is not False or not _RECORD.fullmatch(record):
            raise ValueError(f"{name!r} is pickled, which could run code")
        sizes = [size["as_int"] for size in entry["tensor_meta"]["sizes"]]
        if min(sizes, default=0) < 0 or prod(sizes) > max(len(records[record]), _SMALL):
            raise ValueError(f"{name!r} of {sizes} is larger than its record")


class _Checked:
    """Copies the JSON of a program, and refuses what is no plain value, name, size or operator."""

    def __init__(self) -> None:
        self._rules: dict[str, Callable[[Any], Any]] = {
            "metadata": lambda _: {},  # traces of the source
            "guards_code": lambda _: [],  # Python
            "treespec_namedtuple_fields": lambda _: {},
            "target": _known_operator,
            "as_operator": _known_operator,
            "expr_str": _expression,
            "in_spec": _tree,
            "out_spec": _tree,
            "as_string": _short,
            "as_strings": lambda texts: list(map(_short, texts)),
        }

    def of(self, value: Any, key: str = "") -> Any:
        """Return a value of the JSON, checked; ``key`` is what it stands under."""
        if key in self._rules and value is not None:
            return self._rules[key](value)
        if isinstance(value, dict):
            return {name: self.of(inner, name) for name, inner in value.items() if _is_plain(name, inner)}
        if isinstance(value, list):
            return [self.of(inner, key) for inner in value]
        if isinstance(value, str) and not re.fullmatch(r"[\w.+:-]{0,1000}", value):
            raise ValueError(f"its {key} {value[:40]!r} is no name")
        return value


def _is_plain(name: str, value: Any) -> bool:
    if value and ("custom_obj" in name or "opaque" in name or name in ("as_graph", "as_custom_obj")):
        raise ValueError(f"it holds {name}, which is no tensor")
    return True


def _known_operator(target: Any) -> str:
    """Return the name of an operator that computes; ``aten.save`` and ``from_file`` write and read files."""
    found = _OPERATOR.fullmatch(str(target))
    if found is None:
        if not _PLAIN_FUNCTION.fullmatch(str(target)):
            raise ValueError(f"its operator {str(target)[:60]!r} is none that computes")
        return str(target)
    overload = operator.attrgetter(".".join(found.groups()))(torch.ops)
    if not isinstance(overload, torch._ops.OpOverload) or any("file" in a.name for a in overload._schema.arguments):
        raise ValueError(f"its operator {target!r} is none that computes")
    return str(target)


def _expression(text: Any) -> str:
    """Return the expression of a size: symbols, numbers and functions of sizes; sympy evaluates it as Python."""
    tree = ast.parse(_short(text), mode="eval")
    if wrong := [node for node in ast.walk(tree) if not _is_of_size(node)]:
        raise ValueError(f"its size {text[:60]!r} holds a {type(wrong[0]).__name__} that is no part of a size")
    return str(text)


def _is_of_size(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        named = isinstance(node.func, ast.Name) and _SIZE_FUNCTION.fullmatch(node.func.id) is not None
        return named and (ast.unparse(node.func) != "Pow" or _is_small_power(node))
    if isinstance(node, ast.Name):
        return re.fullmatch(f"{_SIZE_FUNCTION.pattern}|{_SYMBOL.pattern}", node.id) is not None
    if isinstance(node, ast.Constant):
        number = isinstance(node.value, (int, float)) and abs(node.value) < 2**63
        return number or _SYMBOL.fullmatch(str(node.value)) is not None
    return isinstance(node, _SIZE_SYNTAX)


def _is_small_power(call: ast.Call) -> bool:
    """Return whether a power is that of a size, which takes no time to compute: x², 1/x, √x; not 9 ** 9 ** 9."""
    base, power = (ast.unparse(argument) for argument in call.args)
    return "Pow" not in base and bool(re.fullmatch(r"Integer\(-?[1-8]\)|Rational\(-?[1-8], [1-8]\)", power))


def _tree(text: Any) -> str:
    """Return the structure of arguments: lists, tuples and dicts; other kinds name what torch imports for them."""
    pending = [json.loads(text)[1]]
    while pending:
        node = pending.pop()
        pending += node["children_spec"]
        names = json.loads(node["context"] or "[]") or []
        known = node["type"] in (None, "builtins.tuple", "builtins.list", "builtins.dict")
        if not known or not all(str(name).isidentifier() for name in names):
            raise ValueError(f"it takes a {node['type']}; tensors in tuples, lists and dicts are accepted")
    return str(text)


def _short(text: Any) -> str:
    if not isinstance(text, str) or len(text) > _LONGEST or not text.isprintable():
        raise ValueError("a text in it is too long or not printable")
    return text

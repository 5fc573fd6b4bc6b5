"""Programs of torch.export: what their archives ask torch to unpickle, evaluate, import, call or load."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hostile.attempt import Attempt, Bomb, Prepare, Reader, Sound, script
from rsconvert.export import open_export

__all__ = ["PROGRAMS", "TRUSTED_PROGRAMS"]

Records = dict[str, bytes]
Change = Callable[[Records, Path], Records]

_MODEL, _INPUTS = "archive/models/model.json", "archive/data/sample_inputs/model.pt"
_WEIGHTS = "archive/data/weights/model_weights_config.json"
_CONSTANTS = "archive/data/constants/model_constants_config.json"


def _pickled(canary: Path) -> bytes:
    return pickle.dumps(Bomb(open, str(canary), "w"))


def _saved(canary: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Bomb(open, str(canary), "w"), buffer)
    return buffer.getvalue()


def _edited(records: Records, name: str, edit: Callable[[Any], object]) -> Records:
    held = json.loads(records[name])
    edit(held)
    return {**records, name: json.dumps(held).encode()}


def _node(model: Any) -> dict[str, Any]:
    found: dict[str, Any] = model["graph_module"]["graph"]["nodes"][0]
    return found


def _signature(model: Any) -> dict[str, Any]:
    found: dict[str, Any] = model["graph_module"]["module_call_graph"][0]["signature"]
    return found


def _pickled_weight(records: Records, canary: Path) -> Records:
    def edit(table: Any) -> None:
        next(iter(table["config"].values()))["use_pickle"] = True

    return {**_edited(records, _WEIGHTS, edit), "archive/data/weights/weight_0": _saved(canary)}


def _pickled_constant(records: Records, canary: Path) -> Records:
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    table = json.dumps({"config": {"c": entry}}).encode()
    return {**records, _CONSTANTS: table, "archive/data/constants/opaque_obj_0": _pickled(canary)}


def _record(name: str, content: Callable[[Path], bytes] = _pickled) -> Change:
    return lambda records, canary: {**records, name: content(canary)}


def _of_model(edit: Callable[[Any, Path], object]) -> Change:
    return lambda records, canary: _edited(records, _MODEL, lambda model: edit(model, canary))


def _size(expression: str) -> Change:
    def change(records: Records, canary: Path) -> Records:
        text = records[_MODEL].decode()
        start = text.index("Symbol(")
        code = expression.replace("CANARY", repr(str(canary)))
        return {**records, _MODEL: (text[:start] + code + text[text.index('"', start) :]).encode()}

    return change


def _operator(target: str, *arguments: str) -> Change:
    def edit(model: Any, canary: Path) -> None:
        texts = [text.replace("CANARY", str(canary)) for text in arguments]
        inputs = [{"name": "", "arg": {"as_string": text}, "kind": 1} for text in texts]
        _node(model).update(target=target, inputs=inputs)

    return _of_model(edit)


def _tree(kind: str, context: object) -> Change:
    spec = [1, {"type": kind, "context": json.dumps(context), "children_spec": []}]
    return _of_model(lambda model, canary: _signature(model).update(in_spec=json.dumps(spec)))


def _vast_weight(records: Records, canary: Path) -> Records:
    def edit(table: Any) -> None:
        next(iter(table["config"].values()))["tensor_meta"]["sizes"] = [{"as_int": 2**40}]

    return {**_edited(records, _WEIGHTS, edit), "archive/data/weights/weight_0": b""}


_FACTORY = {"default_factory_module": "antigravity", "default_factory_name": "fly", "dict_context": []}
_CHANGES: dict[str, Change] = {
    "a pickle among the sample inputs": _record(_INPUTS),
    "torch's own pickle among the sample inputs": _record(_INPUTS, _saved),
    "use_pickle in the table of weights": _pickled_weight,
    "use_pickle in the table of constants": _pickled_constant,
    "weights of the first archives, one pickle": _record("archive/data/weights/model.pt"),
    "constants of the first archives, one pickle": _record("archive/data/constants/model.pt"),
    "an object of its own class, pickled": _record("archive/data/constants/custom_obj_0"),
    "a library of AOTInductor": _record("archive/data/aotinductor/model/x.so"),
    "a library of AOTInductor behind ..": _record("archive/data/aotinductor/../x.so"),
    "a library of AOTInductor, backslashes": _record("archive\\data\\aotinductor\\model\\x.so"),
    "a delegate's library": _record("archive/data/delegates/x.so"),
    "a record named ../canary": _record("archive/../../canary", lambda canary: b"x"),
    "a record named by an absolute path": _record("/canary", lambda canary: b"x"),
    "a record of Python": _record("archive/extra/../code.py", lambda canary: script(canary).encode()),
    "a size that imports": _size("__import__('pathlib').Path(CANARY).touch() or 2"),
    "a size that opens a file": _size("open(CANARY, 'w')"),
    "a size that is a lambda": _size("(lambda: open(CANARY, 'w'))()"),
    "a size that is a comprehension": _size("[open(CANARY, 'w') for s0 in [1]][0]"),
    "a size that asks for attributes": _size("s0.__class__.__mro__[-1].__subclasses__()"),
    "a size that is an f-string": _size("f'{s0!r}'.format(s0)"),
    "a size that calls sympify": _size("sympify('__import__(\\\\'os\\\\')')"),
    "a size of 9 ** 9 ** 9": _size("9 ** 9 ** 9"),
    "a size of nested powers": _size("Pow(Pow(Integer(9), Integer(8)), Integer(8))"),
    "a size of 10,000 parentheses": _size("(" * 10_000 + "s0" + ")" * 10_000),
    "guards that are code": _of_model(lambda model, canary: model.update(guards_code=[script(canary)])),
    "a name of an argument that is code": _of_model(
        lambda model, canary: _signature(model).update(forward_arg_names=[f"x={script(canary)}"])
    ),
    "a name of a node that is code": _of_model(lambda model, canary: _node(model).update(name=f"x={script(canary)}")),
    "operator: torch.os.system": _operator("torch.os.system", "touch CANARY"),
    "operator: torch.load": _operator("torch.load", "CANARY"),
    "operator: torch.hub.load": _operator("torch.hub.load", "a/b", "c"),
    "operator: torch.jit.load": _operator("torch.jit.load", "CANARY"),
    "operator: torch.ops.load_library": _operator("torch.ops.load_library", "CANARY"),
    "operator: torch.ops.aten.from_file": _operator("torch.ops.aten.from_file.default", "CANARY"),
    "operator: torch.ops.aten.save": _operator("torch.ops.aten.save.default", "text", "CANARY"),
    "operator: torch.ops.aten.__class__.mro": _operator("torch.ops.aten.__class__.mro"),
    "operator: torch.ops.image.write_file": _operator("torch.ops.image.write_file.default", "CANARY"),
    "operator: torch.ops.prim.Print": _operator("torch.ops.prim.Print.default", "CANARY"),
    "operator: torch.ops.higher_order.cond": _operator("torch.ops.higher_order.cond"),
    "operator: torch._inductor.codecache.os.system": _operator("torch._inductor.codecache.os.system", "CANARY"),
    "operator: _operator.methodcaller": _operator("_operator.methodcaller", "x"),
    "operator: _operator.attrgetter": _operator("_operator.attrgetter", "__class__"),
    "operator: builtins.exec": _operator("builtins.exec", "open('CANARY', 'w')"),
    "operator: math.__loader__.load_module": _operator("math.__loader__.load_module", "antigravity"),
    "a defaultdict that imports": _tree("collections.defaultdict", _FACTORY),
    "a named tuple that imports": _tree("collections.namedtuple", {"class_module": "antigravity", "class_name": "fly"}),
    "a tree of a class by name": _tree("antigravity.fly", []),
    "a custom object in the graph": _of_model(
        lambda model, canary: _node(model).update(custom_obj_values={"c": {"name": "c", "class_fqn": "os.system"}})
    ),
    "a weight of 4 TiB": _vast_weight,
    "JSON of 100,000 levels": _record(_MODEL, lambda canary: b"[" * 100_000),
}


def written(records: Records, path: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    """Write the archive of a program."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return path


def _opened(path: Path, sound: Sound) -> None:
    open_export(path, sound.net).run(torch.zeros(2, 3, 2, 2))


def _changed(change: Change) -> Prepare:
    def prepare(sound: Sound, folder: Path, canary: Path) -> Reader:
        return partial(_opened, written(change(sound.program, canary), folder / "net.pt2"), sound)

    return prepare


def _zip_bomb(sound: Sound, folder: Path, canary: Path) -> Reader:
    records = {**sound.program, "archive/data/weights/weight_0": bytes(2**26)}
    return partial(_opened, written(records, folder / "net.pt2", zipfile.ZIP_DEFLATED), sound)


def _trusted(change: Change) -> Prepare:
    def prepare(sound: Sound, folder: Path, canary: Path) -> Reader:
        path = written(change(sound.program, canary), folder / "net.pt2")
        return lambda: torch.export.load(path)

    return prepare


_SURE = ("torch's own pickle among the sample inputs", "use_pickle in the table of weights", "a size that imports")
PROGRAMS = (
    *(Attempt("program", name, _changed(change)) for name, change in _CHANGES.items()),
    Attempt("program", "a record of 64 MiB in 65 kB", _zip_bomb),
)
TRUSTED_PROGRAMS = tuple(Attempt("program", name, _trusted(_CHANGES[name])) for name in _SURE)

"""ONNX files: tensors in files elsewhere, operators of others, what ONNX Runtime reads in their metadata."""

import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper

from hostile.attempt import Attempt, MisledError, Prepare, Reader, Sound
from rsconvert.export import onnx_network, open_export

__all__ = ["ONNX_FILES"]

_SECRET = 1234.5
_IMAGE = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 48, 48])
_LOGITS = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 5])


def _mean(out: str = "mean") -> Any:
    return helper.make_node("ReduceMean", ["image"], [out], axes=[1, 2, 3], keepdims=1)


def _model(nodes: Sequence[Any], weights: Sequence[Any] = (), functions: Sequence[Any] = (), **facts: str) -> Any:
    domains = {"": 17, **{function.domain: 1 for function in functions}, **{n.domain: 1 for n in nodes if n.domain}}
    graph = helper.make_graph([*nodes], "g", [_IMAGE], [_LOGITS], [*weights])
    imports = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    model = helper.make_model(graph, opset_imports=imports, functions=[*functions], ir_version=8)
    helper.set_model_props(model, facts)
    return model


def _flat() -> list[Any]:
    return [_mean(), helper.make_node("Reshape", ["mean", "shape"], ["flat"])]


_SHAPE = helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 1])


def _opened(path: Path, sound: Sound) -> None:
    logits = open_export(path, sound.net).run(torch.zeros(1, 3, 48, 48))
    if bool((logits == _SECRET).any()):
        raise MisledError("what another file holds is in the logits")


def _saved(model: Any, folder: Path, sound: Sound) -> Reader:
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    return partial(_opened, folder / "net.onnx", sound)


def _outside(location: Callable[[Path], str]) -> Prepare:
    """A weight that lies in a file outside of the folder."""

    def prepare(sound: Sound, folder: Path, canary: Path) -> Reader:
        secret = folder.parent / "secret.bin"
        secret.write_bytes(np.full(5, _SECRET, np.float32).tobytes())
        weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1, 5], data_location=TensorProto.EXTERNAL)
        weight.external_data.add(key="location", value=location(folder))
        nodes = [
            *_flat(),
            helper.make_node("Mul", ["flat", "zero"], ["z"]),
            helper.make_node("Add", ["z", "w"], ["logits"]),
        ]
        zero = helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])
        return _saved(_model(nodes, [_SHAPE, zero, weight]), folder, sound)

    return prepare


def _linked(folder: Path) -> str:
    os.symlink(folder.parent / "secret.bin", folder / "w.bin")
    return "w.bin"


def _linked_folder(folder: Path) -> str:
    os.symlink(folder.parent, folder / "inner")
    return "inner/secret.bin"


def _operator(domain: str, kind: str, **attributes: Any) -> Prepare:
    def prepare(sound: Sound, folder: Path, canary: Path) -> Reader:
        texts = {k: v.replace("CANARY", str(canary)) if isinstance(v, str) else v for k, v in attributes.items()}
        node = helper.make_node(kind, ["image"], ["logits"], domain=domain, **texts)
        return _saved(_model([node]), folder, sound)

    return prepare


def _facts(**facts: str) -> Prepare:
    def prepare(sound: Sound, folder: Path, canary: Path) -> Reader:
        nodes = [*_flat(), helper.make_node("Concat", ["flat"] * 5, ["logits"], axis=1)]
        texts = {key: text.replace("CANARY", str(canary)) for key, text in facts.items()}
        return _saved(_model(nodes, [_SHAPE], **texts), folder, sound)

    return prepare


def _recursion(sound: Sound, folder: Path, canary: Path) -> Reader:
    call = helper.make_node("F", ["x"], ["y"], domain="own")
    function = helper.make_function("own", "F", ["x"], ["y"], [call], [helper.make_opsetid("own", 1)])
    node = helper.make_node("F", ["image"], ["logits"], domain="own")
    return _saved(_model([node], functions=[function]), folder, sound)


def _network_of(prepare: Prepare) -> Prepare:
    """The same file as a network of `predict` and of baselines."""

    def prepared(sound: Sound, folder: Path, canary: Path) -> Reader:
        prepare(sound, folder, canary)
        return lambda: onnx_network(folder / "net.onnx", sound.net)(torch.zeros(1, 3, 48, 48))

    return prepared


_SESSION = json.dumps({"session_options": {"enable_profiling": 1, "profile_file_prefix": "CANARY"}})
_ATTEMPTS: dict[str, Prepare] = {
    "a weight in ../secret.bin": _outside(lambda folder: "../secret.bin"),
    "a weight in x/../../secret.bin": _outside(lambda folder: "x/../../secret.bin"),
    "a weight by an absolute path": _outside(lambda folder: str(folder.parent / "secret.bin")),
    "a weight by file://": _outside(lambda folder: f"file://{folder.parent}/secret.bin"),
    "a weight by http://": _outside(lambda folder: "https://example.com/secret.bin"),
    "a weight behind a link": _outside(_linked),
    "a weight behind a link to a folder": _outside(_linked_folder),
    "a weight in ORT's memory address": _outside(lambda folder: "*/_ORT_MEM_ADDR_/*"),
    "an operator of a domain of its own": _operator("evil", "Run"),
    "PythonOp of com.microsoft": _operator("com.microsoft", "PythonOp", func_name="os.system", convention="d"),
    "ATen of org.pytorch.aten": _operator("org.pytorch.aten", "ATen", operator="save", overload_name=""),
    "EPContext with a library": _operator(
        "com.microsoft", "EPContext", ep_cache_context="../../x.so", embed_mode=0, source="QNN"
    ),
    "settings of the session that write a profile": _facts(ort_config=_SESSION),
    "branches that are code": _facts(branches="__import__('os').system('touch CANARY')"),
    "branches of 100,000 levels": _facts(branches="[" * 100_000),
    "branches of a vast number": _facts(branches="[1e999]"),
    "a function that calls itself": _recursion,
    "facts of images that are code": _network_of(_facts(mean="__import__('os').system('touch CANARY')")),
}
ONNX_FILES = tuple(Attempt("ONNX", name, prepare) for name, prepare in _ATTEMPTS.items())

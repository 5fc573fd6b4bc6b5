"""Weights of several ONNX models in one file beside them, each stored once."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rsconvert.errors import CheckpointError
from rsconvert.export.opening import needed

__all__ = ["check_readers", "share_weights"]

# Less is not worth a reference; onnx's own limit.
_SMALLEST = 1024


def check_readers(path: Path, graphs: Iterable[Path]) -> None:
    """Refuse to replace a file of weights that other graphs beside it read.

    Raises:
        CheckpointError: there is one.
    """
    replaced = {graph.name for graph in graphs}
    for graph in sorted(path.parent.glob(f"{path.stem}-*.onnx")) if path.exists() else ():
        if graph.name not in replaced and path.name.encode() in graph.read_bytes():
            raise CheckpointError(
                f"{graph} reads its weights from {path}, which would be replaced; files of one export belong together. "
                "Remove it, or choose another name."
            )


def share_weights(models: Sequence[Any], path: Path) -> None:
    """Move the tensors of ``onnx.ModelProto``s into one file, equal ones to one place.

    Args:
        path: the file to write; the models refer to it by its name, as a file beside theirs.
    """
    onnx = needed("onnx")
    places: dict[bytes, int] = {}
    with open(path, "wb") as file:
        for tensor in (tensor for model in models for tensor in model.graph.initializer):
            values = onnx.numpy_helper.to_array(tensor).tobytes()
            if len(values) < _SMALLEST:
                continue
            if values not in places:
                file.write(bytes(-file.tell() % 64))  # where a processor likes to read
                places[values] = file.tell()
                file.write(values)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", path.name), ("offset", places[values]), ("length", len(values))):
                tensor.external_data.add(key=key, value=str(value))

"""Write a model repository of Triton around one ONNX file: its server then batches requests of one size.

    rsconvert export CHECKPOINT --format onnx -o net.onnx
    python docs/examples/triton_server.py net.onnx models/rsnet
    tritonserver --model-repository models

A client chooses the resolution by the size of the images that it sends.
"""

import shutil
import sys
from pathlib import Path

import onnxruntime

TYPES = {"tensor(float)": "TYPE_FP32", "tensor(float16)": "TYPE_FP16"}


def tensor(kind, value):
    """Return the lines of an input or output without its batch, which Triton adds; a free side is -1."""
    dims = ", ".join(str(size) if isinstance(size, int) else "-1" for size in value.shape[1:])
    return f'{kind} [ {{ name: "{value.name}" data_type: {TYPES[value.type]} dims: [ {dims} ] }} ]'


def config(path, name, batch, delay):
    """Return the text of config.pbtxt.

    Args:
        batch: the most images of one run.
        delay: how long a request may wait for others of its size, in microseconds.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images, logits = session.get_inputs()[0], session.get_outputs()[0]
    if isinstance(images.shape[0], int):
        raise SystemExit(f"{path} takes batches of {images.shape[0]} alone; a free batch is needed.")
    lines = [
        f'name: "{name}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {batch}",
        tensor("input", images),
        tensor("output", logits),
        f"dynamic_batching {{ max_queue_delay_microseconds: {delay} }}",
    ]
    return "\n".join(lines) + "\n"


def write(path, folder, batch=8, delay=2000):
    """Write FOLDER/config.pbtxt and FOLDER/1/model.onnx; the model is named as the folder."""
    folder = Path(folder)
    text = config(str(path), folder.name, batch, delay)
    (folder / "1").mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(text)
    shutil.copy(path, folder / "1" / "model.onnx")


if __name__ == "__main__":
    write(*sys.argv[1:3])

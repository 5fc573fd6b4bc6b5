"""Tries what other tools make of each form of ONNX file: whether they take it, and what the result computes.

    python benchmarks/onnx_tools.py
    python benchmarks/onnx_tools.py --model resnet18 --resolutions 224,160,96
    python benchmarks/onnx_tools.py --old /path/of/another/python   # one that has an older ONNX Runtime
    python benchmarks/onnx_tools.py --tools openvino,onnxslim

Forms: the one file for all sizes (switching), the same without branches (compact), a plain file of the largest
resolution (plain), the file for all sizes in float16 (half). A cell has the largest relative difference from the
network, over the trained sizes, those midway (which have a branch), and others; or the words of the error. Tools that
are not installed are left out. Each runs in a process of its own, for some crash.
"""

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_Run = Callable[[np.ndarray], np.ndarray]
_FORMS = ("switching", "compact", "plain", "half")


def onnxruntime(file: Path) -> _Run:
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    kind = np.float16 if given.type == "tensor(float16)" else np.float32
    return lambda x: session.run(None, {given.name: x.astype(kind)})[0]


def openvino(file: Path) -> _Run:
    import openvino

    compiled = openvino.compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda x: compiled(x)[0]


def opencv(file: Path) -> _Run:
    import cv2

    net = cv2.dnn.readNetFromONNX(str(file))

    def run(x: np.ndarray) -> np.ndarray:
        net.setInput(x, "images")
        return net.forward()

    return run


def onnxslim(file: Path) -> _Run:
    import onnxslim

    return _written(onnxslim.slim(str(file)), file)


def onnxsim(file: Path) -> _Run:
    import onnx
    import onnxsim

    return _written(onnxsim.simplify(onnx.load(file))[0], file)


def float16_common(file: Path) -> _Run:
    import onnx
    from onnxconverter_common.float16 import convert_float_to_float16

    return _written(convert_float_to_float16(onnx.load(file)), file)


def float16_ort(file: Path) -> _Run:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return _written(convert_float_to_float16(onnx.load(file), keep_io_types=True), file)


def quantize_dynamic(file: Path) -> _Run:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(file, file.with_suffix(".quantized.onnx"))
    return onnxruntime(file.with_suffix(".quantized.onnx"))


def quantize_static(file: Path) -> _Run:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(readable(file).values())

        def get_next(self) -> Any:
            x = next(self.images, None)
            return None if x is None else {"images": x}

    quantize_static(file, file.with_suffix(".quantized.onnx"), Reader(), per_channel=True)
    return onnxruntime(file.with_suffix(".quantized.onnx"))


def _written(model: Any, file: Path) -> _Run:
    import onnx

    target = file.with_suffix(".made.onnx")
    onnx.save(model, target)
    return onnxruntime(target)


# Name, what it needs, what it does. The first and the last two come with ONNX Runtime.
TOOLS: dict[str, tuple[str, Callable[[Path], _Run]]] = {
    "onnxruntime": ("onnxruntime", onnxruntime),
    "openvino": ("openvino", openvino),
    "opencv": ("cv2", opencv),
    "onnxslim": ("onnxslim", onnxslim),
    "onnxsim": ("onnxsim", onnxsim),
    "float16 (onnxconverter-common)": ("onnxconverter_common", float16_common),
    "float16 (onnxruntime.transformers)": ("onnxruntime", float16_ort),
    "quantize_dynamic": ("onnxruntime", quantize_dynamic),
    "quantize_static": ("onnxruntime", quantize_static),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--model", default="resnet18", help="name")
    parser.add_argument("--resolutions", default="224,160,96", help="trained")
    parser.add_argument("--tools", default=",".join(TOOLS), help="all that are installed")
    parser.add_argument("--old", help="a Python that has an older ONNX Runtime")
    parser.add_argument("--one", nargs=2, metavar=("TOOL", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(difference(options.one[0], Path(options.one[1])))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(options.model, [int(side) for side in options.resolutions.split(",")], folder)
        print(f"{'tool':36s}" + "".join(f"  {form:44s}" for form in _FORMS))
        for tool in options.tools.split(","):
            if importlib.util.find_spec(TOOLS[tool][0]) is not None:
                row(tool, tool, sys.executable, folder)
        if options.old:
            row("onnxruntime, older", "onnxruntime", options.old, folder)


def row(title: str, tool: str, python: str, folder: Path) -> None:
    cells = [cell(tool, python, folder / f"{form}.onnx") for form in _FORMS]
    print(f"{title:36s}" + "".join(f"  {text:44.44s}" for text in cells), flush=True)


def cell(tool: str, python: str, file: Path) -> str:
    command = [python, __file__, "--one", tool, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return lines[-1] if lines else f"crashes ({done.returncode})"


def difference(tool: str, file: Path) -> str:
    """Return the largest relative difference of each group of sizes, or the error."""
    try:
        run = TOOLS[tool][1](file)
    except Exception as error:  # the tool's own
        return f"refused: {' '.join(str(error).split())[:400]}"
    expected = np.load(file.parent / "logits.npz")
    found: dict[str, float] = {}
    for key, image in readable(file).items():
        try:
            got = np.asarray(run(image), np.float32)
        except Exception as error:
            return f"fails at {key}: {' '.join(str(error).split())[-300:]}"
        worst = float(abs(got - expected[key]).max() / abs(expected[key]).max())
        group = key.split()[0]
        found[group] = max(found.get(group, 0.0), worst)
    return ", ".join(f"{group} {worst:.0e}" for group, worst in found.items())


def readable(file: Path) -> dict[str, np.ndarray]:
    """Return the images that a file takes."""
    images = np.load(file.parent / "images.npz")
    return {key: images[key] for key in images.files[: 1 if file.stem == "plain" else None]}


def write_files(model: str, resolutions: Sequence[int], folder: Path) -> None:
    import torch

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import onnx_speed

    from rsconvert.export import export_onnx
    from rsconvert.surgery import with_middles

    onnx_speed.TRAINED = tuple(resolutions)
    net = onnx_speed.network(model)
    export_onnx(net, folder / "switching.onnx")
    export_onnx(net, folder / "compact.onnx", compact=True)
    export_onnx(net, folder / "plain.onnx", resolutions[0])
    export_onnx(net, folder / "half.onnx", precision="float16")
    midway = [side for side in with_middles(resolutions) if side not in resolutions]
    others = [(side + 5, side + 5) for side in midway] + [(resolutions[0], resolutions[-1])]
    groups = {"trained": [(s, s) for s in resolutions], "midway": [(s, s) for s in midway], "others": others}
    images = {f"{group} {h}x{w}": torch.randn(1, 3, h, w) for group, sizes in groups.items() for h, w in sizes}
    with torch.no_grad():
        np.savez(folder / "logits.npz", **{key: net(x).numpy() for key, x in images.items()})
    np.savez(folder / "images.npz", **{key: x.numpy() for key, x in images.items()})


if __name__ == "__main__":
    main()

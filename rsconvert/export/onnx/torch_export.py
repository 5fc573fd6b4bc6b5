"""A torch module as an ONNX model of one input, `images`, and one output, `logits`."""

import copy
import re
import warnings
from collections.abc import Collection
from typing import Any

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from rsconvert.errors import UnsupportedModelError, first_line
from rsconvert.export.opening import needed

__all__ = ["onnx_model"]

# A protobuf message, which an ONNX file is, ends there.
_LARGEST = 2**31 - 2**24
# The oldest that torch's exporter writes of itself: many tools lag behind.
_OPSET = 18


def onnx_model(module: nn.Module, image: Tensor, *, any_size: bool, optimize: bool = True) -> Any:
    """Return an ``onnx.ModelProto`` with free batch, computed for ``image`` (N, C, H, W), N > 1.

    Args:
        any_size: H and W are free too.
        optimize: let the exporter fold what is constant, BatchNorm into convolutions included.
    Raises:
        ConfigError: the extra ``onnx`` is not installed.
        UnsupportedModelError: the exporter can't convert the module, or it is too large for a file.
    """
    onnx, _ = needed("onnx"), needed("onnxscript")
    if sum(t.nbytes for t in module.state_dict().values()) > _LARGEST:
        raise UnsupportedModelError(
            "the network is larger than the 2 GiB that an ONNX file holds; a smaller one is needed. Export a program."
        )
    free = {0: "batch"} | ({image.ndim - 2: "height", image.ndim - 1: "width"} if any_size else {})
    padded = _pad_simply(module) if any_size else set()
    with warnings.catch_warnings(action="ignore"):  # of torch's exporter about itself
        model = _converted(_traced(module, image, free), optimize)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    names = {dims[i].dim_param: name for i, name in free.items()}
    for dim in (*dims, *model.graph.output[0].type.tensor_type.shape.dim):
        if dim.dim_param:
            dim.dim_param = names.get(dim.dim_param, dim.dim_param)
    for node in model.graph.node:
        del node.metadata_props[:]  # stack traces, half the size of a small network
        if node.op_type == "Conv" and node.input[1] in padded:
            _pad_as_tensorflow(node)
    del model.graph.value_info[:]
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    return model


def _traced(module: nn.Module, image: Tensor, free: Collection[int]) -> torch.export.ExportedProgram:
    sizes = dict.fromkeys(free, torch.export.Dim.DYNAMIC)
    try:
        return torch.export.export(module, (image,), dynamic_shapes=(sizes,), strict=False)
    except Exception as error:  # torch's own, and whatever the model's code raises on symbolic sizes
        raise UnsupportedModelError(
            f"torch.export fails on the network ({type(error).__name__}: {first_line(error)}); one whose sizes "
            "are data is needed. Export a path of one resolution, or another format."
        ) from error


def _converted(program: torch.export.ExportedProgram, optimize: bool) -> Any:
    try:
        made = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            optimize=optimize,
            input_names=["images"],
            output_names=["logits"],
            opset_version=_OPSET,
        )
        assert made is not None
        return made.model_proto
    except Exception as error:  # the exporter's own, which share no base
        raise UnsupportedModelError(_unconverted(program, error)) from error


def _pad_simply(module: nn.Module) -> set[str]:
    """Give convolutions of "same" padding, in place, a fixed one; return the weights of those that it does not suit.

    What "same" pads depends on the size, in arithmetic over which the exporter does not finish. Half the kernel gives
    outputs of the same shape, and with a stride of 1 the same values; for the others ONNX has an attribute.
    """
    names = {id(p): name for name, p in module.named_parameters()}
    found = set()
    for parent in list(nn.Module.modules(module)):
        for key, child in parent._modules.items():
            if isinstance(child, Conv2dSame):
                parent._modules[key] = conv = copy.copy(child)
                conv.__class__ = nn.Conv2d
                conv.padding = tuple(d * (k - 1) // 2 for d, k in zip(child.dilation, child.kernel_size, strict=True))
                if max(child.stride) > 1:
                    found.add(names[id(child.weight)])
    return found


def _pad_as_tensorflow(node: Any) -> None:
    onnx = needed("onnx")
    kept = [a for a in node.attribute if a.name not in ("pads", "auto_pad")]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute("auto_pad", "SAME_UPPER")])


def _unconverted(program: torch.export.ExportedProgram, error: BaseException) -> str:
    """Name the operator that has no ONNX form, and the module that calls it."""
    while error.__cause__ is not None:
        error = error.__cause__
    found = re.search(r"op='([\w.]+)'", str(error))
    if found is None:
        return f"the ONNX exporter fails ({type(error).__name__}: {first_line(error)}); another model is needed."
    name = found[1].replace("::", ".")
    calls = (n for n in program.run_decompositions().graph.nodes if str(n.target).startswith(name))
    places = [path for n in calls for path, _ in [*n.meta.get("nn_module_stack", {}).values()][-1:]]
    place = places[0] if places else "the network"
    return (
        f"{place or 'the network'} calls {name}, which the ONNX exporter can't convert; operators that ONNX has are "
        "needed. Replace it, or export another format."
    )

"""The folded paths of a network as ONNX models of one graph, in which the names of all tensors are the same."""

from typing import Any

import torch
from torch import nn

from rsconvert.errors import UnsupportedModelError
from rsconvert.export.logits import keep_logits
from rsconvert.export.onnx.torch_export import onnx_model
from rsconvert.export.opening import needed
from rsconvert.models import example_input
from rsconvert.surgery import SwitchableModel, fold_batchnorm

__all__ = ["PlainGraphs", "check_dtypes"]


def check_dtypes(net: nn.Module) -> None:
    """Raise an UnsupportedModelError for a network of a precision in which ONNX Runtime does not compute."""
    strange = [(name, p.dtype) for name, p in net.named_parameters() if p.dtype in (torch.float64, torch.bfloat16)]
    for name, dtype in strange[:1]:
        raise UnsupportedModelError(
            f"{name} is {str(dtype).removeprefix('torch.')}, in which ONNX Runtime has no convolutions; float32 is "
            "needed. Call net.float()."
        )


class PlainGraphs:
    """The paths of a network as ONNX models that take any size, BatchNorm folded; the exporter runs once.

    Raises:
        UnsupportedModelError: the exporter can't take the network, or not for any size.
    """

    def __init__(self, net: SwitchableModel) -> None:
        self.net = net
        path, _ = fold_batchnorm(net.at(net.native), net.native)
        module = keep_logits(_distinct(path), net.source.task)
        self._model = onnx_model(module, example_input(net, net.native, 2), any_size=True)

    def at(self, resolution: int) -> Any:
        """Return the ``onnx.ModelProto`` of a resolution in pixels, trained or not."""
        onnx = needed("onnx")
        state = fold_batchnorm(self.net.at(resolution), resolution)[0].state_dict()
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        for tensor in model.graph.initializer:
            if tensor.name in state:
                values = state[tensor.name].detach().numpy()
                if list(tensor.dims) != list(values.shape):
                    raise UnsupportedModelError(
                        f"{tensor.name} has another shape at {resolution} than at {self.net.native}; one graph for all "
                        "resolutions is needed. Export in float32."
                    )
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        return model


@torch.no_grad()
def _distinct(path: nn.Module) -> nn.Module:
    """Give all tensors, in place, values of which no two are equal: the exporter stores equal tensors once."""
    generator = torch.Generator().manual_seed(0)
    for tensor in path.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return path

"""to_graph: the network as one fx graph in which the weights of the BN sets flow from the input's size as data."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, fx, nn

from rsconvert.errors import UnsupportedModelError
from rsconvert.models import ImageArgument
from rsconvert.surgery.graph import trace
from rsconvert.surgery.network import SwitchableBN, SwitchableModel

__all__ = ["SetWeights", "to_graph"]

_NAME = "rsconvert_set_weights"


class SetWeights(nn.Module):
    """Map an image batch (N, C, H, W) to the weights of the S sets, (S,), by its size alone.

    The hat functions of ``interpolation_weights`` in tensor arithmetic: a size that is symbolic stays data.
    """

    resolutions: Tensor

    def __init__(self, resolutions: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("resolutions", torch.tensor(resolutions, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        nodes = self.resolutions
        pixels = torch.scalar_tensor(x.shape[-2] * x.shape[-1], dtype=torch.float32, device=nodes.device)
        side = pixels.sqrt().round()
        # Between two neighbours this goes from 0 at the larger to 1 at the smaller.
        passed = ((nodes[:-1] - side) / (nodes[:-1] - nodes[1:])).clamp(0, 1)
        return torch.cat([torch.ones_like(nodes[:1]), passed]) - torch.cat([passed, torch.zeros_like(nodes[:1])])


def to_graph(net: SwitchableModel) -> fx.GraphModule:
    """Return a graph over the network's tensors, for eval mode, that chooses its BN set from the input's size.

    Every SwitchableBN in it is called with (x, weights), weights (S,) computed once behind the input. It agrees
    with ``net(x)`` up to rounding at every size: exporters stand on it.

    Raises:
        UnsupportedModelError: fx can't trace a module that holds a BatchNorm, the network is built again for each
            resolution, has private tensors beside its BatchNorm modules, or takes no images (N, C, H, W).
    """
    if net.build is not None or net.private_beside():
        reason = "is built again for each resolution" if net.build else f"has private {net.private_beside()[0]}"
        raise UnsupportedModelError(
            f"the network {reason}; one graph for all sizes needs one model whose private tensors are those of "
            "BatchNorm modules. Use one path instead: net.at(resolution)."
        )
    image = _image(net)
    root = net.skeleton().eval()
    graph, opaque = trace(root)
    if graph is None or opaque:
        name, reason = next(iter(opaque.items()))
        raise UnsupportedModelError(
            f"{name or type(root).__name__} can't be traced by torch.fx ({reason}); a graph down to every BatchNorm is "
            "needed. Use one path instead: net.at(resolution)."
        )
    root.add_module(_NAME, SetWeights(net.resolutions).to(net.alpha.device))
    _feed_weights(graph, root, image)
    graph.lint()
    return fx.GraphModule(root, graph)


def _image(net: SwitchableModel) -> ImageArgument:
    images = (ImageArgument(),) if net.source.images is None else net.source.images
    odd = [image for image in images if image.keys or image.axes != (-2, -1)]
    if odd or not images:
        raise UnsupportedModelError(
            f"the network takes {f'{odd[0].label} {odd[0].layout}' if odd else 'no argument known to be an image'}; a "
            "graph chooses by images (N, C, H, W) that are an argument of their own. Use one path instead: "
            "net.at(resolution)."
        )
    return images[0]


def _feed_weights(graph: fx.Graph, root: nn.Module, place: ImageArgument) -> None:
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    image = next((node for node in inputs if node.target == place.name), inputs[0])
    with graph.inserting_after(inputs[-1]):
        weights = graph.call_module(_NAME, (image,))
    for node in graph.nodes:
        if node.op == "call_module" and isinstance(root.get_submodule(cast(str, node.target)), SwitchableBN):
            node.args, node.kwargs = (*node.args, *node.kwargs.values(), weights), {}

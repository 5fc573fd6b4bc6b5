"""PlainGraphs: one graph, filled with the folded tensors of each path."""

import onnxruntime
import torch
from torch import nn

from rsconvert.export.onnx.plain_graphs import PlainGraphs


def test_each_resolution_computes_what_its_path_does(scrambled_net, image) -> None:
    """Among them equal biases, which an exporter stores once, and a BatchNorm that nothing takes over."""
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1)]
    model = nn.Sequential(*body, nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
    for layer in (model[0], model[4], model[8]):
        nn.init.zeros_(layer.bias)
    net = scrambled_net(model)
    graphs = PlainGraphs(net)
    names = None
    for side in (64, 56, 32):
        made = graphs.at(side)
        session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
        for size in (side, 40):
            found = torch.from_numpy(session.run(None, {"images": image(size).numpy()})[0])
            torch.testing.assert_close(found, net.at(side)(image(size)).detach(), rtol=1e-4, atol=1e-5)
        own = [output for node in made.graph.node for output in node.output]
        assert names in (None, own)
        names = own

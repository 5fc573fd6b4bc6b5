"""graph_of_one_table: the graph of the network, in which one product mixes the sets."""

import pytest
import timm
import torch
from torch import nn

from rsconvert.errors import UnsupportedModelError
from rsconvert.export.onnx.one_table import TABLE, graph_of_one_table

RESOLUTIONS = (64, 48, 32)


@pytest.mark.parametrize("name", ["tiny", "test_efficientnet"])
def test_the_graph_agrees_with_the_network(name, tiny, scrambled_net, image) -> None:
    torch.manual_seed(0)
    net = scrambled_net(tiny() if name == "tiny" else timm.create_model(name, num_classes=4))
    graph = graph_of_one_table(net)
    with torch.no_grad():
        for shape in ((64,), (48,), (32,), (56,), (40,), (90,), (25,), (32, 72)):
            torch.testing.assert_close(graph(image(*shape)), net(image(*shape)), rtol=1e-4, atol=1e-5)


def test_the_table_holds_the_sets_and_nothing_is_held_twice(tiny, scrambled_net) -> None:
    net = scrambled_net(tiny())
    state = graph_of_one_table(net).state_dict()
    table = state[TABLE]
    for row, resolution in zip(table, RESOLUTIONS, strict=True):
        bns = [getattr(net.at(resolution), name) for name in ("bn1", "bn2")]
        expected = [t for bn in bns for t in (bn.weight, bn.bias, bn.running_mean, bn.running_var)]
        assert torch.equal(row, torch.cat(expected))
    shared = {n: t for n, t in tiny().state_dict().items() if "bn" not in n}
    assert state.keys() == {*shared, TABLE, "rsconvert_set_weights.resolutions"}
    assert (len(table), table[0].numel()) == (3, 4 * (8 + 6))


def test_variance_is_interpolated_and_not_the_scale(scrambled_net, image) -> None:
    """Of two sets with variances 1 and 9 the middle has 5: the scale is 1/√5, not 2/3."""
    net = scrambled_net(nn.Sequential(nn.BatchNorm2d(3, eps=1e-10)), (64, 32))
    for resolution, variance in ((64, 1.0), (32, 9.0)):
        bn = net.at(resolution)[0]
        for tensor, value in ((bn.weight, 1.0), (bn.bias, 0.0), (bn.running_mean, 0.0), (bn.running_var, variance)):
            tensor.data.fill_(value)
    torch.testing.assert_close(graph_of_one_table(net)(image(48)), image(48) / 5**0.5)


def test_a_batchnorm_that_is_called_twice_reads_the_same_numbers(scrambled_net, image) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x):
            return self.bn(self.conv(self.bn(x)))

    net = scrambled_net(Twice())
    graph = graph_of_one_table(net)
    assert graph.state_dict()[TABLE].shape == (3, 12)
    torch.testing.assert_close(graph(image(40)), net(image(40)), rtol=1e-4, atol=1e-5)


def test_what_to_graph_refuses_is_refused(scrambled_net) -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(3)

        def forward(self, x):
            return self.bn(x) if x.sum() < 1e9 else x

    with pytest.raises(UnsupportedModelError, match=r"can't be traced by torch.fx"):
        graph_of_one_table(scrambled_net(nn.Sequential(Branch())))

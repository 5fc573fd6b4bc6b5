"""branch: B + 1 branches over one body, each of them tried by what it computes."""

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto, numpy_helper

from rsconvert.export.onnx.branches import branch, weigh_in_integers
from rsconvert.export.onnx.one_table import TABLE, graph_of_one_table
from rsconvert.export.onnx.torch_export import onnx_model
from rsconvert.surgery import SwitchableModel


@pytest.fixture(scope="module")
def made(scrambled_net) -> tuple[SwitchableModel, ModelProto, ModelProto]:
    """A network with its model before and after."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, stride=2), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3, groups=4)
    )
    model = torch.nn.Sequential(*model, torch.nn.BatchNorm2d(4), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    net = scrambled_net(model)
    before = onnx_model(graph_of_one_table(net), torch.randn(2, 3, 64, 64), any_size=True)
    weigh_in_integers(before, net.resolutions)
    model = onnx.ModelProto()
    model.CopyFrom(before)
    return net, before, branch(model, net.resolutions, (80, 64, 48, 40, 32))


def test_every_branch_computes_what_the_network_does(made, tmp_path: Path, run_onnx, image) -> None:
    net, _, after = made
    onnx.checker.check_model(after, full_check=True)
    onnx.save(after, tmp_path / "branched.onnx")
    for shape in ((64,), (48,), (32,), (56,), (40,), (100,), (20,), (64, 32), (72, 32)):
        expected = net(image(*shape)).detach()
        torch.testing.assert_close(run_onnx(tmp_path / "branched.onnx", image(*shape)), expected, rtol=1e-4, atol=1e-5)


def test_no_tensor_is_left_that_nothing_reads(made) -> None:
    read = {name for node in made[1].graph.node for name in node.input}
    assert {tensor.name for tensor in made[1].graph.initializer} <= read


def test_a_branch_reads_its_own_rows_alone(made, tmp_path: Path, run_onnx, image) -> None:
    """With the other rows spoiled: in a sum with weight 0 they would spoil the result."""
    net, _, after = made
    spoiled = onnx.ModelProto()
    spoiled.CopyFrom(after)
    table = next(tensor for tensor in spoiled.graph.initializer if tensor.name == TABLE)
    values = numpy_helper.to_array(table).copy()
    values[0] = float("nan")
    table.CopyFrom(numpy_helper.from_array(values, TABLE))
    onnx.save(spoiled, tmp_path / "spoiled.onnx")
    for side in (48, 40, 32):
        expected = net(image(side)).detach()
        torch.testing.assert_close(run_onnx(tmp_path / "spoiled.onnx", image(side)), expected, rtol=1e-4, atol=1e-5)
    for side in (64, 56, 44):  # at 44, without a branch, the weight of the spoiled row is 0
        assert run_onnx(tmp_path / "spoiled.onnx", image(side)).isnan().all()


@pytest.fixture(scope="module")
def opened(made, onnx_leaves, tmp_path_factory: pytest.TempPathFactory) -> list[onnx.GraphProto]:
    """What ONNX Runtime makes of each branch, and of the last, apart from what hangs on the processor."""
    folder = tmp_path_factory.mktemp("opened")
    onnx.save(made[2], folder / "branched.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    onnxruntime.InferenceSession(str(folder / "branched.onnx"), options, providers=["CPUExecutionProvider"])
    return onnx_leaves(onnx.load(folder / "optimized.onnx").graph)


def test_a_runtime_folds_every_batchnorm_but_those_of_the_last_branch(opened) -> None:
    assert [[n.op_type for n in graph.node].count("BatchNormalization") for graph in opened] == [0, 0, 0, 0, 2]


def test_weights_and_biases_are_the_branchs_own_which_a_runtime_can_lay_out(opened) -> None:
    for graph in opened:
        held = {tensor.name for tensor in graph.initializer}
        convolutions = [n for n in graph.node if n.op_type == "Conv"]
        assert len(convolutions) == 2
        assert all(len(n.input) == 3 and held.issuperset(n.input[1:]) for n in convolutions)


def test_nothing_is_stored_twice(made) -> None:
    _, before, after = made
    held = {tensor.name for tensor in before.graph.initializer}
    new = {tensor.name: tensor for tensor in after.graph.initializer if tensor.name not in held}
    assert sum(numpy_helper.to_array(tensor).nbytes for tensor in new.values()) < 512
    assert len(after.graph.initializer) == len(held) + len(new)
    assert [node.op_type for node in after.graph.node].count("If") == 1


def test_other_tools_find_no_function_and_an_old_version(made) -> None:
    _, before, after = made
    for model in (before, after):
        assert (model.ir_version, [(entry.domain, entry.version) for entry in model.opset_import]) == (8, [("", 18)])
        assert not model.functions


def test_what_chooses_a_branch_is_all_integers(made) -> None:
    """Float arithmetic would be what a quantizer or a converter to float16 changes."""
    _, _, after = made
    kinds = {value.name: value.data_type for value in after.graph.initializer}
    read = {name for node in after.graph.node for name in node.input if name in kinds}
    assert {kinds[name] for name in read} == {onnx.TensorProto.INT64}
    assert {node.op_type for node in after.graph.node} == {
        *("Shape", "ReduceProd", "Greater", "Cast", "ReduceSum", "Gather", "Less", "If"),
    }

"""Exports opened by the software that they were written for: a file made by hand, stock timm, stock torchvision."""

import sys
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

import rsconvert
from rsconvert.errors import CheckpointError, ConfigError
from rsconvert.export import open_export
from rsconvert.surgery import SwitchableModel


@pytest.fixture(scope="module")
def net() -> SwitchableModel:
    torch.manual_seed(0)
    return rsconvert.make_switchable(rsconvert.create_model("test_efficientnet", num_classes=5), (48, 32)).eval()


def write_mean(path: Path, shape: list[int | str]) -> Path:
    """An ONNX file that takes the mean over the pixels."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [shape[0], shape[1]])
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    node = helper.make_node("ReduceMean", ["images", "axes"], ["logits"], keepdims=0)
    graph = helper.make_graph([node], "mean", [images], [logits], [axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_an_onnx_file_tells_what_it_takes(tmp_path: Path, net: SwitchableModel) -> None:
    free = open_export(write_mean(tmp_path / "free.onnx", ["n", 3, "h", "w"]), net)
    x = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(free.run(x), x.mean((2, 3)))
    assert (free.batch, free.height, free.width, free.bound) == ("n", "h", "w", ())
    bound = open_export(write_mean(tmp_path / "bound.onnx", [2, 3, 48, 48]), net)
    assert (bound.batch, bound.bound) == (2, (48, 48))


@pytest.mark.parametrize("branches", ["5", "[", '"abc"', "[1.5]", "[[1]]", "[0]", "[]", "[48, 48]", '{"48": 1}'])
def test_branches_that_are_none_are_told_of_the_file(tmp_path: Path, net: SwitchableModel, branches: str) -> None:
    path = write_mean(tmp_path / "net.onnx", ["n", 3, "h", "w"])
    model = onnx.load(path)
    helper.set_model_props(model, {"branches": branches})
    onnx.save(model, path)
    with pytest.raises(CheckpointError, match=r"net\.onnx can't be opened as a file of ONNX") as caught:
        open_export(path, net)
    assert "\n" not in str(caught.value)


def test_a_program_tells_what_it_takes(tmp_path: Path, net: SwitchableModel) -> None:
    side = torch.export.Dim("side", min=8, max=64)
    program = torch.export.export(nn.ReLU(), (torch.zeros(2, 3, 16, 16),), dynamic_shapes=({2: side, 3: side},))
    torch.export.save(program, tmp_path / "relu.pt2")
    opened = open_export(tmp_path / "relu.pt2", net)
    assert (opened.batch, opened.bound) == (2, ())
    assert opened.height == opened.width
    x = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(opened.run(x), x.relu())


def test_a_folder_of_timm_is_bound_to_its_resolution(tmp_path: Path, net: SwitchableModel) -> None:
    opened = open_export(rsconvert.export_timm(net, 40, tmp_path / "folder"), net)
    assert opened.bound == (40, 40)
    x = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(opened.run(x), net(x))


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_a_state_of_torchvision_does_not_tell_its_resolution(tmp_path: Path, name: str) -> None:
    net = rsconvert.make_switchable(
        rsconvert.create_model("torchvision/shufflenet_v2_x0_5", num_classes=3), (64, 32)
    ).eval()
    opened = open_export(rsconvert.export_torchvision(net, 32, tmp_path / name), net)
    assert opened.plain
    x: Tensor = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(opened.run(x), net(x))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.onnx", "does not exist"),
        ("broken.onnx", "can't be opened as a file of ONNX"),
        ("broken.pt2", "can't be opened as a file of torch.export"),
        ("broken.txt", "has the suffix '.txt'; .onnx, .pt2"),
        ("broken.pth", "a state_dict of torchvision, but the network is test_efficientnet"),
        ("", "holds no config.json"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, net: SwitchableModel, name: str, words: str) -> None:
    if name.startswith("broken"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match=words) as caught:
        open_export(tmp_path / name, net)
    assert "\n" not in str(caught.value)


def test_a_file_of_several_inputs_is_refused(tmp_path: Path, net: SwitchableModel) -> None:
    path = write_mean(tmp_path / "two.onnx", ["n", 3, "h", "w"])
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n"]))
    onnx.save(model, path)
    with pytest.raises(CheckpointError, match="one image batch is accepted"):
        open_export(path, net)


def test_a_missing_package_is_named(tmp_path: Path, net: SwitchableModel, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_mean(tmp_path / "free.onnx", ["n", 3, "h", "w"])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"onnxruntime is not installed; .* pip install 'rsconvert\[onnx\]'"):
        open_export(path, net)

"""Networks that return a dictionary or a tuple: their files give the logits alone, at every size."""

import json
from collections import namedtuple
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsconvert import Task
from rsconvert.errors import UnsupportedModelError
from rsconvert.export import export_onnx, export_program, verify_export
from rsconvert.export.logits import keep_logits
from rsconvert.export.onnx.one_table import TABLE, graph_of_one_table
from rsconvert.surgery import SwitchableModel, to_graph

Masks = namedtuple("Masks", ("coarse", "out"))
TASK = Task(name="segmentation", output="out")


class Segments(nn.Module):
    """Logits at the image's size, and those of an auxiliary head with a BatchNorm of its own."""

    def __init__(self, form: str = "dict") -> None:
        super().__init__()
        self.form = form
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Conv2d(6, 4, 1)
        self.other = nn.Sequential(nn.Conv2d(6, 5, 1), nn.BatchNorm2d(5), nn.Conv2d(5, 4, 1))

    def forward(self, x: Tensor) -> Any:
        features = self.stem(x)
        out = F.interpolate(self.head(features), size=x.shape[-2:], mode="bilinear", align_corners=False)
        return {"dict": {"aux": self.other(features), "out": out}, "tuple": Masks(self.other(features), out)}[self.form]


@pytest.fixture(scope="module", params=["dict", "tuple"])
def net(request: pytest.FixtureRequest, scrambled_net) -> SwitchableModel:
    torch.manual_seed(0)
    task = {"name": "segmentation", "output": "out", "ignore_index": 7}
    return scrambled_net(Segments(request.param), task=task)  # type: ignore[no-any-return]


def logits(net: SwitchableModel, x: Tensor) -> Tensor:
    found = net(x)
    return found["out"] if isinstance(found, dict) else found.out


@torch.no_grad()
def test_a_graph_drops_what_the_logits_do_not_need(net: SwitchableModel, image) -> None:
    whole, cut = to_graph(net), graph_of_one_table(net)
    assert any(str(node.target).startswith("other") for node in whole.graph.nodes)
    assert not any(str(node.target).startswith("other") for node in cut.graph.nodes)
    assert cut.get_buffer(TABLE).shape == (3, 4 * 6)
    for side in (64, 40):
        torch.testing.assert_close(cut(image(side)), logits(net, image(side)))


def test_one_onnx_file_gives_masks_at_every_size(net: SwitchableModel, tmp_path: Path, run_onnx, image) -> None:
    exported = export_onnx(net, tmp_path / "net.onnx")
    assert [*exported.verification[tmp_path / "net.onnx"].sizes] == ["64", "60", "56", "48", "40", "32", "64x32"]
    for height, width in ((64, 64), (40, 40), (36, 52)):
        with torch.no_grad():
            torch.testing.assert_close(
                run_onnx(tmp_path / "net.onnx", image(height, width)),
                logits(net, image(height, width)),
                rtol=1e-4,
                atol=1e-5,
            )
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_outputs()] == ["logits"]
    facts = session.get_modelmeta().custom_metadata_map
    assert (facts["task"], json.loads(facts["ignore_index"]), json.loads(facts["num_classes"])) == (
        "segmentation",
        7,
        4,
    )


def test_one_path_as_onnx_and_as_a_program(net: SwitchableModel, tmp_path: Path, image) -> None:
    export_onnx(net, tmp_path / "net.onnx", 48)
    assert not any("other" in tensor.name for tensor in onnx.load(tmp_path / "net.onnx").graph.initializer)
    export_program(net, 48, tmp_path / "net.pt2", fold=True)
    program = torch.export.load(tmp_path / "net.pt2").module()
    with torch.no_grad():
        torch.testing.assert_close(program(image(48)), logits(net, image(48)), rtol=1e-4, atol=1e-5)
    for name in ("net.onnx", "net.pt2"):
        found = verify_export(tmp_path / name, net)
        assert found.passed
        assert found.sizes["48"].clear > 10_000  # positions, not images


def test_a_module_selects_when_it_runs() -> None:
    model, x = Segments(), torch.rand(1, 3, 8, 8)
    assert torch.equal(keep_logits(model, TASK)(x), Segments.forward(model, x)["out"])
    plain = nn.Conv2d(3, 4, 1)
    assert keep_logits(plain, Task(name="segmentation")) is plain
    assert "forward" not in vars(plain)


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Segments()

    def forward(self, x: Tensor) -> Any:
        return self.inner(x)


def test_a_graph_that_returns_a_modules_output_selects_in_it(image) -> None:
    class Leaves(torch.fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return True

    model = Whole()
    graph = torch.fx.GraphModule(model, Leaves().trace(model))
    cut = keep_logits(graph, TASK)
    assert torch.equal(cut(image(16)), model(image(16))["out"])
    with pytest.raises(UnsupportedModelError, match=r"'gone' is a NoneType"):
        keep_logits(torch.fx.GraphModule(model, Leaves().trace(model)), Task(name="segmentation", output="gone"))(
            image(16)
        )

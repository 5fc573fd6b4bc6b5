"""Networks whose sets differ from each other, and what ONNX Runtime makes of their exports."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import rsconvert
from rsconvert.surgery import SwitchableModel, scrambled, write

RESOLUTIONS = (64, 48, 32)


@pytest.fixture(scope="session")
def scrambled_net(draw_heads: Callable[[SwitchableModel], SwitchableModel]) -> Callable[..., SwitchableModel]:
    """Make a model switchable, with values of its own in every set."""

    def make(model: nn.Module, resolutions: Sequence[int] = RESOLUTIONS, **options: object) -> SwitchableModel:
        net = rsconvert.make_switchable(model, resolutions, **options).eval()  # type: ignore[arg-type]
        for resolution in resolutions if net.private else resolutions[:1]:
            write(net.at(resolution), scrambled(net.at(resolution), resolution))
        return draw_heads(net)

    return make


@pytest.fixture(scope="session")
def onnx_leaves() -> Callable[[onnx.GraphProto], list[onnx.GraphProto]]:
    """Return the graphs that the Ifs of a graph choose from, in the order of the branches, the last at the end."""

    def leaves(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
        choices = [node for node in graph.node if node.op_type == "If"]
        ways = {attribute.name: attribute.g for attribute in choices[0].attribute} if choices else {}
        return [*leaves(ways["then_branch"]), *leaves(ways["else_branch"])] if ways else [graph]

    return leaves


@pytest.fixture(scope="session")
def run_onnx() -> Callable[[Path, Tensor], Tensor]:
    """Run a file in ONNX Runtime, which opens it once."""

    @functools.lru_cache(maxsize=4)
    def opened(path: Path, written: int) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(path: Path, x: Tensor) -> Tensor:
        session = opened(path, path.stat().st_mtime_ns)
        return torch.from_numpy(session.run(["logits"], {"images": x.numpy()})[0])

    return run

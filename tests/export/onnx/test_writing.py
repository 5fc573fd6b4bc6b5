"""export_onnx: the files compute what the network does, hold its weights once, and never stay unverified."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import rsconvert
from rsconvert.errors import CheckpointError, ConfigError, ResolutionError, RSConvertError, UnsupportedModelError
from rsconvert.export import export_onnx, verify_export
from rsconvert.export.onnx import writing as exporting
from rsconvert.export.onnx.one_table import TABLE
from rsconvert.export.onnx.writing import check_readers, share_weights
from rsconvert.surgery import SwitchableModel

SHAPES = ((64,), (48,), (32,), (56,), (40,), (90,), (31,), (32, 72))


def stored(path: Path) -> dict[str, int]:
    return {t.name: numpy_helper.to_array(t).nbytes for t in onnx.load(path).graph.initializer}


@pytest.fixture(scope="module")
def net(scrambled_net) -> SwitchableModel:
    """timm's test_efficientnet: depthwise convolutions, squeeze-and-excitation, BatchNorms with an activation."""
    torch.manual_seed(0)
    return scrambled_net(rsconvert.create_model("test_efficientnet", num_classes=5))


@pytest.fixture(scope="module")
def file(net: SwitchableModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    (result,) = export_onnx(net, path).verification.values()
    assert list(result.sizes) == ["64", "60", "56", "48", "40", "32", "64x32"]
    assert [p.name for p in path.parent.iterdir()] == ["net.onnx"]
    return path


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch", [1, 3])
def test_one_file_switches_by_itself(net: SwitchableModel, file: Path, run_onnx, image, shape, batch: int) -> None:
    x = image(*shape, batch=batch)
    torch.testing.assert_close(run_onnx(file, x), net(x).detach(), rtol=1e-4, atol=1e-5)


def test_weights_are_stored_once(net: SwitchableModel, file: Path) -> None:
    bn = {name for name, _ in net.switchable_bns()}
    shared = sum(p.nbytes for n, p in net.at(64).named_parameters() if n.rpartition(".")[0] not in bn)
    sets = 3 * sum(t.nbytes for _, m in net.switchable_bns() for t in m.floating(0).values())
    sizes = stored(file)
    assert sizes[TABLE] == sets
    # The smallest tensors are constants of the graph instead.
    assert abs(sum(sizes.values()) - shared - sets) < 4000
    # Each of the five branches, and the last, has nodes of its own.
    assert file.stat().st_size < shared + sets + 6 * 20_000


def test_the_metadata_tell_what_a_caller_needs(net: SwitchableModel, file: Path, tmp_path: Path) -> None:
    facts = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert json.loads(facts["resolutions"]) == [64, 48, 32]
    assert json.loads(facts["branches"]) == [64, 56, 48, 40, 32]
    assert json.loads(facts["mean"]) == list(net.source.preprocessing.mean)
    assert json.loads(facts["std"]) == list(net.source.preprocessing.std)
    assert (facts["interpolation"], facts["architecture"]) == ("bilinear", "test_efficientnet")
    assert json.loads(facts["crop_pct"]) == net.source.preprocessing.crop_pct
    assert (facts["opset"], facts["precision"]) == ("18", "float32")
    assert "class_names" not in facts


@pytest.mark.parametrize("wrong", [64, 48, 32])
def test_a_tampered_set_is_found(net: SwitchableModel, file: Path, tmp_path: Path, wrong: int) -> None:
    model = onnx.load(file)
    table = next(tensor for tensor in model.graph.initializer if tensor.name == TABLE)
    values = numpy_helper.to_array(table).copy()
    values[[64, 48, 32].index(wrong), -5:] += 0.1
    table.CopyFrom(numpy_helper.from_array(values, TABLE))
    onnx.save(model, tmp_path / "tampered.onnx")
    result = verify_export(tmp_path / "tampered.onnx", net, (64, 48, 32))
    assert [size for size, row in result.sizes.items() if row.difference > 1e-4 and "x" not in size] == [str(wrong)]


def test_a_compact_file_switches_too(tiny, scrambled_net, tmp_path: Path, run_onnx, image) -> None:
    torch.manual_seed(0)
    net = scrambled_net(tiny())
    net.source = replace(net.source, class_names=("a", "b", "c", "d", "e"))
    export_onnx(net, tmp_path / "compact.onnx", compact=True)
    model = onnx.load(tmp_path / "compact.onnx")
    assert not model.functions
    assert {node.op_type for node in model.graph.node}.isdisjoint({"If"})
    assert json.loads({e.key: e.value for e in model.metadata_props}["class_names"]) == ["a", "b", "c", "d", "e"]
    for shape in SHAPES:
        x = image(*shape)
        torch.testing.assert_close(run_onnx(tmp_path / "compact.onnx", x), net(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"compact": True}, {"resolution": 48}])
def test_float16_switches_too(options, tiny, scrambled_net, tmp_path: Path, run_onnx, image) -> None:
    torch.manual_seed(0)
    net = scrambled_net(tiny())
    (result,) = export_onnx(net, tmp_path / "half.onnx", precision="float16", **options).verification.values()
    assert result.tolerance == 1e-2
    assert 1e-5 < result.difference < 1e-2
    model = onnx.load(tmp_path / "half.onnx")
    assert {e.key: e.value for e in model.metadata_props}["precision"] == "float16"
    floats = [t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT]
    assert sum(numpy_helper.to_array(t).nbytes for t in floats) < 64
    for shape in SHAPES if "resolution" not in options else ((48,),):
        expected = net(image(*shape)).detach()
        torch.testing.assert_close(run_onnx(tmp_path / "half.onnx", image(*shape)), expected, rtol=2e-2, atol=2e-2)


def branches(path: Path) -> list[int]:
    return json.loads({entry.key: entry.value for entry in onnx.load(path).metadata_props}["branches"])


def test_the_branches_are_those_that_one_names(tiny, scrambled_net, tmp_path, run_onnx, onnx_leaves, image) -> None:
    net = scrambled_net(tiny())
    (result,) = export_onnx(net, tmp_path / "net.onnx", branches=(36, 80, 64)).verification.values()
    assert list(result.sizes) == ["80", "64", "56", "48", "40", "36", "32", "80x32"]
    assert {row.images for row in result.sizes.values()} == {6}
    assert branches(tmp_path / "net.onnx") == [80, 64, 36]
    # Beyond the ends all sizes have one set, and so one branch.
    assert len(onnx_leaves(onnx.load(tmp_path / "net.onnx").graph)) == 3
    for shape in (*SHAPES, (36,), (37,)):
        expected = net(image(*shape)).detach()
        torch.testing.assert_close(run_onnx(tmp_path / "net.onnx", image(*shape)), expected, rtol=1e-4, atol=1e-5)


def test_branches_may_be_many(tiny, scrambled_net, tmp_path: Path) -> None:
    """Nested one in the other, they would be too deep for a file."""
    (result,) = export_onnx(scrambled_net(tiny()), tmp_path / "net.onnx", branches=range(30, 66)).verification.values()
    assert len(result.sizes) == 37
    assert result.passed


def test_a_mask_is_no_kernel(tiny, scrambled_net, tmp_path: Path) -> None:
    class Masked(tiny):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.tensor([True, False] * 3).view(1, 6, 1, 1))

        def forward_features(self, x: Tensor) -> Tensor:
            return torch.where(self.mask, super().forward_features(x), 0)

    (result,) = export_onnx(scrambled_net(Masked()), tmp_path / "net.onnx").verification.values()
    assert result.passed


def test_a_middle_that_the_network_does_not_take_gets_no_branch(scrambled_net, tmp_path: Path, onnx_leaves) -> None:
    class Skipping(nn.Module):
        """Puts what it halved twice beside what it halved once, which fits for multiples of 4 alone."""

        def __init__(self) -> None:
            super().__init__()
            self.once = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4))
            self.twice = nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1), nn.BatchNorm2d(4))

        def forward(self, x: Tensor) -> Tensor:
            x = self.once(x)
            return torch.cat([x, nn.functional.interpolate(self.twice(x), scale_factor=2)], 1).mean((2, 3))

    net = scrambled_net(Skipping(), (40, 32, 28))
    (result,) = export_onnx(net, tmp_path / "net.onnx").verification.values()
    assert branches(tmp_path / "net.onnx") == [40, 36, 32, 28]
    assert len(onnx_leaves(onnx.load(tmp_path / "net.onnx").graph)) == 5
    assert list(result.sizes) == ["40", "36", "32", "28", "40x28"]
    with pytest.raises(ResolutionError, match="resolution 30 does not work in the network"):
        export_onnx(net, tmp_path / "other.onnx", branches=(40, 30))


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_a_precision_without_convolutions_is_refused(tiny, scrambled_net, tmp_path: Path, dtype: str) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"^conv1\.weight is {dtype}, .* Call net\.float\(\)"):
        export_onnx(scrambled_net(tiny()).to(getattr(torch, dtype)), tmp_path / "x.onnx")


@pytest.mark.parametrize("options", [{"compact": True}, {"branches": (48,)}])
def test_one_set_has_no_branches(tiny, scrambled_net, tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="for a network of one BN set"):
        export_onnx(scrambled_net(tiny(), (48,)), tmp_path / "x.onnx", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"resolutions": (48,)}, {"private": False}])
def test_a_network_of_one_set_takes_all_sizes(tiny, scrambled_net, tmp_path: Path, run_onnx, image, options) -> None:
    torch.manual_seed(0)
    net = scrambled_net(tiny(), **options)
    export_onnx(net, tmp_path / "one.onnx")
    for shape in ((48,), (40,), (64, 32)):
        x = image(*shape)
        torch.testing.assert_close(run_onnx(tmp_path / "one.onnx", x), net(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("private", [("bn", "head"), ("head",)])
def test_private_classifiers_switch_too(tiny, scrambled_net, tmp_path, run_onnx, image, private, compact) -> None:
    torch.manual_seed(0)
    net = scrambled_net(tiny(), (64, 48), private=private)
    export_onnx(net, tmp_path / "net.onnx", compact=compact)
    for shape in ((64,), (48,), (56,), (52,), (64, 36)):
        x = image(*shape)
        torch.testing.assert_close(run_onnx(tmp_path / "net.onnx", x), net(x).detach(), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(net.at(64)(x), net.at(48)(x), atol=1e-2)


def test_a_plain_file_for_each_resolution(tiny, scrambled_net, tmp_path: Path, run_onnx, image) -> None:
    net = scrambled_net(tiny())
    files = export_onnx(net, tmp_path / "plain.onnx", (48, 40)).files
    assert files == {tmp_path / "plain-48.onnx": 48, tmp_path / "plain-40.onnx": 40}
    for path, side in files.items():
        x = image(side, batch=3)
        torch.testing.assert_close(run_onnx(path, x), net(x).detach(), rtol=1e-4, atol=1e-5)
        assert "BatchNormalization" not in {node.op_type for node in onnx.load(path).graph.node}
        assert json.loads({e.key: e.value for e in onnx.load(path).metadata_props}["resolutions"]) == [side]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain-40.onnx", "plain-48.onnx"]


def test_plain_files_share_their_weights(tiny, scrambled_net, tmp_path: Path, run_onnx, image) -> None:
    net = scrambled_net(tiny())
    result = export_onnx(net, tmp_path / "set.onnx", (64, 32), shared_weights=True)
    assert result.weights == tmp_path / "set.weights"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set-32.onnx", "set-64.onnx", "set.weights"]
    # The second convolution alone is worth a reference.
    assert (tmp_path / "set.weights").stat().st_size == net.conv2.weight.nbytes
    for path, side in result.files.items():
        x = image(side)
        torch.testing.assert_close(run_onnx(path, x), net(x).detach(), rtol=1e-4, atol=1e-5)


def test_weights_that_another_graph_reads_are_not_replaced(tiny, scrambled_net, tmp_path: Path) -> None:
    (tmp_path / "set-32.onnx").write_text("location: set.weights")
    (tmp_path / "set.weights").write_text("old")
    with pytest.raises(CheckpointError, match=r"set-32\.onnx reads its weights from .*set\.weights, which would be"):
        export_onnx(scrambled_net(tiny()), tmp_path / "set.onnx", (64, 48), shared_weights=True, force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set-32.onnx", "set.weights"]
    assert (tmp_path / "set.weights").read_text() == "old"


def test_an_interruption_leaves_no_graph_beside_weights_of_another_export(
    tiny, scrambled_net, tmp_path: Path, monkeypatch
) -> None:
    for name in ("set-64.onnx", "set-32.onnx", "set.weights"):
        (tmp_path / name).write_text("old")
    real = exporting.replacing

    def replacing(target: Path):
        if target.suffix == ".onnx":
            raise KeyboardInterrupt
        return real(target)

    monkeypatch.setattr(exporting, "replacing", replacing)
    with pytest.raises(KeyboardInterrupt):
        export_onnx(scrambled_net(tiny()), tmp_path / "set.onnx", (64, 32), shared_weights=True, force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["set.weights"]
    assert (tmp_path / "set.weights").read_bytes() != b"old"


def test_a_file_that_disagrees_never_stays(tiny, scrambled_net, tmp_path: Path, monkeypatch) -> None:
    def spoil(model: onnx.ModelProto, *_: object) -> onnx.ModelProto:
        table = next(tensor for tensor in model.graph.initializer if tensor.name == TABLE)
        table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table)[::-1].copy(), TABLE))
        return model

    monkeypatch.setattr(exporting, "branch", spoil)
    (tmp_path / "net.onnx").write_text("what stood there")
    with pytest.raises(
        CheckpointError, match=r"net\.onnx disagrees with the network at 64, 60, 56, 40, 32, 64x32 \(64: "
    ):
        export_onnx(scrambled_net(tiny()), tmp_path / "net.onnx", force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
    assert (tmp_path / "net.onnx").read_text() == "what stood there"


def test_a_full_disk_leaves_what_stood_there(tiny, scrambled_net, tmp_path: Path, full_disk) -> None:
    (tmp_path / "net.onnx").write_text("what stood there")
    with full_disk(), pytest.raises(CheckpointError, match=r"net\.onnx can't be written"):
        export_onnx(scrambled_net(tiny()), tmp_path / "net.onnx", 32, force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
    assert (tmp_path / "net.onnx").read_text() == "what stood there"


def test_an_operator_without_onnx_form_is_named(scrambled_net, tmp_path: Path) -> None:
    class Singular(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.svdvals(x).mean(2)

    net = scrambled_net(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), Singular()))
    with pytest.raises(UnsupportedModelError, match=r"^2 calls aten\._linalg_svd, which the ONNX exporter can't"):
        export_onnx(net, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "options", "error", "words"),
    [
        ("x.bin", {}, CheckpointError, r"has the suffix '\.bin'; \.onnx is accepted"),
        ("there.onnx", {}, CheckpointError, r"there\.onnx exists; .* --force"),
        ("there.onnx", {"resolution": (48,)}, CheckpointError, r"there\.onnx exists"),
        ("some.onnx", {"resolution": (48, 32)}, CheckpointError, r"some-32\.onnx exists"),
        ("nowhere/x.onnx", {}, CheckpointError, "nowhere is no folder"),
        ("x.onnx", {"resolution": 0}, ResolutionError, "resolution has 0"),
        ("x.onnx", {"resolution": 1}, ResolutionError, "resolution 1 does not work in the network"),
        ("x.onnx", {"resolution": 32, "compact": True}, ConfigError, "compact is set for the resolutions"),
        (
            "x.onnx",
            {"resolution": 32, "branches": (32,)},
            ConfigError,
            r"branches is \[32\] for the resolutions \[32\]",
        ),
        ("x.onnx", {"branches": (32,), "compact": True}, ConfigError, r"compact is set, and branches is \[32\]"),
        ("x.onnx", {"branches": ()}, ResolutionError, "branches is empty"),
        (
            "x.onnx",
            {"branches": (64, 64)},
            ResolutionError,
            "branches has 64 twice: 64,64; each resolution needs one branch",
        ),
        ("x.onnx", {"resolution": 32, "shared_weights": True}, ConfigError, "two or more can share"),
        ("x.onnx", {"shared_weights": True}, ConfigError, "two or more can share"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    tiny, tmp_path: Path, name: str, options: dict[str, object], error: type[RSConvertError], words: str
) -> None:
    for there in ("there.onnx", "some-32.onnx"):
        (tmp_path / there).touch()
    net = rsconvert.make_switchable(tiny(), (64, 32))
    with pytest.raises(error, match=words) as caught:
        export_onnx(net, tmp_path / name, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["some-32.onnx", "there.onnx"]
    assert net.training


def test_a_missing_package_is_named(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"the package onnx is not installed; .* pip install 'rsconvert\[onnx\]'"):
        export_onnx(rsconvert.make_switchable(tiny(), (64, 32)), tmp_path / "x.onnx")


def model_of(weight: np.ndarray, shift: np.ndarray) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, len(weight)])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, weight.shape[1]])
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Add", ["z", "b"], ["y"])]
    tensors = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(shift, "b")]
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_equal_weights_are_stored_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(30, 20)).astype(np.float32) for _ in range(2))
    shifts = rng.normal(size=(3, 20)).astype(np.float32)
    models = [model_of(w, b) for w, b in zip((first, first, second), shifts, strict=True)]
    share_weights(models, tmp_path / "all.weights")
    assert 2 * first.nbytes <= (tmp_path / "all.weights").stat().st_size < 2 * first.nbytes + 128
    x = rng.normal(size=(1, 30)).astype(np.float32)
    for i, (model, weight) in enumerate(zip(models, (first, first, second), strict=True)):
        onnx.save(model, tmp_path / f"{i}.onnx")
        assert (tmp_path / f"{i}.onnx").stat().st_size < 1000
        (got,) = onnxruntime.InferenceSession(str(tmp_path / f"{i}.onnx")).run(None, {"x": x})
        np.testing.assert_allclose(got, x @ weight + shifts[i], rtol=1e-5, atol=1e-5)


def test_weights_are_replaced_only_with_all_that_read_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    models = [model_of(rng.normal(size=(30, 20)).astype(np.float32), np.zeros(20, np.float32)) for _ in range(3)]
    onnx.save(models[2], tmp_path / "all-3.onnx")  # with its weights
    share_weights(models[:2], tmp_path / "all.weights")
    readers = [tmp_path / f"all-{i}.onnx" for i in (1, 2)]
    for model, path in zip(models, readers, strict=False):
        onnx.save(model, path)
    check_readers(tmp_path / "all.weights", readers)
    with pytest.raises(CheckpointError, match=r"all-2\.onnx reads its weights from .*all\.weights, which would be"):
        check_readers(tmp_path / "all.weights", readers[:1])
    check_readers(tmp_path / "other.weights", [])

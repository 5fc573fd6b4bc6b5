"""torch alone runs a program, and it computes what the path computes."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rsconvert
from rsconvert.errors import CheckpointError, ConfigError, ResolutionError, UnsupportedModelError
from rsconvert.export import export_program, verify_export
from rsconvert.surgery import SwitchableModel, scrambled, write

# Opens programs where neither rsconvert nor the libraries of models can be imported.
FRESH = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("rsconvert", "timm", "torchvision"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocker())
import torch
torch.set_num_threads(1)
for file in sys.argv[1:]:
    run = torch._inductor.aoti_load_package(file) if "aot" in file else torch.export.load(file).module()
    torch.save([run(x) for x in torch.load(file + ".images")], file + ".outputs")
"""


@pytest.fixture(scope="module")
def net() -> SwitchableModel:
    torch.manual_seed(0)
    net = rsconvert.make_switchable(rsconvert.create_model("test_efficientnet", num_classes=5), (64, 48)).eval()
    for resolution in net.resolutions:
        write(net.at(resolution), scrambled(net.at(resolution), resolution))
    return net


def images(resolution: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(resolution)
    return [torch.randn(n, 3, resolution, resolution, generator=generator) for n in (1, 2, 5)]


def run_elsewhere(batches: dict[Path, list[Tensor]]) -> list[list[Tensor]]:
    """Return the outputs of programs in a process that never saw rsconvert."""
    for file, given in batches.items():
        torch.save(given, f"{file}.images")
    subprocess.run([sys.executable, "-I", "-c", FRESH, *batches], check=True, cwd=next(iter(batches)).parent)
    return [torch.load(f"{file}.outputs") for file in batches]


@torch.no_grad()
def relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / one.abs().max())


def test_a_fresh_process_computes_the_same(net: SwitchableModel, tmp_path: Path) -> None:
    paths = {side: Path(export_program(net, side, tmp_path / f"{side}.pt2")) for side in (48, 56)}
    assert sorted(tmp_path.iterdir()) == list(paths.values())
    found = run_elsewhere({path: images(side) for side, path in paths.items()})
    for side, outputs in zip(paths, found, strict=True):
        with torch.no_grad():
            assert all(torch.equal(net.at(side)(x), y) for x, y in zip(images(side), outputs, strict=True))
            assert relative(net.at(64)(images(side)[0]), outputs[0]) > 1e-3
        assert not outputs[0].requires_grad


def test_a_folded_program_holds_no_batchnorm(net: SwitchableModel, tmp_path: Path) -> None:
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    program = torch.export.load(export_program(net, 48, tmp_path / "out.pt2", fold=True))
    assert "batch_norm" not in program.graph_module.code
    for x in images(48):
        assert 0 < relative(net.at(48)(x), program.module()(x)) < 1e-4
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())


def test_the_facts_of_the_images_travel(net: SwitchableModel, tmp_path: Path) -> None:
    own = net.source
    preprocessing = replace(own.preprocessing, mean=(0.5, 0.4, 0.3), crop_pct=(0.9, 0.8))
    net.source = replace(own, class_names=("a", "b", "c", "d", "ü"), preprocessing=preprocessing)
    held = {"rsconvert.json": ""}
    torch.export.load(export_program(net, 48, tmp_path / "out.pt2"), extra_files=held)
    net.source = own
    facts = json.loads(held["rsconvert.json"])
    assert (facts["mean"], facts["crop_pct"], facts["resolution"]) == ([0.5, 0.4, 0.3], 0.8, 48)
    assert facts["class_names"] == ["a", "b", "c", "d", "ü"]


def test_verify_agrees(net: SwitchableModel, tmp_path: Path) -> None:
    result = verify_export(export_program(net, 48, tmp_path / "out.pt2", fold=True), net)
    result.check("out.pt2")
    assert list(result.to_dict()["resolutions"]) == ["48"]


# Neither probes of the processor's vectors, nor headers to be used again, nor an optimized wrapper: g++ runs 4 times
# instead of 12, and what is computed is the same.
QUICK = {
    "cpp.vec_isa_ok": False,
    "aot_inductor.precompile_headers": False,
    "aot_inductor.compile_wrapper_opt_level": "O0",
}


@pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor needs a C++ compiler")
def test_a_compiled_package_computes_the_same(tiny: Callable[[], nn.Module], tmp_path: Path) -> None:
    net = rsconvert.make_switchable(tiny(), (32, 24)).eval()
    known = torch._inductor.config.get_config_copy()
    with torch._inductor.config.patch({key: value for key, value in QUICK.items() if key in known}):
        path = Path(export_program(net, 24, tmp_path / "aot.pt2", fold=True, aot=True))
    (outputs,) = run_elsewhere({path: images(24)})
    for x, y in zip(images(24), outputs, strict=True):
        assert relative(net.at(24)(x), y) < 1e-4
    assert verify_export(path, net, native_code=True).to_dict()["passed"]
    metadata = torch._inductor.aoti_load_package(str(path)).get_metadata()
    assert json.loads(metadata["rsconvert.json"])["resolution"] == 24


def test_without_a_compiler_aot_is_refused(
    net: SwitchableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    with pytest.raises(ConfigError, match=r"no C\+\+ compiler is found; .* Install"):
        export_program(net, 48, tmp_path / "out.pt2", aot=True)
    assert list(tmp_path.iterdir()) == []


def test_a_forward_that_reads_values_is_refused(tiny: Callable[..., Any], tmp_path: Path) -> None:
    class Reading(tiny):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.sum() > 0 else super().forward(-x)

    net = rsconvert.make_switchable(Reading(), (32, 24))
    with pytest.raises(UnsupportedModelError, match=r"torch\.export can't take Reading at 24") as caught:
        export_program(net, 24, tmp_path / "out.pt2")
    assert "\n" not in str(caught.value)


def test_a_bad_target_or_resolution_is_refused(net: SwitchableModel, tmp_path: Path) -> None:
    for name, match in (("out.pt", r"suffix '.pt'; .pt2 is accepted"), ("none/out.pt2", "none is no folder")):
        with pytest.raises(CheckpointError, match=match):
            export_program(net, 48, tmp_path / name)
    with pytest.raises(ResolutionError, match="-1"):
        export_program(net, -1, tmp_path / "out.pt2")
    (tmp_path / "out.pt2").write_text("old")
    with pytest.raises(CheckpointError, match=r"exists.*--force"):
        export_program(net, 48, tmp_path / "out.pt2")
    assert (tmp_path / "out.pt2").read_text() == "old"
    export_program(net, 48, tmp_path / "out.pt2", force=True)
    assert os.path.getsize(tmp_path / "out.pt2") > 1000

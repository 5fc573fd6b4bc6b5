"""A benchmark as data and text, its table through the file, what drops it, and the key of a machine."""

import json
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import rsconvert
from rsconvert.checkpoint import subset
from rsconvert.evaluation import Benchmark, store_costs
from rsconvert.evaluation.cost_table import differences, machine_key, stored_costs
from rsconvert.models import Task
from rsconvert.surgery import SwitchableModel

Table = Callable[..., Benchmark]


def test_the_table_survives_the_file(net: SwitchableModel, table: Table, tmp_path: Path) -> None:
    store_costs(net, table((64, 5.5, 70.25), (40, 3.0, None), machine="A"))
    rsconvert.save(net, tmp_path / "net.safetensors")
    again = rsconvert.load(tmp_path / "net.safetensors")
    row = {"form": "plain", "batch_size": 1, "amp": "off"}
    assert stored_costs(again) == {
        "A": [
            {"resolution": 64, "latency_ms": 5.5, "top1": 70.25, "multiply_adds": 4096, **row},
            {"resolution": 40, "latency_ms": 3.0, "top1": None, "multiply_adds": 1600, **row},
        ]
    }
    assert (again.source, again.measured) == (net.source, net.measured)


def test_a_machine_s_rows_are_replaced_and_another_s_stay(net: SwitchableModel, table: Table) -> None:
    for machine, ms in (("A", 1.0), ("B", 2.0), ("A", 3.0)):
        store_costs(net, table((64, ms, None), machine=machine))
    assert {m: [row["latency_ms"] for row in rows] for m, rows in stored_costs(net).items()} == {"A": [3.0], "B": [2.0]}


def test_a_network_that_was_not_measured_has_none(net: SwitchableModel) -> None:
    assert stored_costs(net) == {}


def test_a_new_classifier_and_calibration_forget_it(net: SwitchableModel, table: Table, tmp_path: Path) -> None:
    store_costs(net, table((64, 5.0, 70.0)))
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for name in ("a", "b"):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    with pytest.raises(rsconvert.ConfigError):
        rsconvert.calibrate(net, tmp_path, images=0)
    assert net.measured.costs is not None
    rsconvert.calibrate(net, tmp_path, images=2, workers=0)
    assert net.measured.costs is None
    store_costs(net, table((64, 5.0, 70.0)))
    net.reset_classifier(3)
    assert net.measured.costs is None


def test_a_subset_keeps_what_is_still_true(net: SwitchableModel, table: Table) -> None:
    store_costs(net, table(*((r, 1.0, None) for r in (80, 64, 56, 48, 40, 32, 24)), machine="A"))

    def kept(*resolutions: int) -> list[int]:
        return [row["resolution"] for row in stored_costs(subset(net, resolutions)).get("A", [])]

    assert kept(64, 48, 32) == [80, 64, 56, 48, 40, 32, 24]
    assert kept(64, 48) == [80, 64, 56, 48]
    assert kept(48, 32) == [48, 40, 32, 24]
    assert kept(64, 32) == [80, 64, 32, 24]  # 48 is interpolated there, 56 and 40 from other sets
    assert kept(48) == [48]
    assert net.measured.costs is not None


def test_data_is_plain(table: Callable[..., Benchmark]) -> None:
    facts = table((64, 5.0, 70.5), machine="M").to_dict()
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["machine"], facts["amp"], facts["rounds"]) == ("M", "off", 3)
    assert facts["switching"] == {
        "trained": 32, "trained_ms": 0.001, "untrained": None, "untrained_ms": None, "create_ms": None, "load_ms": None
    }  # fmt: skip
    assert facts["costs"] == [
        {
            "form": "plain", "resolution": 64, "batch_size": 1, "multiply_adds": 4096, "parameters": 7,
            "latency_ms": 5.0, "p95_ms": 9.0, "images_per_second": 1.0, "peak_memory_bytes": None, "top1": 70.5,
        }
    ]  # fmt: skip


def test_the_table_has_a_line_for_each_row(table: Callable[..., Benchmark]) -> None:
    found = table((64, 5.0, 70.5), (48, 4.25, None), machine="M")
    found = replace(found, costs=(replace(found.costs[0], peak_memory_bytes=3 << 20), found.costs[1]))
    titles, first, second, switching, last = str(found).splitlines()
    assert titles.split()[:3] == ["form", "resolution", "batch"]
    assert first.split() == ["plain", "64", "1", "0.0", "5.00", "9.00", "1.0", "3.0", "70.50"]
    assert second.split() == ["plain", "48", "1", "0.0", "4.25", "9.00", "1.0"]
    assert switching == "switching: net.at(32) 1 µs"
    assert last == "M; amp off; 3 rounds; 7 parameters"
    more = replace(found, costs=(found.costs[0], replace(found.costs[1], parameters=2_500_000)))
    assert str(more).splitlines()[2].split()[4] == "2.50"  # where they differ, as of folded paths, they have a column


def test_top1_goes_to_every_row_of_its_resolution(table: Callable[..., Benchmark]) -> None:
    found = table((64, 5.0, None), (48, 4.0, None), (64, 6.0, None)).with_scores({64: 80.0}, Task().metric)
    assert [cost.top1 for cost in found.costs] == [80.0, None, 80.0]


def test_masks_are_judged_by_miou(table: Callable[..., Benchmark], make_net: Callable[..., SwitchableModel]) -> None:
    plain = table((64, 5.0, None), (32, 4.0, None))
    found = plain.with_scores({64: 41.5, 32: 43.25}, Task(name="segmentation").metric)
    assert [(cost.top1, cost.miou) for cost in found.costs] == [(None, 41.5), (None, 43.25)]
    assert str(found).splitlines()[0].split()[-2:] == ["mIoU", "(%)"]
    assert str(found).splitlines()[1].split()[-1] == "41.50"
    assert [row["miou"] for row in found.to_dict()["costs"]] == [41.5, 43.25]
    assert "miou" not in plain.to_dict()["costs"][0]
    net = make_net((64, 32))
    store_costs(net, found)
    assert [(row["top1"], row["miou"]) for row in stored_costs(net)[found.machine]] == [(None, 41.5), (None, 43.25)]


CPU = torch.device("cpu")


def test_the_key_names_what_a_latency_depends_on() -> None:
    device, processor, threads, version = machine_key(CPU).split("; ")
    assert (device, threads, version) == ("cpu", f"{torch.get_num_threads()} threads", f"torch {torch.__version__}")
    assert processor
    if Path("/proc/cpuinfo").is_file() and "model name" in (text := Path("/proc/cpuinfo").read_text(encoding="utf-8")):
        assert processor in text


def test_the_threads_are_those_of_the_call() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        assert f"; {before + 1} threads;" in machine_key(CPU)
    finally:
        torch.set_num_threads(before)


def test_a_gpu_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Card {device.index}")
    assert machine_key(torch.device("cuda:1")).startswith("Card 1; ")


def test_without_the_system_s_file_python_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(platform, "processor", lambda: "Chip; fast")
    assert machine_key(CPU).startswith("cpu; Chip, fast; ")


def test_differences_are_told_side_by_side() -> None:
    assert differences("cpu; A; 2 threads", "cpu; B; 4 threads") == "A here, B there, 2 threads here, 4 threads there"
    assert differences("cpu; A", "cpu; A") == ""

"""The table through the file, and what makes it forgotten."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rsconvert
from rsconvert.checkpoint import subset
from rsconvert.evaluation import Benchmark, store_costs
from rsconvert.evaluation.cost_table import stored_costs
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

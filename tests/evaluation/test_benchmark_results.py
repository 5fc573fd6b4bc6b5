"""Results of a benchmark as data and as text."""

import json
from collections.abc import Callable
from dataclasses import replace

from rsconvert.evaluation import Benchmark


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
    assert first.split() == ["plain", "64", "1", "0.0", "0.00", "5.00", "9.00", "1.0", "3.0", "70.50"]
    assert second.split() == ["plain", "48", "1", "0.0", "0.00", "4.25", "9.00", "1.0"]
    assert switching == "switching: net.at(32) 1 µs"
    assert last == "M; amp off; 3 rounds"


def test_top1_goes_to_every_row_of_its_resolution(table: Callable[..., Benchmark]) -> None:
    found = table((64, 5.0, None), (48, 4.0, None), (64, 6.0, None)).with_top1({64: 80.0})
    assert [cost.top1 for cost in found.costs] == [80.0, None, 80.0]

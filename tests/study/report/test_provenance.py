import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from rsconvert.study.report.provenance import file_facts, made_facts, read_curves

import rsconvert
from rsconvert import CheckpointError


def test_a_page_knows_when_and_by_what_it_was_made() -> None:
    made = made_facts("rsconvert report x", torch.device("cpu"))
    assert made["command"] == "rsconvert report x"
    assert made["versions"]["rsconvert"] == rsconvert.__version__
    assert made["versions"]["torch"] == torch.__version__
    age = datetime.now(UTC) - datetime.strptime(made["date"], "%Y-%m-%d %H:%M UTC").replace(tzinfo=UTC)
    assert -1 < age.total_seconds() < 120
    assert f"torch threads: {torch.get_num_threads()}" in made["machine"]


def test_a_file_tells_its_size_and_date(tmp_path: Path) -> None:
    file = tmp_path / "best.safetensors"
    file.write_bytes(b"12345")
    os.utime(file, (0, 86400 * 365))
    expected = {"name": str(file), "bytes": 5, "date": "1971-01-01 00:00 UTC"}
    assert file_facts(file) == expected
    assert file_facts(tmp_path) == expected
    with pytest.raises(CheckpointError, match="nowhere can't be read"):
        file_facts(tmp_path / "nowhere")


def test_curves_are_numbers_without_empty_cells(tmp_path: Path) -> None:
    assert read_curves(tmp_path) is None
    (tmp_path / "summary.csv").write_text("epoch,loss,top1_64\n1,2.5,\n2,1.5,60.1\n")
    assert read_curves(tmp_path) == [{"epoch": 1, "loss": 2.5}, {"epoch": 2, "loss": 1.5, "top1_64": 60.1}]


@pytest.mark.parametrize("text", ["epoch,loss\n1,x\n", "epoch,loss\n1,2,3\n"])
def test_a_damaged_table_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "summary.csv").write_text(text)
    with pytest.raises(CheckpointError, match=r"summary\.csv is damaged"):
        read_curves(tmp_path)

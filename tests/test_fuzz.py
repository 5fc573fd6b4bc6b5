"""The short form of benchmarks/fuzz.py: damaged files of each kind are refused in one line or run, and cost little."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of the process from Linux")
def test_damaged_files_fail_in_no_other_way() -> None:
    command = [sys.executable, str(SCRIPT), "--files", "8", "--commands", "13", "--seed", "1"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    _, _, *lines = done.stdout.splitlines()
    assert len(lines) > 35, done.stdout + done.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [row for row in rows if len(row) != 7 or row[4] != "0"] == [], "what failed"
    assert [row for row in rows if float(row[5]) >= 2 or int(row[6]) >= 300] == [], "what took long, or much"
    assert rows[-1][0] == "all"
    assert min(int(number) for number in rows[-1][1:4]) > 0, "files of each end"

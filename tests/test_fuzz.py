"""The short form of benchmarks/fuzz.py: damaged files of each kind are refused in one line or run, and cost little."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of the process from Linux")
def test_damaged_files_fail_in_no_other_way() -> None:
    command = [sys.executable, str(SCRIPT), "--files", "25", "--seed", "1"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 7, done.stdout + done.stderr
    for line in lines:
        assert " 0 failed" in line
        assert not line.split(": ")[1].startswith("0 refused")
        assert float(line.split("slowest ")[1].split()[0]) < 2
        assert int(line.split("at most ")[1].split()[0]) < 300

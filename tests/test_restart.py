"""The short form of benchmarks/restart.py: a run is killed at random instants, resumed, and ends in the same bits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "restart.py"


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_killed_runs_end_in_the_same_bits() -> None:
    command = [sys.executable, str(SCRIPT), "--kills", "2", "--epochs", "2", "--images", "20", "--batch-size", "16"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    told = done.stdout.splitlines()[-1]
    # A fast run may end before its last kill.
    assert told.endswith("kills, each followed by --resume: no file differs"), done.stdout + done.stderr
    assert int(told.split()[0]) >= 1

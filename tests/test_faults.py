"""The short forms of benchmarks/faults.py, restart.py and signals.py: what is killed or stopped loses nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and counts the changes of a folder")


def lines(script: str, *arguments: str) -> list[str]:
    """Return what a script prints; it fails where something came that may not."""
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS.parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_killed_and_full_writers_leave_the_old_file_or_the_new_one() -> None:
    chosen = ["wrap", "export timm"]
    found = lines("faults.py", "--kills", "3", "--full", "1", "--commands", ",".join(chosen), "--seed", "1")
    assert [line.partition(":")[0] for line in found] == chosen
    assert all("3 kills" in line and "1 full disks, left old 1; 0 wrong" in line for line in found)


def test_killed_runs_end_in_the_same_bits() -> None:
    found = lines("restart.py", "--kills", "2", "--epochs", "2", "--images", "4")
    assert found[-1] == "2 kills, each followed by --resume: no file differs"
    assert sum(line.startswith("killed after ") for line in found) == 2


def test_a_request_to_stop_loses_no_step() -> None:
    found = lines("signals.py", "--commands", "finetune", "--epochs", "1", "--cases", "3", "--seed", "59")
    assert [line.partition(" at ")[0] for line in found] == [
        "finetune, SIGTERM to the process",
        *2 * ["finetune, SIGINT to the group"],
    ]
    assert all(": status 1, " in line and " 0 lost; 'interrupted; its state after epoch " in line for line in found)

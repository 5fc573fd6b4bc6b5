"""The attempts of benchmarks/attempts.py: no file runs code, reaches the network or misleads; the controls do."""

import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = str(Path(__file__).parents[1] / "benchmarks")


@pytest.fixture(scope="module")
def attempts() -> Any:
    sys.path.insert(0, SCRIPTS)
    try:
        import attempts
    finally:
        sys.path.remove(SCRIPTS)
    return attempts


@pytest.fixture(scope="module")
def sound(attempts: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return attempts.Sound(tmp_path_factory.mktemp("sound"))


def test_no_attempt_succeeds(attempts: Any, sound: Any) -> None:
    ended = [(attempt.kind, attempt.name, end) for attempt, end, _ in attempts.run(attempts.ATTEMPTS, sound)]
    assert [found for found in ended if found[2] not in ("refused", "harmless")] == []
    assert len({(kind, name) for kind, name, _ in ended}) == len(ended) >= 200


def test_readers_that_trust_such_files_are_noticed(attempts: Any, sound: Any) -> None:
    controls = [c for c in attempts.CONTROLS if c.kind not in ("pickle", "program") or "open" in c.name]
    assert {end for _, end, _ in attempts.run(controls, sound)} == {"SUCCEEDED"}

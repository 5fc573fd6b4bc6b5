from importlib.metadata import version
from pathlib import Path

import pytest
from rsconvert.study.comparison.run_machine import machine_facts


def test_the_processor_and_the_versions_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "processor\t: 0\nmodel name\t: Some Chip 9\ncores: 2\n")
    facts = machine_facts("cpu")
    assert (facts["device"], facts["name"], facts["threads"]) == ("cpu", "Some Chip 9", 1)
    assert {name: facts[name] for name in ("torch", "timm")} == {name: version(name) for name in ("torch", "timm")}

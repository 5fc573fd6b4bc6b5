"""The key of a machine, and what two of them differ in."""

import platform
from pathlib import Path

import pytest
import torch

from rsconvert.evaluation.machine import differences, machine_key

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

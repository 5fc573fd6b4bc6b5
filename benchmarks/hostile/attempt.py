"""An attempt, and the sound files that attempts change."""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

import rsconvert
from rsconvert.surgery import SwitchableModel

__all__ = ["Attempt", "Bomb", "MisledError", "Prepare", "Reader", "Sound", "script", "with_facts"]

Reader = Callable[[], object]


class MisledError(Exception):
    """What was printed or computed shows that the file had its way."""


class Sound:
    """Sound files of a small network."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        model = rsconvert.create_model("test_efficientnet", num_classes=5)
        self.net: SwitchableModel = rsconvert.make_switchable(model, (48, 32)).eval()
        rsconvert.save(self.net, folder / "net.safetensors")
        self.file = (folder / "net.safetensors").read_bytes()

    @cached_property
    def program(self) -> dict[str, bytes]:
        """The records of a program of one linear layer, for any batch."""
        package = io.BytesIO()
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
        shapes = ({0: torch.export.Dim("batch")},)
        torch.export.save(torch.export.export(model, (torch.zeros(2, 3, 2, 2),), dynamic_shapes=shapes), package)
        with zipfile.ZipFile(package) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


Prepare = Callable[[Sound, Path, Path], Reader]


@dataclass(frozen=True)
class Attempt:
    """A file that tries something; ``prepare`` writes it into a folder, given a canary, and returns what opens it."""

    kind: str
    name: str
    prepare: Prepare


class Bomb:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def script(canary: Path) -> str:
    """Return an expression of Python that writes the canary."""
    return f"open({str(canary)!r}, 'w').close()"


def with_facts(sound: Sound, path: Path, **facts: Any) -> Path:
    """Write the sound switchable file with other facts in its metadata, and return its path."""
    length = int.from_bytes(sound.file[:8], "little")
    header = json.loads(sound.file[8 : 8 + length])
    held = json.loads(header["__metadata__"]["rsconvert"])
    header["__metadata__"]["rsconvert"] = json.dumps({**held, **facts})
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + sound.file[8 + length :])
    return path

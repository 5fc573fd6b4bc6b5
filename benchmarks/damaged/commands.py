"""Commands of rsconvert on a folder in which one file is damaged."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from forked import fork
from PIL import Image

import rsconvert
from damaged.changes import Change, in_body, in_bytes, in_facts, in_header, in_json, in_records, in_words
from rsconvert.export import export_hub, export_onnx, export_program
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel

__all__ = ["Damaged", "write_commands"]

_FACTS = (in_facts, in_facts, in_body, in_bytes)


@dataclass(frozen=True)
class Damaged:
    """A command, the file of it that is to be damaged, and how."""

    words: Sequence[str]
    path: Path
    changes: Sequence[Change] = (in_bytes,)

    @property
    def name(self) -> str:
        """The command and the file, in words."""
        return f"{self.words[0]}: {self.path.name}"


def _photos(folder: Path) -> None:
    rng = Random(0)
    for split in ("train", "val"):
        for number, name in enumerate(("ant", "bee", "cat", "dog", "eel")):
            place = folder / split / name
            place.mkdir(parents=True)
            for index in range(2):
                noise = torch.tensor([rng.randrange(200) for _ in range(48 * 48 * 3)], dtype=torch.uint8)
                pixels = noise.view(48, 48, 3) // 2 + 20 * number
                Image.fromarray(pixels.numpy()).save(place / f"{index}.png")


def _tune(net: SwitchableModel, photos: str, run: str) -> None:
    """Finetune in a process of its own: after a gradient torch lets no forked process compute another."""
    if child := fork():
        os.waitpid(child, 0)
        return
    once = FinetuneConfig(epochs=1, batch_size=5, workers=0, device="cpu")
    rsconvert.finetune(net, photos, run, once, progress=False)
    os._exit(0)


def write_commands(folder: Path, net: SwitchableModel) -> list[Damaged]:
    """Write sound files into a folder; return commands, each with the one that is to be damaged."""
    at = {name: str(folder / name) for name in ("net.safetensors", "photos", "run", "hub", "net.pt2", "net.onnx")}
    file, photos, run, out = at["net.safetensors"], at["photos"], at["run"], str(folder / "out")
    _photos(folder / "photos")
    rsconvert.save(net, file)
    torch.save(net.extract(48).state_dict(), folder / "plain.pth")
    export_hub(net, at["hub"])
    export_program(net, 48, at["net.pt2"])
    export_onnx(net, at["net.onnx"], 48)
    (folder / "map.txt").write_text("ant 0\nbee 1\ncat 2\ndog 3\neel 4\n")
    (folder / "run.toml").write_text("epochs = 2\nlr = 0.01\nbatch_size = 4\nwarmup_epochs = 0\n")
    _tune(net, photos, run)
    read = ["--data", photos, "--workers", "0"]
    few = ["--epochs", "1", "--batch-size", "5", "--device", "cpu"]
    new, resumed = ["--output", out, *few], ["--output", run, *few, "--resume"]
    network, hub, photo = Path(file), folder / "hub", folder / "photos" / "val" / "ant" / "0.png"
    state = sorted((folder / "run" / "state").iterdir())[-1]
    table, plain, onnx, program = folder / "map.txt", folder / "plain.pth", folder / "net.onnx", folder / "net.pt2"
    settings, summary, best = folder / "run.toml", folder / "run" / "summary.csv", folder / "run" / "best.safetensors"
    header, words = (in_header, in_bytes), (in_words, in_bytes)
    return [
        Damaged(["inspect", file], network, _FACTS),
        Damaged(["inspect", run], best, _FACTS),
        Damaged(["evaluate", file, *read], network, _FACTS),
        Damaged(["evaluate", file, *read, "--per-class", "--class-map", str(table)], table, words),
        Damaged(["evaluate", file, *read, "--baseline", str(plain)], plain, (in_records("data.pkl"), in_bytes)),
        Damaged(["evaluate", file, *read, "--baseline", str(onnx)], onnx),
        Damaged(["evaluate", file, *read], photo),
        Damaged(["export", file, "--format", "timm", "--resolution", "48", "-o", out], network, _FACTS),
        Damaged(["export", file, "-o", f"{out}.safetensors"], network, _FACTS),
        Damaged(["export", file, "--format", "hub", "-o", out], network, _FACTS),
        Damaged(["verify", str(program), file], program, (in_records("model.json", "weights_config.json"), in_bytes)),
        Damaged(["verify", str(onnx), file], onnx),
        Damaged(["verify", str(hub), file], hub / "config.json", (in_json, in_bytes)),
        Damaged(["verify", str(hub), file], hub / "model.safetensors", header),
        Damaged(["verify", str(onnx), file], network, _FACTS),
        Damaged(["report", file, *read, "-o", f"{out}.html"], network, _FACTS),
        Damaged(["report", run, *read, "-o", f"{out}.html"], summary, words),
        Damaged(["calibrate", file, *read, "-o", f"{out}.safetensors"], network, _FACTS),
        Damaged(["predict", file, photos, "--workers", "0"], network, _FACTS),
        Damaged(["predict", file, str(photo), "--workers", "0"], photo),
        Damaged(["predict", str(onnx), photos, "--workers", "0"], onnx),
        Damaged(["finetune", file, *read, *resumed], state, header),
        Damaged(["finetune", file, *read, *resumed], summary, words),
        Damaged(["finetune", file, *read, *resumed], best, _FACTS),
        Damaged(["finetune", file, *read, *new, "--config", str(settings)], settings, words),
        Damaged(["finetune", file, *read, *new], network, _FACTS),
    ]


def clean(folder: Path) -> None:
    """Remove what a command wrote."""
    for path in folder.glob("out*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()

"""Pickles: what they call, and what holds them."""

import copy
import importlib
import io
import os
import pickle
import runpy
import shutil
import subprocess
import tarfile
import urllib.request
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

import rsconvert
from hostile.attempt import Attempt, Bomb, Prepare, Reader, Sound, script
from hostile.names import hub_folder
from rsconvert.checkpoint import describe, fill_from_rsnets, load_baseline
from rsconvert.data import read_class_map
from rsconvert.export import open_export
from rsconvert.recipes import build_config
from rsconvert.surgery import SwitchableModel
from rsconvert.training.run import RunFolder

__all__ = ["PICKLES", "TRUSTED_PICKLES"]


def _writes(canary: Path) -> Bomb:
    return Bomb(open, str(canary), "w")


def _code(folder: Path, canary: Path) -> str:
    (folder / "code.py").write_text(script(canary))
    return str(folder / "code.py")


def _array(folder: Path, held: Any) -> str:
    np.save(folder / "inner.npy", np.array([held], dtype=object), allow_pickle=True)
    return str(folder / "inner.npy")


# What the pickle calls: its name → the pickle, by a folder for further files and the canary.
_CALLS: dict[str, Callable[[Path, Path], Bomb]] = {
    "builtins.open": lambda folder, canary: _writes(canary),
    "builtins.exec": lambda folder, canary: Bomb(exec, script(canary)),
    "builtins.eval": lambda folder, canary: Bomb(eval, script(canary)),
    "importlib's loader": lambda folder, canary: Bomb(
        importlib._bootstrap._load_unlocked, spec_from_file_location("code_of_file", _code(folder, canary))
    ),
    "os.system": lambda folder, canary: Bomb(os.system, f"touch {canary}"),
    "os.mkdir": lambda folder, canary: Bomb(os.mkdir, str(canary)),
    "subprocess.Popen": lambda folder, canary: Bomb(subprocess.Popen, ["touch", str(canary)]),
    "pathlib.Path.touch": lambda folder, canary: Bomb(Path.touch, canary),
    "runpy.run_path": lambda folder, canary: Bomb(runpy.run_path, _code(folder, canary)),
    "shutil.copyfile": lambda folder, canary: Bomb(shutil.copyfile, _code(folder, canary), str(canary)),
    "urllib.request.urlopen": lambda folder, canary: Bomb(urllib.request.urlopen, "https://example.com/"),
    "torch.hub.load_state_dict_from_url": lambda folder, canary: Bomb(
        torch.hub.load_state_dict_from_url, "https://example.com/w.pth", str(folder)
    ),
    "torch.load, trusting": lambda folder, canary: Bomb(
        partial(torch.load, weights_only=False), str(_zipped(folder, _writes(canary), "inner.pth"))
    ),
    "numpy.load, trusting": lambda folder, canary: Bomb(
        partial(np.load, allow_pickle=True), _array(folder, _writes(canary))
    ),
    "timm.create_model, pretrained": lambda folder, canary: Bomb(
        partial(timm.create_model, pretrained=True, cache_dir=str(folder)), "resnet18"
    ),
}


def _weights(path: Path) -> Reader:
    return lambda: rsconvert.create_model("test_efficientnet", num_classes=5, weights=path)


def _zipped(folder: Path, held: Any, name: str = "weights.pth") -> Path:
    torch.save(held, folder / name)
    return folder / name


def _legacy(folder: Path, held: Any) -> Path:
    torch.save(held, folder / "weights.pt", _use_new_zipfile_serialization=False)
    return folder / "weights.pt"


def _bare(folder: Path, held: Any, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(held))
    return path


def _tarred(folder: Path, held: Any) -> Path:
    data = pickle.dumps(held)
    with tarfile.open(folder / "weights.pth", "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return folder / "weights.pth"


def _npz(folder: Path, held: Any, name: str = "weights.npz") -> Path:
    with open(folder / name, "wb") as file:
        np.savez(file, w=np.array([held], dtype=object))
    return folder / name


def _of_torchvision(sound: Sound) -> SwitchableModel:
    """Return a network by the name of one of torchvision, whose files are then accepted as its."""
    other = copy.deepcopy(sound.net)
    other.source = replace(sound.net.source, architecture="torchvision/resnet18")
    return other


def _hub(path: Path) -> Reader:
    return lambda: rsconvert.create_model(f"local-dir:{path.parent}", pretrained=True)


def _resumed(folder: Path) -> Reader:
    return lambda: RunFolder(folder, resume=True).newest_state()


# What holds the pickle: its name → what writes it and returns what opens it.
_HOLDERS: dict[str, Callable[[Sound, Path, Bomb], Reader]] = {
    "weights in .pt of torch's first format": lambda s, f, b: _weights(_legacy(f, b)),
    "weights in .bin": lambda s, f, b: _weights(_zipped(f, b, "weights.bin")),
    "weights in .pth, a bare pickle": lambda s, f, b: _weights(_bare(f, b, "weights.pth")),
    "weights in .pth, a tar archive": lambda s, f, b: _weights(_tarred(f, b)),
    "weights in .npz, an array of objects": lambda s, f, b: _weights(_npz(f, b)),
    "weights in .safetensors, a bare pickle": lambda s, f, b: _weights(_bare(f, b, "w.safetensors")),
    "a value of a state_dict": lambda s, f, b: _weights(_zipped(f, {"conv_stem.weight": b})),
    "a name of a state_dict": lambda s, f, b: _weights(_zipped(f, {b: torch.zeros(1)})),
    "next to a state_dict": lambda s, f, b: _weights(_zipped(f, {"state_dict": {}, "args": b})),
    "inside an allowed Namespace": lambda s, f, b: _weights(_zipped(f, {"args": Namespace(a=b)})),
    "a checkpoint of RS-Nets": lambda s, f, b: partial(fill_from_rsnets, _of_torchvision(s), _zipped(f, {"arch": b})),
    "plain weights as a baseline": lambda s, f, b: partial(load_baseline, str(_zipped(f, {"w": b})), s.net, None),
    "an export of torchvision": lambda s, f, b: partial(open_export, _zipped(f, b), _of_torchvision(s)),
    "a switchable file, loaded": lambda s, f, b: partial(rsconvert.load, _bare(f, b, "net.safetensors")),
    "a switchable file, inspected": lambda s, f, b: partial(describe, _bare(f, b, "net.safetensors")),
    "pytorch_model.bin of a hub folder": lambda s, f, b: _hub(_zipped(hub_folder(f), b, "pytorch_model.bin")),
    "model.safetensors of a hub folder": lambda s, f, b: _hub(_bare(hub_folder(f), b, "model.safetensors")),
    "another .pth of a hub folder": lambda s, f, b: _hub(_zipped(hub_folder(f), b, "other.pth")),
    "model.npz of a hub folder": lambda s, f, b: _hub(
        _npz(hub_folder(f, pretrained_cfg={"custom_load": True}), b, "m.npz")
    ),
    "best.safetensors of a run": lambda s, f, b: partial(rsconvert.load, _bare(f, b, "best.safetensors").parent),
    "a state of a run": lambda s, f, b: _resumed(_bare(f, b, "state/000000001.safetensors").parents[1]),
    "optimizer.pt of a run": lambda s, f, b: _resumed(_zipped(f, b, "optimizer.pt").parent),
    "a class map": lambda s, f, b: partial(read_class_map, _bare(f, b, "map.txt"), ("cat",)),
    "settings": lambda s, f, b: partial(build_config, _bare(f, b, "run.toml")),
    "an image": lambda s, f, b: partial(s.net.preprocess, str(_bare(f, b, "photo.jpg")), 48),
    "an image, an array of NumPy": lambda s, f, b: partial(s.net.preprocess, str(_npz(f, b, "photo.png")), 48),
}


def _calling(call: Callable[[Path, Path], Bomb]) -> Prepare:
    return lambda sound, folder, canary: _weights(_zipped(folder, call(folder, canary)))


def _holding(hold: Callable[[Sound, Path, Bomb], Reader]) -> Prepare:
    return lambda sound, folder, canary: hold(sound, folder, _writes(canary))


def _trusted(call: Callable[[Path, Path], Bomb]) -> Prepare:
    def prepare(sound: Sound, folder: Path, canary: Path) -> Reader:
        path = _zipped(folder, call(folder, canary))
        return lambda: torch.load(path, weights_only=False)

    return prepare


PICKLES = (
    *(Attempt("pickle", f"weights call: {name}", _calling(call)) for name, call in _CALLS.items()),
    *(Attempt("pickle", name, _holding(hold)) for name, hold in _HOLDERS.items()),
)
# The hub's client would try again for a minute.
TRUSTED_PICKLES = tuple(Attempt("pickle", name, _trusted(c)) for name, c in _CALLS.items() if "timm" not in name)

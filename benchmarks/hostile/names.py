"""Names of code, of places on the network and of other files, in files that may name none of these."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file

import rsconvert
from hostile.attempt import Attempt, Bomb, Prepare, Reader, Sound, script, with_facts
from rsconvert.checkpoint import describe
from rsconvert.data import MaskReading, open_pairs, photo_samples, read_class_map
from rsconvert.export import open_export
from rsconvert.recipes import build_config
from rsconvert.study.importance import read_scores

__all__ = ["NAMES", "hub_folder"]

_URL = "https://example.com/weights.pth"


def hub_folder(
    folder: Path,
    *,
    pretrained_cfg: Mapping[str, Any] | None = None,
    args: Mapping[str, Any] | None = None,
    **facts: Any,
) -> Path:
    """Write the config.json of a folder of timm, and no weights."""
    cfg = {"num_classes": 5, "input_size": [3, 48, 48], **(pretrained_cfg or {})}
    held = {"architecture": "test_efficientnet", "num_classes": 5, "pretrained_cfg": cfg, **facts}
    (folder / "config.json").write_text(json.dumps({**held, **({"model_args": dict(args)} if args else {})}))
    return folder


def _traps(folder: Path, canary: Path) -> dict[str, str]:
    """Write code and a pickle next to the file, and return what their names stand for."""
    (folder / "code.py").write_text(f"{script(canary)}\n\n\ndef build(**_):\n    {script(canary)}\n")
    torch.save(Bomb(open, str(canary), "w"), folder.parent / "bomb.pth")
    hub_folder(folder, pretrained_cfg={"url": _URL})
    return {"CODE": f"{folder}/code.py:build", "BOMB": f"{folder.parent}/bomb.pth", "FOLDER": str(folder), "URL": _URL}


def _filled(value: Any, traps: Mapping[str, str]) -> Any:
    text = json.dumps(value)
    for name, meant in traps.items():
        text = text.replace(name, meant)
    return json.loads(text)


def _switchable(**facts: Any) -> Prepare:
    def prepare(sound: Sound, folder: Path, canary: Path) -> Reader:
        path = with_facts(sound, folder / "net.safetensors", **_filled(facts, _traps(folder, canary)))

        def read() -> None:
            describe(path)
            rsconvert.load(path)(torch.zeros(1, 3, 48, 48))

        return read

    return prepare


def _hub(**config: Any) -> Prepare:
    def prepare(sound: Sound, folder: Path, canary: Path) -> Reader:
        hub_folder(folder, **_filled(config, _traps(folder, canary)))
        place = f"local-dir:{folder}"
        save_file(sound.net.extract(48).state_dict(), folder / "model.safetensors")
        return partial(rsconvert.create_model, place, pretrained=True)

    return prepare


def _text(name: str, content: str, read: Callable[[Path, Sound], object]) -> Prepare:
    def prepare(sound: Sound, folder: Path, canary: Path) -> Reader:
        (folder / name).write_text(_filled(content, _traps(folder, canary)))
        return lambda: read(folder / name, sound)

    return prepare


def _settings(content: str) -> Prepare:
    return _text("run.toml", content, lambda path, _: build_config(path))


def _card(sound: Sound, folder: Path, canary: Path) -> Reader:
    (folder / "README.md").write_text(f"---\nlicense: !!python/object/apply:os.system ['touch {canary}']\n---\n")
    rsconvert.save(sound.net, folder / "rsconvert.safetensors")
    return lambda: (rsconvert.load(folder), open_export(hub_folder(folder), sound.net))


def _startup(sound: Sound, folder: Path, canary: Path) -> Reader:
    """Files that Python itself runs in some folders: next to photos they are none."""
    for name in ("sitecustomize.py", "usercustomize.py", "conftest.py", "__init__.py", "torch.py"):
        (folder / name).write_text(script(canary))
    (folder / "evil.pth").write_text(f"import os; {script(canary)}")
    Image.new("RGB", (64, 64)).save(folder / "photo.png")
    return lambda: (rsconvert.predict(sound.net, folder, workers=0), photo_samples(str(folder)))


_CODE = {
    "a function in a file": "CODE",
    "hf-hub:": "hf-hub:a/b",
    "local-dir:": "local-dir:FOLDER",
    "a URL": "URL",
    "timm's hf_hub:": "hf_hub:a/b",
    "a path behind torchvision/": "torchvision/CODE",
    "torch.hub's form": "a/b:build",
    "smp with an encoder on the hub": "smp/unet:tu-hf-hub:a/b",
    "smp with an encoder that is code": "smp/unet:CODE",
    "a file of weights": "BOMB",
}
_ARGUMENTS: dict[str, Any] = {
    "pretrained": True,
    "checkpoint_path": "BOMB",
    "cache_dir": "FOLDER",
    "pretrained_backbone": True,
    "pretrained_cfg": {"url": "URL", "file": "BOMB"},
    "pretrained_cfg_overlay": {"url": "URL", "file": "BOMB", "source": "hf-hub", "hf_hub_id": "a/b"},
    "weights": "DEFAULT",
    "weights_backbone": "DEFAULT",
    "encoder_weights": "imagenet",
    "url": "URL",
    "file": "BOMB",
    "hf_hub_id": "a/b",
    "state_dict": "BOMB",
    "load_fn": "CODE",
    "pretrained_filter_fn": "CODE",
    "norm_layer": "CODE",
    "act_layer": "os.system",
    "block_fn": "CODE",
    "scriptable": True,
    "features_only": True,
}
_OTHER_FACTS: dict[str, dict[str, Any]] = {
    "built_with is code": {"built_with": "CODE"},
    "weights of torchvision": {"architecture": "torchvision/resnet18", "model_kwargs": {"weights": "DEFAULT"}},
    "a backbone of torchvision": {
        "architecture": "torchvision/lraspp_mobilenet_v3_large",
        "model_kwargs": {"weights_backbone": "DEFAULT"},
    },
    "weights of smp": {"architecture": "smp/unet:resnet18", "model_kwargs": {"encoder_weights": "imagenet"}},
    "smp's encoder of timm, pretrained": {
        "architecture": "smp/unet:tu-resnet18",
        "model_kwargs": {"encoder_weights": True},
    },
    "a teacher in the record of training": {"training": {"teacher": "CODE", "epochs": 1}},
    "a source that is code": {"source": "CODE"},
    "an argument of image that is code": {
        "images": [{"name": "__import__('os').system('x')", "ndim": 4, "axes": [-2, -1]}]
    },
    "an output that is code": {"output": "__class__.__init__.__globals__"},
    "an alias outside of the tensors": {"aliases": {"x": "../../secret"}},
}
_FOLDERS: dict[str, dict[str, Any]] = {
    **{f"the architecture is {name}": {"architecture": text} for name, text in _CODE.items()},
    **{f"model_args: {name}": {"args": {name: value}} for name, value in _ARGUMENTS.items()},
    "pretrained_cfg: url": {"pretrained_cfg": {"url": "URL"}},
    "pretrained_cfg: file": {"pretrained_cfg": {"file": "BOMB"}},
    "pretrained_cfg: source and hf_hub_id": {"pretrained_cfg": {"source": "hf-hub", "hf_hub_id": "a/b"}},
    "pretrained_cfg: custom_load": {"pretrained_cfg": {"custom_load": "hf", "hf_hub_id": "a/b"}},
    "pretrained_cfg: state_dict": {"pretrained_cfg": {"state_dict": {"x": "BOMB"}}},
    "pretrained_cfg: source timm": {"pretrained_cfg": {"source": "timm", "url": "URL"}},
}
_TEACHERS = {"a function": "CODE", "hf-hub:": "hf-hub:a/b", "a model to download": "resnet18", "a URL": "URL"}
_NAMES: dict[str, Prepare] = {
    **{f"architecture: {name}": _switchable(architecture=text) for name, text in _CODE.items()},
    **{f"model_kwargs: {name}": _switchable(model_kwargs={name: value}) for name, value in _ARGUMENTS.items()},
    **{f"fact: {name}": _switchable(**facts) for name, facts in _OTHER_FACTS.items()},
    **{f"config.json: {name}": _hub(**config) for name, config in _FOLDERS.items()},
    **{f"settings: the teacher is {name}": _settings(f'teacher = "{text}"') for name, text in _TEACHERS.items()},
    "settings: a model": _settings('model = "CODE"'),
    "settings: data": _settings('data = "hfds/a/b"'),
    "settings: the class map is a URL": _settings('class_map = "URL"'),
    "a class map that is code": _text(
        "map.txt", "cat __import__('os').system('x')", lambda path, _: read_class_map(path, ("cat",))
    ),
    "a table of pairs with a URL": _text(
        "pairs.csv", "image,mask,split\nURL,URL,val\n", lambda path, _: open_pairs(str(path), "val", MaskReading())
    ),
    "a table of pairs with hfds/": _text(
        "pairs.csv",
        "image,mask,split\nhfds/a,hfds/a,val\n",
        lambda path, _: open_pairs(str(path), "val", MaskReading()),
    ),
    "summary.csv with a formula": _text(
        "summary.csv", "epoch,score_48\n1,=cmd|'/C calc'!A0\n", lambda path, _: read_scores(path.parent)
    ),
    "README.md of a hub folder with tags of YAML": _card,
    "files that Python runs at its start, next to photos": _startup,
}
NAMES = tuple(Attempt("name", name, prepare) for name, prepare in _NAMES.items())

"""What a file will need is said where the network is saved, and before it is trained."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import rsconvert
from rsconvert.checkpoint import loading_note, write_network
from rsconvert.errors import NamelessModelWarning
from rsconvert.surgery import SwitchableModel


def changed(net: SwitchableModel, **facts: object) -> SwitchableModel:
    net.source = replace(net.source, **facts)
    return net


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"architecture": None}, "no name, so its file will need the plain model: rsconvert.load(path, model=…), or"),
        ({"architecture": None, "built_with": "build"}, "load(path, model=…, build=…), or --model FILE.py:FUNCTION"),
        ({"architecture": "my.py:build"}, "my.py:build is a function of your own, so .* again: --model my.py:build"),
        ({"built_with": "build"}, "made by build=, so its file will need it again"),
    ],
)
def test_what_a_file_will_need(net: SwitchableModel, facts: dict[str, object], words: str, tmp_path: Path) -> None:
    note = loading_note(changed(net, **facts))
    assert note is not None
    assert "\n" not in note
    start, _, end = words.partition(" .* ")
    assert start in note
    assert end in note
    with pytest.warns(NamelessModelWarning) as caught:
        rsconvert.save(net, tmp_path / "net.safetensors")
    (warning,) = caught
    assert (str(warning.message), warning.filename) == (note, __file__)


@pytest.mark.parametrize("write", [rsconvert.save, write_network])
@pytest.mark.parametrize("name", ["test_efficientnet", "torchvision/resnet18", None])
def test_nothing_is_said_where_the_name_tells_all_or_it_was_said(
    net: SwitchableModel, name: str | None, write: Callable[..., None], tmp_path: Path
) -> None:
    if name is None and write is rsconvert.save:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(changed(net, architecture=name), tmp_path / "net.safetensors")

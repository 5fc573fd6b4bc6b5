"""Forms compute what the path computes, and leave the network alone."""

import pytest
import torch

from rsconvert.errors import ConfigError
from rsconvert.evaluation.forms import FORMS, check_forms, paths_in_form
from rsconvert.surgery import SwitchableModel


@pytest.mark.parametrize("form", FORMS)
def test_a_form_computes_what_the_path_computes(net: SwitchableModel, form: str, monkeypatch) -> None:
    if form == "folded":
        pytest.importorskip("rsconvert.surgery.folding")
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, dynamic: compiler(model, dynamic=dynamic, backend="eager"))
    paths = paths_in_form(net, form, (64, 40))
    assert list(paths) == [64, 40]
    with torch.inference_mode():
        for resolution, path in paths.items():
            x = torch.rand(2, 3, resolution, resolution)
            torch.testing.assert_close(path.eval()(x), net.at(resolution)(x), rtol=1e-4, atol=1e-5)
    assert all(p.is_contiguous() for p in net.parameters())


def test_channels_last_is_what_it_says(net: SwitchableModel) -> None:
    path = paths_in_form(net, "channels_last", (64,))[64]
    kernels = [p for p in path.parameters() if p.ndim == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    assert not all(p.is_contiguous() for p in kernels)
    assert {id(p) for p in path.parameters()}.isdisjoint(id(p) for p in net.parameters())


@pytest.mark.parametrize(
    ("forms", "words"),
    [
        ([], "forms is empty; plain, channels_last, compiled, folded are accepted"),
        (["plane"], "form is 'plane'; .* Did you mean plain?"),
        (["xyz"], "form is 'xyz'; .* Choose one"),
        (["plain", "plain"], "forms has plain twice: plain,plain"),
    ],
)
def test_mistakes_are_told(forms: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_forms(forms)


def test_forms_keep_their_order() -> None:
    assert check_forms(["folded", "plain"]) == ("folded", "plain")

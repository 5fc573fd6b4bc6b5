"""Eval mode lasts for the block, also if it fails."""

import contextlib

import pytest
from torch import nn

from rsconvert.surgery import eval_mode


@pytest.mark.parametrize("error", [None, RuntimeError])
def test_each_module_gets_its_own_mode_back(error: type[Exception] | None) -> None:
    models = [nn.Sequential(nn.Dropout(), nn.BatchNorm2d(2)).train(), nn.Sequential(nn.ReLU()).eval()]
    models[0][1].eval()
    with contextlib.suppress(RuntimeError), eval_mode(iter(models)):
        assert not any(m.training for model in models for m in model.modules())
        if error:
            raise error
    assert [m.training for model in models for m in model.modules()] == [True, True, False, False, False]

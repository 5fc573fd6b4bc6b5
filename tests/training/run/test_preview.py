"""preview: the settings in force, the steps, what learns; nothing is touched."""

import copy

import pytest
import torch

from rsconvert.errors import DataError
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training.finetune import finetune
from rsconvert.training.run.preview import preview


def test_it_tells_what_the_run_does(net: SwitchableModel, photos: str) -> None:
    before = copy.deepcopy(net.state_dict())
    config = FinetuneConfig(epochs=2, batch_size=5, grad_accum_steps=2, train="head", workers=0, device="cpu")
    facts = preview(net, photos, config)
    assert (facts["train_images"], facts["val_images"], facts["steps"]) == (24, 12, 4)
    assert facts["learning_parameters"] == 6 * 3 + 3 + 3
    assert facts["lr"] == pytest.approx(0.005 * 10 / 32 / 3)
    assert (facts["amp"], facts["device"], facts["processes"], facts["train"]) == ("off", "cpu", 1, "head")
    assert facts["memory"]["total"] > facts["memory"]["weights"] > 0
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    rows = finetune(net, photos, config=config)
    assert len(rows) == 2


def test_what_the_run_would_refuse_is_refused(net: SwitchableModel, photos: str) -> None:
    with pytest.raises(DataError, match="fewer than one batch of 99"):
        preview(net, photos, FinetuneConfig(batch_size=99, workers=0, device="cpu"))

"""Before a run: the settings in force, the steps, what learns, and the bytes against a count by hand."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from torch import nn

from rsconvert.data import MaskReading, open_pairs, open_split, open_train_val
from rsconvert.errors import ConfigError, DataError, TrainingError
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel, make_switchable
from rsconvert.training.finetune import finetune
from rsconvert.training.run.preview import memory_estimate, open_for_training, preview


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


# Floats: two convolutions and the classifier; S sets of two BatchNorms of 6 channels.
MATRICES = 6 * 3 * 9 + 6 * 6 * 9 + 6 + 3 * 6 + 3
RESOLUTIONS = (32, 24, 16)
PARAMETERS = MATRICES + 3 * 2 * 12 + 3
# μ and σ² in floats, the batch count in int64.
BUFFERS = 3 * 2 * (12 * 4 + 8)
BATCH = 10


def test_a_plain_folder_is_divided(net: SwitchableModel, photos: str) -> None:
    plain = f"{photos}/train"
    count = len(open_split(photos, "train"))
    facts = preview(net, plain, FinetuneConfig(split=0.5, batch_size=2))
    assert facts["val_images"] == len(open_split(plain, 0.5))
    assert 0 < facts["train_images"] == count - facts["val_images"]
    with pytest.raises(DataError, match="Or divide a plain folder of classes by split"):
        preview(net, plain, FinetuneConfig())
    with pytest.raises(ConfigError, match=r"split is 0\.5, and .* is no plain folder of classes"):
        preview(net, photos, FinetuneConfig(split=0.5))
    opened = open_train_val(photos)
    with pytest.raises(ConfigError, match=r"split is 0\.5 and has no effect, because opened splits are not divided"):
        open_for_training(net, opened, FinetuneConfig(split=0.5))


def test_opened_masks_ignore_what_the_network_ignores(tmp_path: Path) -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1))
    net = make_switchable(model, (32, 16), task={"name": "segmentation", "ignore_index": 255})
    for name, mode in (("train", "RGB"), ("trainannot", "L"), ("val", "RGB"), ("valannot", "L")):
        (tmp_path / name).mkdir()
        Image.new(mode, (32, 32)).save(tmp_path / name / "0.png")
    train = open_pairs(str(tmp_path), "train", MaskReading(classes=2))
    val, other = (open_pairs(str(tmp_path), "val", MaskReading(classes=2, ignore_index=i)) for i in (255, 0))
    assert open_for_training(net, (train, val), FinetuneConfig()) == ((train, val), None)
    with pytest.raises(DataError, match="was opened with ignore_index 0, and the network ignores 255; the same"):
        open_for_training(net, (train, other), FinetuneConfig())


def floats_kept(side: int, batch: int = BATCH) -> int:
    """What one path keeps of a batch: the outputs of both convolutions and both ReLUs, the pooled features.

    Beside them each BatchNorm keeps mean and inverse deviation of its 6 channels.
    """
    first = (side - 3) // 2 + 1
    second = first - 2
    return batch * (2 * 6 * first**2 + 2 * 6 * second**2 + 6) + 2 * 2 * 6


def plan(net: SwitchableModel, **settings: Any) -> dict[str, int]:
    return memory_estimate(net, FinetuneConfig(batch_size=BATCH, **settings))


def test_every_part_by_hand(net: SwitchableModel) -> None:
    found = plan(net, optimizer="adamw", ema_decay=0.9, start_share=0.5)
    weights = 4 * PARAMETERS + BUFFERS
    assert found == {
        "weights": weights,
        "gradients": 4 * PARAMETERS,
        "optimizer": 8 * PARAMETERS,
        "average": weights,
        "mixture": 2 * weights,
        "teacher": 0,
        "views": 4 * BATCH * 3 * sum(r * r for r in RESOLUTIONS),
        "activations": 4 * sum(map(floats_kept, RESOLUTIONS)),
        "total": sum(value for name, value in found.items() if name != "total"),
    }


def test_the_optimizers_states(net: SwitchableModel) -> None:
    assert plan(net)["optimizer"] == 4 * PARAMETERS
    assert plan(net, optimizer="momentum", momentum=0.0)["optimizer"] == 0


def test_a_teacher_counts(net: SwitchableModel) -> None:
    config = FinetuneConfig(batch_size=BATCH)
    assert memory_estimate(net, config, teacher=nn.Linear(9, 1))["teacher"] == 40


def test_low_memory_keeps_the_largest_view_alone(net: SwitchableModel) -> None:
    found = plan(net, low_memory=True)
    assert found["activations"] == 4 * floats_kept(32)
    assert found["views"] == plan(net)["views"]


def test_the_largest_draw_counts(make_net: Callable[..., SwitchableModel]) -> None:
    found = plan(make_net((32, 28, 24, 20, 16)), views=4)
    assert found["activations"] == 4 * sum(map(floats_kept, (32, 28, 24, 16)))
    assert found["views"] == 4 * BATCH * 3 * sum(r * r for r in (32, 28, 24, 16))


def test_view_sizes_are_those_of_the_run(net: SwitchableModel) -> None:
    found = plan(net, view_sizes=(20, 20, 30))
    assert found["activations"] == 4 * (2 * floats_kept(20) + floats_kept(30))
    assert plan(net, view_sizes=(20, 20, 30), low_memory=True)["activations"] == 4 * floats_kept(30)


def test_what_does_not_learn_keeps_nothing(net: SwitchableModel) -> None:
    found = plan(net, train="head")
    assert found["gradients"] == 4 * (18 + 3 + 3)
    assert found["activations"] == 4 * BATCH * 3 * 6, "the features of the classifier, for each view"


def test_half_precision_by_hand(net: SwitchableModel) -> None:
    found = memory_estimate(net, FinetuneConfig(batch_size=BATCH), amp=torch.bfloat16)
    statistics = 3 * 2 * 2 * 6
    halves = sum(map(floats_kept, RESOLUTIONS)) - statistics
    casts = BATCH * 3 * sum(r * r for r in RESOLUTIONS) + 6 * 3 * 9 + 6 * 6 * 9 + 6 * 3
    assert found["activations"] == 2 * (halves + casts) + 4 * statistics, "each weight is cast once for all paths"
    assert found["weights"] == plan(net)["weights"]


def test_grad_checkpointing_keeps_less() -> None:
    net = make_switchable(timm.create_model("test_resnet"), (64, 48))
    assert plan(net, grad_checkpointing=True)["activations"] < 0.8 * plan(net)["activations"]
    assert not net.at(64).grad_checkpointing


@pytest.mark.parametrize("train", ["all", "head"])
def test_the_network_and_the_generator_stay_as_they_are(make_net: Callable[..., SwitchableModel], train: Any) -> None:
    net = make_net(dropout=0.5).eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = torch.get_rng_state()
    plan(net, train=train)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert not any(module.training for module in net.modules())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_a_size_that_does_not_train_is_told(net: SwitchableModel) -> None:
    with pytest.raises(TrainingError, match=r"resolution 16 does not train with views of shape \(2, 3, 4, 4\)"):
        plan(net, view_sizes=(32, 24, 4))

"""A training loop of timm: the views that it gets, the loss against our own objective, what timm keeps and resumes."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from PIL import Image
from timm.data import ImageDataset, create_dataset, create_loader
from timm.optim import create_optimizer_v2
from timm.task import resume_task_checkpoint
from timm.utils import CheckpointSaver
from torch import Tensor

import rsconvert
from rsconvert.data import Augmentation, from_pillow, normalize, training_views
from rsconvert.errors import ConfigError, DataError, ResolutionError, UnsupportedModelError
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training.step import Objective
from rsconvert.training.timm_task import MREDTask, ViewCollator, Views

MakeNet = Callable[..., SwitchableModel]
TARGET = torch.tensor([0, 2, 1, 1])
# timm leaves the files that it reads to the garbage collector.
reads_by_timm = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def random_views(net: SwitchableModel, count: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, 3, r, r, generator=generator) for r in net.resolutions]


def task_of(net: SwitchableModel, *args: Any, **options: Any) -> MREDTask:
    return MREDTask(net, *args, verbose=False, **options).train()


# The loss


@pytest.mark.parametrize("distill", ["full", "vanilla", "none"])
@pytest.mark.parametrize("target", [TARGET, torch.eye(3)[TARGET]])
def test_the_loss_is_that_of_finetune(make_net: MakeNet, distill: Any, target: Tensor) -> None:
    one, other = make_net(), make_net()
    result = task_of(one, distill, label_smoothing=0.1)(random_views(one), target)
    config = FinetuneConfig(distill=distill, label_smoothing=0.1)
    wanted = Objective(other, config).train()(random_views(other), target)
    assert torch.equal(result["loss"], wanted.total)
    assert all(torch.equal(result[name], getattr(wanted, name)) for name in wanted._fields[1:])
    assert torch.equal(result["output"], make_net().train().at(one.native)(random_views(one)[0]))
    result["loss"].backward()
    wanted.total.backward()
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter.grad, other.get_parameter(name).grad), name


def test_what_does_not_fit_is_refused(net: SwitchableModel) -> None:
    task = task_of(net)
    with pytest.raises(ResolutionError, match="views has 2 tensors"):
        task(random_views(net)[:2], TARGET)
    with pytest.raises(DataError, match="a target is 3; the network has 3 outputs"):
        task(random_views(net), TARGET + 1)
    with pytest.raises(ConfigError, match="does not compile"):
        task.compile(backend="eager")
    net.at(net.native).fc.register_forward_hook(lambda module, args, output: {"logits": output})
    with pytest.raises(UnsupportedModelError, match="output is a dict"):
        task(random_views(net), TARGET)


# The views


@reads_by_timm
def test_a_batch_is_one_crop_of_each_image_at_every_size(net: SwitchableModel, photos: str) -> None:
    data = create_dataset("", root=photos, split="train")
    torch.manual_seed(3)
    views, target = ViewCollator(net)([data[0], data[9]])
    torch.manual_seed(3)
    seeds = [int(torch.randint(2**63 - 1, ())) for _ in range(2)]
    how = Augmentation(crop_area=(0.35, 1.0), interpolation=net.source.preprocessing.interpolation)
    cut = [
        training_views(from_pillow(data[i][0]), net.resolutions, Random(seed), how)
        for i, seed in zip((0, 9), seeds, strict=True)
    ]
    for place, view in enumerate(views):
        wanted = torch.stack([own[place] for own in cut])
        assert torch.equal(view, normalize(wanted, net.source.preprocessing))
    assert target.tolist() == [0, 1]


def test_an_augmentation_can_be_given(net: SwitchableModel) -> None:
    image = Image.linear_gradient("L").convert("RGB")
    whole = Augmentation(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip="off")
    views, _ = ViewCollator(net, whole)([(image, 0)])
    wanted = training_views(from_pillow(image), net.resolutions, Random(0), whole)
    assert all(
        torch.equal(view, normalize(own[None], net.source.preprocessing))
        for view, own in zip(views, wanted, strict=True)
    )


def test_images_that_were_changed_before_are_refused(net: SwitchableModel) -> None:
    with pytest.raises(DataError, match=r"gives a Tensor; a Pillow image is needed.*Set its transform to None"):
        ViewCollator(net)([(torch.zeros(3, 9, 9), 0)])


def test_views_move_like_one_tensor() -> None:
    views = Views([torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 4, 4)])
    moved = views.to(device=torch.device("cpu"), dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    assert moved.shape[0] == 2
    assert [view.dtype for view in moved] == [torch.float64] * 2
    assert all(view.is_contiguous(memory_format=torch.channels_last) for view in moved)


# What timm does with a task


def script_of_timm(net: SwitchableModel, photos: str, folder: Path) -> MREDTask:
    """The lines of timm's train.py that a batch and a checkpoint go through, without its prefetcher."""
    data = create_dataset("", root=photos, split="train")
    assert isinstance(data, ImageDataset)
    size = (3, net.native, net.native)
    options: dict[str, Any] = {"is_training": True, "use_prefetcher": False, "num_workers": 0}
    loader = create_loader(data, size, 8, collate_fn=ViewCollator(net), device=torch.device("cpu"), **options)
    loader.dataset.transform = None
    task = task_of(net)
    optimizer = create_optimizer_v2(task.get_trainable_module(), opt="sgd", lr=0.05, weight_decay=1e-4)
    task.setup_ema(decay=0.5)
    for step, (batch, labels) in enumerate(loader, start=1):
        input, target = batch.to(device=torch.device("cpu"), dtype=None), labels.to(device=torch.device("cpu"))
        input = input.contiguous(memory_format=torch.channels_last)
        assert input.shape[0] == 8
        with torch.autocast("cpu", torch.bfloat16):
            result = task(input, target)
        assert result["loss"].dtype == torch.float32
        result["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        task.update_ema(step)
    CheckpointSaver(task.get_trainable_module(), optimizer, checkpoint_dir=str(folder), task=task).save_checkpoint(0)
    return task


@reads_by_timm
def test_a_run_of_timm_is_kept_and_resumed(make_net: MakeNet, photos: str, tmp_path: Path) -> None:
    net = make_net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    task = script_of_timm(net, photos, tmp_path)
    assert all(not torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    resumed = task_of(make_net())
    resumed.setup_ema(decay=0.5)
    assert resume_task_checkpoint(resumed, str(tmp_path / "last.pth.tar"), log_info=False) == 1
    assert all(torch.equal(t, resumed.net.state_dict()[name]) for name, t in net.state_dict().items())
    average = task.get_eval_model(ema=True)
    x = torch.randn(1, 3, 24, 24)
    assert not torch.equal(average(x), task.get_eval_model().eval()(x))
    rsconvert.save(average.module, tmp_path / "net.safetensors")
    again = rsconvert.load(tmp_path / "net.safetensors", net.extract(net.native))
    assert torch.equal(again(x), average(x))


@pytest.mark.parametrize(("private", "sides"), [(True, ("",)), (("bn", "head"), ("", "at.24.", "at.16."))])
def test_gradients_are_clipped_with_or_without_the_classifier(
    make_net: MakeNet, private: Any, sides: tuple[str, ...]
) -> None:
    net = make_net(private=private)
    task, every = task_of(net), dict(net.named_parameters())
    assert list(map(id, task.get_clip_parameters())) == list(map(id, every.values()))
    left = {id(parameter) for parameter in task.get_clip_parameters(exclude_head=True)}
    assert {name for name, parameter in every.items() if id(parameter) not in left} == {
        f"fc.{side}{name}" for side in sides for name in ("weight", "bias")
    }


def test_a_timm_without_tasks_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm.task", None)
    monkeypatch.delitem(sys.modules, "rsconvert.training.timm_task")
    with pytest.raises(ConfigError, match=r"has no training tasks; MREDTask needs 1\.0\.30 or later"):
        importlib.import_module("rsconvert.training.timm_task")

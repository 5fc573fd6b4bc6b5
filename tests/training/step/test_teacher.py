"""Teacher: its own normalization, the network as it was, who is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rsconvert.checkpoint import load_with, save
from rsconvert.data import Preprocessing, normalize
from rsconvert.errors import CheckpointError, ConfigError
from rsconvert.models import create_model
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel, make_switchable
from rsconvert.training.loss import mred_loss
from rsconvert.training.step.objective import Objective
from rsconvert.training.step.teacher import Teacher, create_teacher

MakeNet = Callable[..., SwitchableModel]
CPU = torch.device("cpu")


def test_it_sees_images_as_it_was_trained_on_them() -> None:
    pixels = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    own, student = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.2)), Preprocessing()
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x.mean((2, 3))

    teacher = Teacher(Spy(), own, student, CPU)
    teacher(normalize(pixels, student))
    torch.testing.assert_close(seen[0], normalize(pixels, own), rtol=1e-5, atol=1e-5)
    view = normalize(pixels, student)
    Teacher(Spy(), student, student, CPU)(view)
    assert seen[1] is view


def test_the_network_teaches_as_it_was(net: SwitchableModel) -> None:
    view = torch.randn(2, 3, 32, 32)
    wanted = net.eval().at(32)(view).detach().clone()
    teacher = create_teacher(net.train(), FinetuneConfig(labels="none"), CPU)
    assert teacher is not None
    for parameter in net.parameters():
        parameter.data.add_(1)
    assert torch.equal(teacher(view), wanted)
    assert not any(p.requires_grad for p in teacher.model.parameters())


def test_a_checkpoint_teaches_by_its_native_path(tmp_path: Path) -> None:
    def make(side: int) -> SwitchableModel:
        torch.manual_seed(side)
        return make_switchable(create_model("test_efficientnet", num_classes=4), (side, 32))

    other, net = make(48).eval(), make(64)
    save(other, tmp_path / "other.safetensors")
    teacher = create_teacher(net, FinetuneConfig(teacher=str(tmp_path / "other.safetensors")), CPU)
    assert teacher is not None
    view = torch.randn(2, 3, 64, 64)
    assert torch.equal(teacher(view), other.at(48)(view))


@pytest.mark.parametrize("way", ["my.py", "elsewhere/../my.py"])
def test_a_checkpoint_of_the_same_function_teaches(way: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "my.py").write_text(
        "from torch import nn\n\n\n"
        "def build(num_classes=4, width=8):\n"
        "    layers = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.AdaptiveAvgPool2d(1), nn.Flatten()\n"
        "    return nn.Sequential(*layers, nn.Linear(width, num_classes))\n"
    )
    name, view = f"{tmp_path / 'my.py'}:build", torch.randn(2, 3, 64, 64)
    wide = make_switchable(create_model(f"{tmp_path}/{way}:build", model_kwargs={"width": 16}), (64, 32)).eval()
    save(wide, tmp_path / "wide.safetensors")
    save(make_switchable(create_model(name), (64, 32)), tmp_path / "net.safetensors")
    net = load_with(tmp_path / "net.safetensors", name)
    teacher = create_teacher(net, FinetuneConfig(teacher=str(tmp_path / "wide.safetensors")), CPU)
    assert teacher is not None
    assert torch.equal(teacher(view), wide.at(64)(view))


def test_a_checkpoint_without_a_name_teaches_a_network_of_its_class(make_net: MakeNet, tmp_path: Path) -> None:
    other, view = make_net((48, 32)).eval(), torch.randn(2, 3, 64, 64)
    other.at(48).fc.bias.data.fill_(2)
    save(other, tmp_path / "other.safetensors")
    teacher = create_teacher(make_net(), FinetuneConfig(teacher=str(tmp_path / "other.safetensors")), CPU)
    assert teacher is not None
    assert torch.equal(teacher(view), other.at(48)(view))


def test_a_function_that_nobody_named_is_not_run(make_net: MakeNet, tmp_path: Path) -> None:
    save_as = make_net()
    save_as.source = replace(save_as.source, architecture=f"{tmp_path / 'other.py'}:build")
    save(save_as, tmp_path / "other.safetensors")
    (tmp_path / "other.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(CheckpointError, match=r"made by .*other\.py:build; only names of timm, torchvision and smp"):
        create_teacher(make_net(), FinetuneConfig(teacher=str(tmp_path / "other.safetensors")), CPU)


def test_most_runs_have_none(net: SwitchableModel) -> None:
    assert create_teacher(net, FinetuneConfig(), CPU) is None
    assert create_teacher(net, FinetuneConfig(train="bn", labels="none"), CPU) is None


def test_without_labels_another_network_may_teach(net: SwitchableModel) -> None:
    views, target = [torch.randn(4, 3, r, r) for r in net.resolutions], torch.zeros(4, dtype=torch.int64)
    config = FinetuneConfig(labels="none", teacher="other")
    taught = Objective(net, config, teacher=lambda view: torch.eye(4, 3)).train()(views, target)
    logits = [net.at(r)(view) for r, view in zip(net.resolutions, views, strict=True)]
    wanted = mred_loss(logits, None, net.alpha, teacher=torch.eye(4, 3))
    torch.testing.assert_close(taught.total, wanted.total)


def test_a_run_folder_teaches_by_its_best(tmp_path: Path) -> None:
    nets = [make_switchable(create_model("test_efficientnet", num_classes=2), (48, 32)).eval() for _ in range(2)]
    save(nets[0], tmp_path / "best.safetensors")
    teacher = create_teacher(nets[1], FinetuneConfig(teacher=str(tmp_path)), CPU)
    assert teacher is not None
    view = torch.randn(2, 3, 48, 48)
    assert torch.equal(teacher(view), nets[0].at(48)(view))


def test_another_number_of_outputs_is_refused(make_net: MakeNet, tmp_path: Path) -> None:
    save(make_switchable(create_model("test_efficientnet", num_classes=4), (48, 32)), tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="has 4 outputs; 3 are needed"):
        create_teacher(make_net(), FinetuneConfig(teacher=str(tmp_path / "other.safetensors")), CPU)


def test_classes_in_another_order_are_refused(tmp_path: Path) -> None:
    nets = [make_switchable(create_model("test_efficientnet", num_classes=2), (48, 32)) for _ in range(2)]
    for net, names in zip(nets, (("cat", "dog"), ("dog", "cat")), strict=True):
        net.source = replace(net.source, class_names=names)
    save(nets[0], tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="knows the classes cat, dog, …; the network's dog, cat, … are needed"):
        create_teacher(nets[1], FinetuneConfig(teacher=str(tmp_path / "other.safetensors")), CPU)


def test_without_labels_a_frozen_native_path_teaches_itself(net: SwitchableModel) -> None:
    views, target = [torch.randn(4, 3, r, r) for r in net.resolutions], torch.zeros(4, dtype=torch.int64)
    frozen = Objective(net, FinetuneConfig(train="bn", labels="none")).train()
    told = frozen(views, target)
    teacher = create_teacher(net, FinetuneConfig(labels="none"), CPU)
    outside = Objective(net, FinetuneConfig(train="bn", labels="none"), teacher=teacher).train()
    torch.testing.assert_close(outside(views, target).total, told.total)
    assert told.classification == told.ensemble == 0
    told.total.backward()
    assert net.alpha.grad is None
    assert {name.split(".at.")[-1].split(".")[0] for name, p in net.named_parameters() if p.grad is not None} == {
        "24",
        "16",
    }

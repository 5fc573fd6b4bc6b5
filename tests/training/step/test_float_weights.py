"""Quantized convolutions in training: float weights step, bases follow once a step, and nothing is off its levels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rsconvert.checkpoint import load
from rsconvert.errors import ConfigError, UnsupportedModelError
from rsconvert.evaluation import Processes
from rsconvert.quantization import layout_of, pack_weight, quantize_, quantized_convolutions
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel
from rsconvert.training import MREDTask, explain_defaults, finetune
from rsconvert.training.step.stepper import Stepper
from tests.conftest import Tinier
from tests.quantization.test_lq import numpy_step
from tests.training.run.test_epochs import pressed_at

MakeNet = Callable[..., SwitchableModel]


def stepper_of(net: SwitchableModel, **changes: Any) -> Stepper:
    usual: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.1, "momentum": 0.0, "optimizer": "momentum"}
    config = FinetuneConfig(**{**usual, "warmup_epochs": 0.0, "schedule": "constant", **changes})
    stepper = Stepper(net, config, 10, torch.float32, Processes(0, 1, torch.device("cpu")))
    stepper.objective.train()
    return stepper


def add(stepper: Stepper, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    views = [torch.randn(4, 3, r, r, generator=generator).to(stepper.net.alpha) for r in stepper.net.resolutions]
    stepper.add(views, torch.tensor([0, 1, 2, 0]), last=True)


def held(net: SwitchableModel) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}


def test_a_step_is_one_of_the_float_weights_and_the_basis_is_fitted_once(net: SwitchableModel) -> None:
    stepper = stepper_of(net.double(), bits="2/32")
    conv = quantized_convolutions(net)["conv2"]
    start = conv.get_buffer("float_weight").clone()
    assert torch.equal(start, conv.weight)
    basis = conv.weight_basis.clone()
    add(stepper)
    assert conv.weight.grad is not None
    stepped = start - 0.1 * (conv.weight.grad + 0.1 * start)
    stepper.step(0)
    torch.testing.assert_close(conv.get_buffer("float_weight"), stepped)
    assert conv.weight_updates == 1
    for place in range(6):
        fitted = numpy_step(start[place].flatten().numpy(), basis[place].numpy(), signed=True)[1]
        torch.testing.assert_close(conv.weight_basis[place], torch.from_numpy(fitted))
        values = numpy_step(stepped[place].flatten().numpy(), fitted, signed=True)[0]
        torch.testing.assert_close(conv.weight[place].flatten().detach(), torch.from_numpy(values))


def test_weights_are_fitted_once_a_step_and_activations_once_a_view(net: SwitchableModel) -> None:
    stepper = stepper_of(net, bits="2/2", grad_accum_steps=2)
    activation = net.at(24).conv2.activation
    for step in range(2):
        basis = activation.basis.clone()
        for part in range(2):
            add(stepper, part)
            assert torch.equal(activation.basis, basis)
        stepper.step(step)
        assert not torch.equal(activation.basis, basis)
    assert quantized_convolutions(net)["conv2"].weight_updates == 2
    assert activation.updates == 2 * 2 * 3


@pytest.mark.parametrize("bases", ["shared", "private"])
def test_view_by_view_gives_the_same(make_net: MakeNet, bases: str) -> None:
    states = []
    for low_memory in (False, True):
        net = make_net().double()
        stepper = stepper_of(net, bits="3/3", activation_bases=bases, low_memory=low_memory)
        for step in range(2):
            add(stepper, step)
            stepper.step(step)
        states.append(held(net))
    torch.testing.assert_close(states[0], states[1])


def test_the_average_and_the_trained_stay_on_their_levels(net: SwitchableModel) -> None:
    stepper = stepper_of(net, bits="2/32", ema_decay=0.9)
    for step in range(3):
        add(stepper, step)
        stepper.step(step)
    assert stepper.judged is not net
    for own in (net, stepper.judged):
        conv = quantized_convolutions(own)["conv2"]
        pack_weight(conv.weight, conv.weight_basis)
    trained, average = (
        quantized_convolutions(own)["conv2"].get_buffer("float_weight") for own in (net, stepper.judged)
    )
    assert not torch.equal(trained, average)


@pytest.mark.parametrize("part", ["bn", "head"])
def test_weights_and_bases_that_do_not_learn_stay(net: SwitchableModel, part: str) -> None:
    quantize_(net, "2/2")
    before = held(net)
    stepper = stepper_of(net, train=part)
    add(stepper)
    stepper.step(0)
    after = held(net)
    assert {name for name in before if not torch.equal(before[name], after[name])}
    own = [name for name in before if name.startswith("conv2")]
    assert all(torch.equal(before[name], after[name]) for name in own)
    assert before.keys() == after.keys()


def settings(**changes: Any) -> FinetuneConfig:
    usual = {"epochs": 2, "batch_size": 4, "lr": 0.05, "workers": 0, "warmup_epochs": 0.5, "device": "cpu"}
    return FinetuneConfig(**{**usual, **changes})


@pytest.mark.parametrize("changes", [{"bits": "2/2"}, {"bits": "3/2", "activation_bases": "private", "ema_decay": 0.5}])
@pytest.mark.filterwarnings("ignore::rsconvert.errors.NamelessModelWarning")
def test_a_run_ends_as_its_file(net: SwitchableModel, photos: str, tmp_path: Path, changes: dict[str, Any]) -> None:
    result = finetune(net, photos, tmp_path, settings(**changes))
    assert len(result) == 2
    assert {weights for weights, _ in layout_of(net).values()} == {int(changes["bits"][0])}
    assert net.source.training is not None
    assert net.source.training["bits"] == changes["bits"]
    assert not [name for name in net.state_dict() if "float_weight" in name]
    again = load(tmp_path / "last.safetensors", Tinier()).to(memory_format=torch.channels_last)  # as it was trained
    for side in (32, 28, 24, 16):
        image = torch.rand(2, 3, side, side)
        assert torch.equal(again(image), net.eval()(image))


@pytest.mark.parametrize("at", [2, 9])
@pytest.mark.filterwarnings("ignore::rsconvert.errors.NamelessModelWarning")
def test_a_stopped_run_ends_in_the_same_bits(make_net: MakeNet, photos: str, tmp_path: Path, at: int) -> None:
    def start() -> SwitchableModel:
        net = make_net()
        quantize_(net, "2/2")
        return net

    config = settings(bits="2/2", ema_decay=0.9)
    whole = start()
    finetune(whole, photos, tmp_path / "whole", config)
    stopped = start()
    pressed_at(stopped, at)
    with pytest.raises(KeyboardInterrupt):
        finetune(stopped, photos, tmp_path / "run", config)
    again = start()
    finetune(again, photos, tmp_path / "run", config, resume=True)
    one, other = held(whole), held(again)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_settings_that_do_not_fit_are_refused(net: SwitchableModel) -> None:
    with pytest.raises(ConfigError, match=r"start_share is 0\.3 for a quantized network"):
        stepper_of(net, bits="2/32", start_share=0.3)
    assert not layout_of(net)
    quantize_(net, "2/32")
    with pytest.raises(UnsupportedModelError, match="the network is quantized, and timm's loop"):
        MREDTask(net)
    assert "its convolutions get few bits" in str(explain_defaults(net, FinetuneConfig()))


def test_other_bits_quantize_anew_and_the_same_go_on(net: SwitchableModel) -> None:
    quantize_(net, "4/32")
    weight = quantized_convolutions(net)["conv2"].weight
    assert stepper_of(net, bits="4/32").quantized is None
    assert quantized_convolutions(net)["conv2"].weight is weight
    assert str(stepper_of(net, bits="2/32").quantized).startswith("1 of 2 convolutions quantized to 2/32 bits")
    assert layout_of(net) == {"conv2": (2, 32)}

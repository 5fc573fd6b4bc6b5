"""Where to compute, and in which precision: the defaults and the refusals."""

import pytest
import torch
from torch import nn

from rsconvert.errors import ConfigError
from rsconvert.evaluation.device import amp_name, autocast, choose_device, choose_precision, float_dtype

CPU = torch.device("cpu")


def test_the_cpu_is_found_by_name() -> None:
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("there", [False, True])
def test_a_gpu_is_taken_if_there_is_one(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert choose_device(None).type == ("cuda" if there else "cpu")


@pytest.mark.parametrize("name", ["banana", "", "meta", "mps:7", "xpu", "hpu", "cuda:99"])
def test_a_device_that_is_not_here_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device is '{name}'") as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 180


def test_the_precision_by_name() -> None:
    assert choose_precision("bf16", CPU) is torch.bfloat16
    assert choose_precision("off", CPU) is choose_precision(None, CPU) is torch.float32
    assert choose_precision("fp16", torch.device("cuda")) is torch.float16


@pytest.mark.parametrize("native", [False, True])
def test_a_gpu_computes_in_bf16_unless_it_would_imitate_it(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert choose_precision(None, torch.device("cuda")) is (torch.bfloat16 if native else torch.float32)


def test_fp16_on_the_cpu_and_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="amp is fp16 on the CPU"):
        choose_precision("fp16", CPU)
    with pytest.raises(ConfigError, match="amp is fp16 on the CPU"):
        choose_precision(torch.float16, CPU)
    with pytest.raises(ConfigError, match=r"amp is torch\.int8; bf16, fp16, off"):
        choose_precision(torch.int8, CPU)
    with pytest.raises(ConfigError, match="amp is 'fp8'; bf16, fp16, off"):
        choose_precision("fp8", CPU)


@pytest.mark.parametrize("amp", [None, "bf16", "off", torch.bfloat16, torch.float32])
def test_what_was_chosen_is_chosen_again(amp: str | torch.dtype | None) -> None:
    chosen = choose_precision(amp, CPU)
    assert choose_precision(chosen, CPU) is chosen
    assert choose_precision(amp_name(chosen), CPU) is chosen
    with autocast(CPU, chosen):
        result = torch.ones(2, 2, dtype=torch.float64) @ torch.ones(2, 2, dtype=torch.float64)
        low = torch.ones(2, 2) @ torch.ones(2, 2)
    assert (result.dtype, low.dtype) == (torch.float64, chosen)


def test_a_device_may_be_given_as_torch_has_it() -> None:
    assert choose_device(CPU) == CPU


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_floating_type_of_a_network_skips_what_is_no_float(dtype: torch.dtype) -> None:
    model = nn.Module()
    model.codes = nn.Parameter(torch.zeros(2, dtype=torch.int64), requires_grad=False)
    model.weight = nn.Parameter(torch.zeros(2, dtype=dtype))
    assert float_dtype(model) is dtype

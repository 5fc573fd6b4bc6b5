"""calibrate: statistics against NumPy and a network by hand, one decoding per image, and only what it should change."""

import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from rsconvert.calibration import calibrate
from rsconvert.data import Preprocessing, Samples, evaluation_loader, normalize
from rsconvert.errors import ConfigError, DataError, ResolutionError, TrainingError, UnsupportedModelError
from rsconvert.surgery import SwitchableModel, make_switchable

MakeNet = Callable[..., SwitchableModel]


class Photos:
    """Noise photos of rising brightness; counts how often each is read."""

    def __init__(self, count: int = 10) -> None:
        self.reads = Counter[int]()
        noise = np.random.default_rng(0).integers(0, 100, (count, 40, 40, 3))
        self.pixels = (noise + np.linspace(0, 150, count)[:, None, None, None]).astype(np.uint8)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        self.reads[index] += 1
        return Image.fromarray(self.pixels[index]), 0


@pytest.fixture
def photos() -> Photos:
    return Photos()


@pytest.fixture
def samples(photos: Photos) -> Samples:
    return Samples(photos, "photos", None)


def views_of(samples: Samples, resolution: int) -> Tensor:
    """All images as the network sees them, float64."""
    ((views, _),) = evaluation_loader(samples, (resolution,), batch_size=len(samples), workers=0)
    return normalize(views[0], Preprocessing(), dtype=torch.float64)


def values(x: Tensor) -> np.ndarray:
    return x.detach().numpy().swapaxes(0, 1).reshape(x.shape[1], -1)


def state(net: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in net.state_dict().items()}


def changed(net: nn.Module, before: dict[str, bytes]) -> set[str]:
    return {name for name, held in state(net).items() if held != before[name]}


@pytest.mark.parametrize("batch_size", [10, 4, 3])
def test_the_first_batchnorm_gets_the_population_of_its_inputs(
    net: SwitchableModel, samples: Samples, batch_size: int
) -> None:
    net.double()
    report = calibrate(net, samples, batch_size=batch_size, workers=0)
    for resolution in (24, 16):
        path = net.at(resolution)
        inputs = values(path.conv1(views_of(samples, resolution)))
        np.testing.assert_allclose(path.bn1.running_mean.numpy(), inputs.mean(1), rtol=1e-12)
        np.testing.assert_allclose(path.bn1.running_var.numpy(), inputs.var(1), rtol=1e-12)
    assert (report.images, report.resolutions, report.left) == (10, {24: 2, 16: 2}, {})


def test_one_batchnorm_alone_takes_part(net: SwitchableModel, samples: Samples) -> None:
    net.double()
    before = state(net)
    report = calibrate(net, samples, (16,), layers=["bn2"], workers=0)
    assert changed(net, before) == {"bn2.at.16.running_mean", "bn2.at.16.running_var"}
    path = net.at(16).eval()
    inputs = values(path.conv2(path.bn1(path.conv1(views_of(samples, 16))).relu()))
    np.testing.assert_allclose(path.bn2.running_mean.numpy(), inputs.mean(1), rtol=1e-12)
    assert (report.resolutions, report.left) == ({16: 1}, {})
    with pytest.raises(ConfigError, match="layers has bn3, which is no BatchNorm; such as bn1 are accepted"):
        calibrate(net, samples, layers=["bn3"], workers=0)


def test_the_second_batchnorm_follows_the_first_as_by_hand(net: SwitchableModel, samples: Samples) -> None:
    net.double()
    chosen = samples.subset(torch.randperm(10, generator=torch.Generator().manual_seed(3)).tolist())
    calibrate(net, samples, [16], batch_size=5, seed=3, workers=0)
    path, x = net.at(16), views_of(chosen, 16)
    received = []
    for batch in (x[:5], x[5:]):
        inner = path.conv1(batch).detach().numpy()
        mean, variance = inner.mean((0, 2, 3), keepdims=True), inner.var((0, 2, 3), keepdims=True)
        inner = np.maximum((inner - mean) / np.sqrt(variance + 1e-5), 0)  # gamma 1, beta 0
        received.append(values(path.conv2(torch.from_numpy(inner))))
    wanted = np.concatenate(received, axis=1)
    np.testing.assert_allclose(path.bn2.running_mean.numpy(), wanted.mean(1), rtol=1e-10)
    np.testing.assert_allclose(path.bn2.running_var.numpy(), wanted.var(1), rtol=1e-10)


def test_in_one_batch_eval_is_then_what_train_was(net: SwitchableModel, samples: Samples) -> None:
    calibrate(net, samples, workers=0)
    x = views_of(samples, 24).float()
    plain = net.extract(24)
    torch.testing.assert_close(plain.eval()(x), plain.train()(x), rtol=1e-4, atol=1e-5)


def test_only_the_statistics_of_the_smaller_sets_change(net: SwitchableModel, samples: Samples) -> None:
    before, rng = state(net), torch.get_rng_state()
    calibrate(net, samples, workers=0)
    statistics = {f"bn{i}.at.{r}.running_{s}" for i in (1, 2) for r in (24, 16) for s in ("mean", "var")}
    assert changed(net, before) == statistics
    assert torch.equal(torch.get_rng_state(), rng)


def test_each_set_can_be_asked_for_alone(net: SwitchableModel, samples: Samples) -> None:
    before = state(net)
    calibrate(net, samples, [16], workers=0)
    assert changed(net, before) == {f"bn{i}.at.16.running_{s}" for i in (1, 2) for s in ("mean", "var")}
    before = state(net)
    assert calibrate(net, samples, [32], workers=0).resolutions == {32: 2}
    assert changed(net, before) == {f"bn{i}.running_{s}" for i in (1, 2) for s in ("mean", "var")}


def test_the_other_resolutions_make_no_difference(make_net: MakeNet, samples: Samples) -> None:
    one, other = make_net(), make_net()
    calibrate(one, samples, workers=0)
    calibrate(other, samples, [16], workers=0)
    assert torch.equal(one.at(16).bn2.running_var, other.at(16).bn2.running_var)


def test_every_image_is_read_once(net: SwitchableModel, samples: Samples, photos: Photos) -> None:
    calibrate(net, samples, (32, 24, 16), batch_size=3, workers=0)
    assert photos.reads == Counter(range(10))


def test_images_are_drawn_by_the_seed(make_net: MakeNet, samples: Samples, photos: Photos) -> None:
    drawn = []
    for seed in (0, 0, 1):
        photos.reads.clear()
        net = make_net()
        assert calibrate(net, samples, images=6, batch_size=4, seed=seed, workers=0).images == 6
        drawn.append((set(photos.reads), state(net)))
        assert set(photos.reads.values()) == {1}
    assert drawn[0] == drawn[1]
    assert drawn[0][0] != drawn[2][0]


def test_batches_are_nearly_equal(net: SwitchableModel, samples: Samples) -> None:
    """Nine and one would normalize the last image by its own statistics."""
    seen: list[int] = []
    net.at(16).register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    calibrate(net, samples, batch_size=9, workers=0)
    assert seen == [5, 5]


def test_worker_processes_change_nothing(make_net: MakeNet, samples: Samples) -> None:
    one, other = make_net(), make_net()
    calibrate(one, samples, batch_size=4, workers=0)
    calibrate(other, samples, batch_size=4, workers=2)
    assert state(one) == state(other)


def test_the_momentum_form_is_that_of_train_mode(make_net: MakeNet, samples: Samples) -> None:
    net, plain = make_net(), make_net().extract(24).train()
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0)).tolist()
    calibrate(net, samples, form="momentum", batch_size=5, workers=0)
    for batch in views_of(samples.subset(order), 24).float().split(5):
        plain(batch)
    for name in ("bn1", "bn2"):
        for tensor in ("running_mean", "running_var"):
            found, wanted = (getattr(getattr(m, name), tensor) for m in (net.at(24), plain))
            torch.testing.assert_close(found, wanted)
    assert net.at(24).bn1.num_batches_tracked == 0


def test_dropout_sleeps_and_modes_stay(make_net: MakeNet, samples: Samples) -> None:
    one, other = make_net(dropout=0.0), make_net(dropout=0.9).train()
    other.at(16).bn1.eval()
    seen: list[bool] = []
    other.at(16).dropout.register_forward_hook(lambda module, *_: seen.append(module.training))
    modes = [m.training for r in other.resolutions for m in other.at(r).modules()]
    for net in (one, other):
        calibrate(net, samples, workers=0)
    assert state(one) == state(other)
    assert seen == [False, False]  # the paths share it
    assert [m.training for r in other.resolutions for m in other.at(r).modules()] == modes


class ByHand(nn.Module):
    """A frozen BatchNorm without a class of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(3))
        self.register_buffer("running_var", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.running_mean[:, None, None]) * (self.running_var[:, None, None] + 1e-5).rsqrt()


class Odd(nn.Module):
    """One BatchNorm called twice, others that can't be calibrated."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.twice = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.frozen, self.stateless = FrozenBatchNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False)
        self.head, self.idle = nn.BatchNorm1d(3, affine=False), nn.BatchNorm2d(3)
        self.by_hand = ByHand()

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.conv(self.twice(x)))
        return self.head(self.stateless(self.frozen(self.by_hand(x))).square().mean((2, 3)))


def test_a_batchnorm_called_twice_gets_the_values_of_both_calls(samples: Samples) -> None:
    net = make_switchable(Odd(), (32, 16)).double()
    before = state(net)
    report = calibrate(net, samples, workers=0)
    path, x = net.at(16), views_of(samples, 16)
    first = values(x)
    inner = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    both = np.concatenate([first, values(path.conv(inner))], axis=1)
    np.testing.assert_allclose(path.twice.running_mean.numpy(), both.mean(1), rtol=1e-10)
    np.testing.assert_allclose(path.twice.running_var.numpy(), both.var(1), rtol=1e-10)
    assert report.resolutions == {16: 2}
    assert report.left == {
        "frozen": "it is frozen",
        "by_hand": "it is frozen",
        "stateless": "it keeps no statistics",
        "idle": "it did not run",
    }
    assert changed(net, before) == {f"{n}.at.16.running_{s}" for n in ("twice", "head") for s in ("mean", "var")}
    assert "left as it was: idle, it did not run" in str(report)
    assert report.to_dict()["resolutions"] == {"16": 2}


class OwnBatchNorm(nn.Module):
    """Hands its tensors to F.batch_norm itself."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("var", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(self.bn(x), self.mean, self.var, training=self.training).mean((2, 3))


def test_private_tensors_beside_batchnorms_stay_and_are_named(samples: Samples) -> None:
    net = make_switchable(OwnBatchNorm(), (32, 16))
    before = state(net)
    assert calibrate(net, samples, workers=0).left == dict.fromkeys(("mean", "var"), "it is no BatchNorm's")
    assert changed(net, before) == {"bn.at.16.running_mean", "bn.at.16.running_var"}


class Pooled(nn.Sequential):
    """A BatchNorm on 1×1 maps."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4), nn.Flatten())


def test_one_image_is_too_few_for_a_map_of_one_pixel(net: SwitchableModel, samples: Samples) -> None:
    pooled = make_switchable(Pooled(), (32, 16))
    before = state(pooled)
    with pytest.raises(TrainingError, match="2 at 16 gets one value per channel in a batch"):
        calibrate(pooled, samples, images=1, workers=0)
    assert state(pooled) == before
    assert calibrate(pooled, samples, images=2, workers=0).images == 2
    assert calibrate(net, samples, images=1, workers=0).images == 1


def test_a_statistic_that_is_not_finite_changes_nothing(net: SwitchableModel, samples: Samples) -> None:
    net.get_parameter("conv2.weight").data[0] = torch.inf
    before = state(net)
    with pytest.raises(TrainingError, match="bn2 at 24 gets values that are not finite") as caught:
        calibrate(net, samples, workers=0)
    assert "\n" not in str(caught.value)
    assert state(net) == before


def test_ctrl_c_changes_nothing(net: SwitchableModel, samples: Samples, photos: Photos) -> None:
    net.at(16).register_forward_pre_hook(lambda *_: signal.raise_signal(signal.SIGINT))
    before = state(net)
    with pytest.raises(KeyboardInterrupt):
        calibrate(net, samples, batch_size=5, workers=0)
    assert state(net) == before
    assert photos.reads.total() == 5


def test_out_of_memory_is_one_line(net: SwitchableModel, samples: Samples) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried\nbacktrace")

    net.at(24).register_forward_pre_hook(full)
    with pytest.raises(TrainingError, match=r"^memory ran out.*Lower batch_size \(it is 64\)"):
        calibrate(net, samples, workers=0)


@pytest.mark.parametrize(
    ("options", "error", "expected"),
    [
        ({"images": 0}, ConfigError, "images is 0; at least 1"),
        ({"batch_size": 0}, ConfigError, "batch_size is 0; at least 1"),
        ({"form": "mean"}, ConfigError, "form is 'mean'; population, momentum are accepted"),
        ({"device": "banana"}, ConfigError, "device is 'banana'"),
        ({"resolutions": [28]}, ResolutionError, r"resolution 28 was not trained .*\(32, 24, 16\)"),
        ({"resolutions": []}, ResolutionError, "resolutions"),
        ({"resolutions": [16, 16]}, ResolutionError, "16 twice"),
    ],
)
def test_settings_are_refused_in_one_line(
    net: SwitchableModel, samples: Samples, options: dict[str, Any], error: type[Exception], expected: str
) -> None:
    with pytest.raises(error, match=expected) as caught:
        calibrate(net, samples, workers=0, **options)
    assert "\n" not in str(caught.value)


def test_networks_without_a_set_of_their_own_are_refused(make_net: MakeNet, samples: Samples) -> None:
    with pytest.raises(ResolutionError, match="one BN set for all resolutions"):
        calibrate(make_net(private=False), samples, workers=0)
    with pytest.raises(ResolutionError, match="the native resolution 32 alone"):
        calibrate(make_net((32,)), samples, workers=0)
    frozen = make_switchable(nn.Sequential(nn.Conv2d(3, 4, 3), FrozenBatchNorm2d(4)), (32, 16))
    with pytest.raises(UnsupportedModelError, match="no BatchNorm with statistics ran at 16"):
        calibrate(frozen, samples, workers=0)


def test_a_network_that_fails_is_one_line(net: SwitchableModel, samples: Samples) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no\nsuch size")

    net.at(16).register_forward_pre_hook(fail)
    before = state(net)
    with pytest.raises(UnsupportedModelError, match=r"fails on images of 16 \(ValueError: no") as caught:
        calibrate(net, samples, workers=0)
    assert "\n" not in str(caught.value)
    assert state(net) == before


def test_a_folder_needs_no_classes(net: SwitchableModel, photos: Photos, tmp_path: Path) -> None:
    for index, pixels in enumerate(photos.pixels):
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    assert calibrate(net, tmp_path, workers=0).images == 10
    (tmp_path / "4.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"4\.png"):
        calibrate(net, str(tmp_path), workers=0)
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="the data holds no images"):
        calibrate(net, tmp_path, workers=0)


def test_the_crop_is_that_of_evaluation(net: SwitchableModel, samples: Samples) -> None:
    net.source = replace(net.source, preprocessing=Preprocessing(crop_pct=(1.0, 0.5, 0.5), mean=(0.1, 0.2, 0.3)))
    net.double()
    calibrate(net, samples, [16], workers=0)
    ((views, _),) = evaluation_loader(samples, (16,), batch_size=10, workers=0, crop_pct=0.5)
    x = normalize(views[0], net.source.preprocessing, dtype=torch.float64)
    np.testing.assert_allclose(net.at(16).bn1.running_mean.numpy(), values(net.at(16).conv1(x)).mean(1), rtol=1e-12)

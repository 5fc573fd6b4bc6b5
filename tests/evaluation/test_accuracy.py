"""evaluate: hits counted by hand, the ensemble against NumPy, every image read once, the network left as it was."""

import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from rsconvert.data import Preprocessing, Samples, evaluation_loader, normalize
from rsconvert.errors import ConfigError, DataError, ResolutionError, TrainingError, UnsupportedModelError
from rsconvert.evaluation import Evaluation, evaluate, measure, predict, validation_loader
from rsconvert.surgery import SwitchableModel, make_switchable

CLASSES = tuple("abcdefgh")
TARGETS = (0, 1, 2, 3, 4, 5, 6, 7, 0, 1)


class Tiny(nn.Module):
    def __init__(self, classes: int = 8) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.bn(self.conv(x)).relu().mean((2, 3)))


class Photos:
    """Noise photos with their targets; counts how often each is read."""

    def __init__(self, targets: tuple[int, ...] = TARGETS) -> None:
        self.targets, self.reads = targets, Counter[int]()
        self.pixels = np.random.default_rng(0).integers(0, 256, (len(targets), 40, 40, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        self.reads[index] += 1
        return Image.fromarray(self.pixels[index]), self.targets[index]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def net() -> SwitchableModel:
    """A network whose sets and scores all differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = make_switchable(Tiny(), (32, 24, 16))
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.2 if "var" in name else torch.randn_like(tensor))
    return net


@pytest.fixture
def photos() -> Photos:
    return Photos()


@pytest.fixture
def samples(photos: Photos) -> Samples:
    return Samples(photos, "photos", CLASSES)


def logits_of(net: SwitchableModel, samples: Samples, resolution: int) -> np.ndarray:
    """The logits (N, C) of a path, by a loader of its own."""
    ((views, _),) = evaluation_loader(samples, (resolution,), batch_size=len(samples), workers=0)
    with torch.no_grad():
        image = normalize(views[0], net.source.preprocessing)
        return net.extract(resolution).eval()(image).double().numpy()


def rates(logits: np.ndarray, targets: tuple[int, ...] = TARGETS) -> tuple[float, float]:
    """Top-1 and top-5 in percent, by sorting."""
    order = np.argsort(-logits, axis=1)
    ranks = [list(row).index(target) for row, target in zip(order, targets, strict=True)]
    return 100 * np.mean([r < 1 for r in ranks]), 100 * np.mean([r < 5 for r in ranks])


def shares(result: Evaluation) -> list[tuple[float, float]]:
    """Top-1 and top-5 of every path and of the ensemble; sums of floats depend on the batches, these do not."""
    return [(row.top1, row.top5) for row in (*result.resolutions.values(), result.ensemble) if row is not None]


def test_every_path_and_the_ensemble_are_those_of_numpy(net: SwitchableModel, samples: Samples) -> None:
    found = evaluate(net, samples, (32, 28, 24, 16), batch_size=4, workers=0)
    logits = {r: logits_of(net, samples, r) for r in (32, 28, 24, 16)}
    for r, accuracy in found.resolutions.items():
        assert (accuracy.top1, accuracy.top5) == pytest.approx(rates(logits[r]))
    scores = np.exp(net.alpha.detach().double().numpy())
    mixed = sum(score * logits[r] for score, r in zip(scores / scores.sum(), net.resolutions, strict=True))
    assert found.ensemble is not None
    assert (found.ensemble.top1, found.ensemble.top5) == pytest.approx(rates(mixed))
    assert found.count == 10
    assert len({(a.top1, a.top5) for a in found.resolutions.values()}) > 1, "the paths must differ to tell them apart"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_ensemble_weighs_logits_by_softmax_alpha(
    net: SwitchableModel, samples: Samples, dtype: torch.dtype
) -> None:
    net.to(dtype)
    found = predict({"net": net}, samples, net.resolutions, workers=0, keep_logits=True).answers["net"]
    *logits, ensemble = (answers.logits for answers in found.values())
    scores = np.exp(net.alpha.detach().double().numpy())
    wanted = sum(s * z.double().numpy() for s, z in zip(scores / scores.sum(), logits, strict=True))
    np.testing.assert_allclose(ensemble.double().numpy(), wanted, rtol=1e-4, atol=1e-5)
    assert {z.dtype for z in (*logits, ensemble)} == {torch.promote_types(dtype, torch.float32)}


def test_the_ensemble_follows_alpha(net: SwitchableModel, samples: Samples) -> None:
    for index, resolution in enumerate(net.resolutions):
        net.alpha.data = torch.full((3,), -50.0).index_fill(0, torch.tensor(index), 50.0)
        found = evaluate(net, samples, workers=0)
        row = found.resolutions[resolution]
        assert found.ensemble == replace(row, multiply_adds=None)


def test_every_image_is_read_once_for_all_resolutions(net: SwitchableModel, samples: Samples, photos: Photos) -> None:
    evaluate(net, samples, (32, 30, 28, 24, 20, 16), batch_size=3, workers=0)
    assert photos.reads == Counter(range(10))


def test_resolutions_come_in_the_asked_order_each_once(net: SwitchableModel, samples: Samples) -> None:
    found = evaluate(net, samples, [16, 28, 16, 32, 40], workers=0)
    assert list(found.resolutions) == [16, 28, 32, 40]
    assert [a.interpolated for a in found.resolutions.values()] == [False, True, False, True]
    assert found.ensemble is None, "24 was not asked for"
    assert list(evaluate(net, samples, workers=0).resolutions) == [32, 24, 16]


def test_the_order_of_resolutions_changes_no_result(net: SwitchableModel, samples: Samples) -> None:
    one, other = (evaluate(net, samples, order, workers=0) for order in ((32, 24, 16), (16, 24, 32)))
    assert one.resolutions == other.resolutions
    assert one.ensemble == other.ensemble


def test_worker_processes_change_nothing(net: SwitchableModel, samples: Samples) -> None:
    assert shares(evaluate(net, samples, batch_size=3, workers=2)) == shares(evaluate(net, samples, workers=0))


def test_the_crop_may_differ_by_resolution(
    net: SwitchableModel, samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Any] = []

    def spy(*args: Any, **options: Any) -> Any:
        taken.append(options["crop_pct"])
        return evaluation_loader(*args, **options)

    monkeypatch.setattr("rsconvert.evaluation.subject.evaluation_loader", spy)
    net.source = replace(net.source, preprocessing=Preprocessing(crop_pct=(1.0, 0.9, 0.8)))
    evaluate(net, samples, (16, 17, 26, 40, 24), workers=0)
    assert [round(share, 9) for share in taken[0]] == [0.8, 0.8125, 0.925, 1.0, 0.9]
    net.source = replace(net.source, preprocessing=Preprocessing(crop_pct=(1.0, 0.9)))
    with pytest.raises(ConfigError, match="crop_pct has 2 numbers; 3 are needed"):
        evaluate(net, samples, workers=0)


def test_the_network_is_left_as_it_was(net: SwitchableModel, samples: Samples) -> None:
    net.train()
    net.at(24).bn.eval()
    net.at(32).fc.eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    modes = [m.training for r in net.resolutions for m in net.at(r).modules()]
    rng = torch.get_rng_state()
    evaluate(net, samples, (32, 28, 24), workers=0)
    assert [m.training for r in net.resolutions for m in net.at(r).modules()] == modes
    assert modes.count(False) == 1 + len(net.resolutions)  # they share the classifier
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), rng)


def test_modes_come_back_after_an_error(net: SwitchableModel, photos: Photos) -> None:
    photos.targets = (*TARGETS[:-1], 8)
    with pytest.raises(DataError, match="a target is 8; the network has 8 outputs"):
        evaluate(net, Samples(photos, "photos", None), workers=0)
    assert all(m.training for r in net.resolutions for m in net.at(r).modules())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_network_of_another_precision_gets_its_own_inputs(
    net: SwitchableModel, samples: Samples, dtype: torch.dtype
) -> None:
    seen: set[torch.dtype] = set()
    net.to(dtype)
    net.at(16).register_forward_hook(lambda _, args, out: seen.update((args[0].dtype, out.dtype)))
    found = evaluate(net, samples, workers=0)
    assert seen == {dtype}
    if dtype == torch.float64:
        assert shares(found) == shares(evaluate(net.float(), samples, workers=0))


def test_autocast_computes_in_the_asked_precision(net: SwitchableModel, samples: Samples) -> None:
    seen: list[torch.dtype] = []
    net.at(16).register_forward_hook(lambda _, args, out: seen.append(out.dtype) if len(args[0]) == 10 else None)
    for amp in (torch.bfloat16, "bf16", torch.float32, "off", None):
        evaluate(net, samples, workers=0, amp=amp, device="cpu")
    assert seen == [torch.bfloat16] * 2 + [torch.float32] * 3


def test_no_device_is_the_machine_s_own(net: SwitchableModel, samples: Samples, monkeypatch) -> None:
    asked: list[object] = []

    def choose(name: object) -> torch.device:
        asked.append(name)
        return torch.device("cpu")

    monkeypatch.setattr("rsconvert.evaluation.distributed.choose_device", choose)
    evaluate(net, samples, workers=0)
    assert asked == [None]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"device": "banana"}, "device is 'banana'"),
        ({"amp": "bf8"}, r"amp is 'bf8'; bf16, fp16, off"),
        ({"amp": torch.float64}, r"amp is torch\.float64"),
        ({"batch_size": 2**40}, "batch_size is 1099511627776"),
    ],
)
def test_settings_are_refused_in_one_line(
    net: SwitchableModel, samples: Samples, options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        evaluate(net, samples, workers=0, **options)
    assert "\n" not in str(caught.value)


def test_out_of_memory_is_one_line(net: SwitchableModel, samples: Samples) -> None:
    def full(_: nn.Module, args: tuple[Tensor]) -> None:
        if len(args[0]) > 1:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried\nbacktrace")

    net.at(24).conv.register_forward_pre_hook(full)
    with pytest.raises(
        TrainingError, match=r"^memory ran out.*can't allocate.*Lower batch_size \(it is 64\)"
    ) as caught:
        evaluate(net, samples, workers=0)
    assert "\n" not in str(caught.value)


def test_ctrl_c_takes_effect_after_the_batch(net: SwitchableModel, samples: Samples, photos: Photos) -> None:
    def press(_: nn.Module, args: tuple[Tensor]) -> None:
        if len(args[0]) > 1:
            signal.raise_signal(signal.SIGINT)

    net.at(32).conv.register_forward_pre_hook(press)
    with pytest.raises(KeyboardInterrupt):
        evaluate(net, samples, batch_size=5, workers=0)
    assert photos.reads == Counter(range(5))


def test_one_loader_serves_many_measurements(net: SwitchableModel, samples: Samples) -> None:
    loader = validation_loader(net, samples, batch_size=4, workers=1)
    first = measure(net, loader)
    assert shares(first) == shares(evaluate(net, samples, workers=0))
    net.get_parameter("conv.weight").data.neg_()
    assert shares(measure(net, loader)) == shares(evaluate(net, samples, workers=0)) != shares(first)
    loader.close()


def test_fewer_than_five_classes_are_all_among_the_first_five() -> None:
    net = make_switchable(Tiny(classes=2), (16, 8))
    found = evaluate(net, Samples(Photos((0, 1, 1)), "photos", ("a", "b")), workers=0)
    assert {a.top5 for a in found.resolutions.values()} == {100.0}


def test_a_folder_may_hold_its_images(net: SwitchableModel, tmp_path: Path) -> None:
    for index, name in enumerate(CLASSES):
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.fromarray(Photos().pixels[index]).save(tmp_path / "val" / name / "x.png")
    assert evaluate(net, str(tmp_path), workers=0).count == evaluate(net, tmp_path, workers=0).count == 8
    (tmp_path / "val" / "c" / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"c.x\.png"):
        evaluate(net, str(tmp_path), workers=0)


def test_no_images_no_accuracy(net: SwitchableModel) -> None:
    with pytest.raises(DataError, match="the data holds no images"):
        evaluate(net, Samples(Photos(()), "photos", CLASSES), workers=0)


@pytest.mark.parametrize("resolutions", [[], [0], [-16], ["16"], [True], [2.5]])
def test_malformed_resolutions_are_refused(net: SwitchableModel, samples: Samples, resolutions: Any) -> None:
    with pytest.raises(ResolutionError):
        evaluate(net, samples, resolutions, workers=0)


def test_a_resolution_too_small_is_refused_before_any_image_is_read(
    net: SwitchableModel, samples: Samples, photos: Photos
) -> None:
    with pytest.raises(ResolutionError, match="resolution 2 does not work in Tiny"):
        evaluate(net, samples, [32, 2], workers=0)
    assert not photos.reads


def test_dense_logits_are_refused(samples: Samples) -> None:
    net = make_switchable(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), (16, 8))
    with pytest.raises(UnsupportedModelError, match=r"output is a shape \(10, 8, 14, 14\)"):
        evaluate(net, samples, workers=0)


def test_the_bar_is_on_stderr(net: SwitchableModel, samples: Samples, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(net, samples, workers=0, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "evaluate" in shown.err


def mapped(folder: Path, outputs: tuple[int, ...]) -> Path:
    """A class map of the first classes."""
    path = folder / "map.txt"
    path.write_text("".join(f"{name} {index}\n" for name, index in zip(CLASSES, outputs, strict=False)))
    return path


def test_with_a_map_hits_are_counted_among_its_outputs(net: SwitchableModel, photos: Photos, tmp_path: Path) -> None:
    outputs = (6, 0, 5, 3, 1, 7)
    photos.targets = targets = (0, 1, 2, 3, 4, 5, 0, 1, 2, 3)
    net.source = replace(net.source, num_classes=8)
    samples = Samples(photos, "photos", CLASSES[:6])
    found = evaluate(net, samples, (32, 28, 24, 16), workers=0, class_map=mapped(tmp_path, outputs))
    logits = {r: logits_of(net, samples, r)[:, outputs] for r in (32, 28, 24, 16)}
    for r, accuracy in found.resolutions.items():
        assert (accuracy.top1, accuracy.top5) == pytest.approx(rates(logits[r], targets))
    scores = np.exp(net.alpha.detach().double().numpy())
    mixed = sum(score * logits[r] for score, r in zip(scores / scores.sum(), net.resolutions, strict=True))
    assert found.ensemble is not None
    assert (found.ensemble.top1, found.ensemble.top5) == pytest.approx(rates(mixed, targets))
    assert found != evaluate(net, Samples(photos, "photos", None), (32, 28, 24, 16), workers=0)


@pytest.mark.parametrize("known", [8, None])
def test_a_map_beyond_the_outputs_is_refused(
    net: SwitchableModel, photos: Photos, tmp_path: Path, known: int | None
) -> None:
    photos.targets = (0, 1) * 5
    net.source = replace(net.source, num_classes=known)
    with pytest.raises(DataError, match=r"the class map has the index 8; the network has 8 outputs, so 0 to 7 is"):
        evaluate(net, Samples(photos, "photos", CLASSES[:2]), workers=0, class_map=mapped(tmp_path, (8, 0)))
    with pytest.raises(DataError, match=r"class map .*map.txt needs classes with names"):
        evaluate(net, Samples(photos, "photos", None), workers=0, class_map=mapped(tmp_path, (8, 0)))


@pytest.mark.parametrize("world_size", [3, 12])
def test_processes_that_each_see_a_share_get_the_whole(net: SwitchableModel, samples: Samples, world_size: int) -> None:
    """Three batches: of twelve shares nine are empty."""
    parts: list[list[Tensor]] = []

    def collect(number: Tensor) -> Tensor:
        parts[-1].append(number)
        return torch.ones_like(number)

    for rank in range(world_size):
        loader = validation_loader(net, samples, batch_size=4, workers=0, rank=rank, world_size=world_size)
        parts.append([])
        measure(net, loader, reduce=collect)
    assert {(n.dtype, n.shape) for part in parts for n in part} == {(torch.int64, ()), (torch.int64, (2,))}
    sums = iter([sum(numbers) for numbers in zip(*parts, strict=True)])
    loader = validation_loader(net, samples, batch_size=4, workers=0, rank=world_size - 1, world_size=world_size)
    whole = measure(net, loader, reduce=lambda _: next(sums))
    assert shares(whole) == shares(evaluate(net, samples, workers=0))
    assert whole.count == 10

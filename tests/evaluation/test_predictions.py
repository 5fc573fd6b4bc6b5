"""Every figure of an evaluation again, by NumPy, from the logits; what several processes share."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from torch import Tensor, nn

from rsconvert.data import MaskReading, Pairs, Preprocessing, Samples, Stream, open_split, share_of_batches
from rsconvert.errors import ConfigError, DataError, ResolutionError, UnsupportedModelError
from rsconvert.evaluation import NETWORK, Masks, Processes, evaluate, predict, save_logits, summarize
from rsconvert.evaluation.predictions import check_alike, joined_answers, rounds, whole_order
from rsconvert.evaluation.subject import Answers
from rsconvert.models import Source, set_source
from rsconvert.surgery import SwitchableModel, make_switchable

CLASSES = ("a", "b", "c", "d", "e", "f", "g")
TARGETS = tuple(i % 6 for i in range(23))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.Linear(6, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.bn(self.conv(x)).relu().mean((2, 3)))


class Photos:
    def __init__(self) -> None:
        self.reads = 0
        self.pixels = np.random.default_rng(0).integers(0, 256, (len(TARGETS), 30, 44, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return len(TARGETS)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        self.reads += 1
        return Image.fromarray(self.pixels[index]), TARGETS[index]


def network(seed: int) -> SwitchableModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = make_switchable(Small(), (32, 24))
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


SIZES = (32, 28, 24, (20, 40))


@pytest.fixture
def saved(samples: Samples, tmp_path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The JSON of an evaluation with a plain and a switchable baseline, and its logits out of the file."""
    found = predict(
        {NETWORK: network(1), "other": network(2), "plain": Small()},
        samples,
        SIZES,
        batch_size=5,
        workers=0,
        keep_logits=True,
    )
    save_logits(found, tmp_path / "logits.safetensors")
    facts = json.loads(json.dumps(summarize(found, per_class=True).to_dict()))
    return facts, load_file(tmp_path / "logits.safetensors")


def rows_of(facts: dict[str, Any], name: str) -> dict[str, dict[str, Any]]:
    of = facts if name == NETWORK else facts["baselines"][name]
    return of["resolutions"] | ({"ensemble": of["ensemble"]} if of["ensemble"] else {})


@pytest.mark.parametrize("name", [NETWORK, "other", "plain"])
def test_every_number_of_the_json_follows_from_the_logits(saved: Any, name: str) -> None:
    facts, logits = saved
    targets, rows = logits["targets"], rows_of(facts, name)
    assert tuple(targets) == TARGETS
    assert set(rows) == {"32", "28", "24", "20x40"} | (set() if name == "plain" else {"ensemble"})
    for size, row in rows.items():
        z = logits[f"{name}/{size}"].astype(np.float64)
        order = np.argsort(-z, axis=1)
        right = order[:, 0] == targets
        assert row["top1"] == pytest.approx(100 * right.mean())
        assert row["top5"] == pytest.approx(100 * (order[:, :5] == targets[:, None]).any(1).mean())
        p = np.exp(z - z.max(1, keepdims=True))
        sure = (p / p.sum(1, keepdims=True)).max(1)
        place = np.ceil(sure * 15)
        gaps = [abs((right[place == b] - sure[place == b]).sum()) for b in range(1, 16)]
        assert row["calibration_error"] == pytest.approx(100 * sum(gaps) / len(z), rel=1e-4)
        n, rate, z2 = len(z), right.mean(), 1.959963984540054**2
        ends = np.roots([1 + z2 / n, -(2 * rate + z2 / n), rate**2])
        assert row["top1_interval"] == pytest.approx(sorted(100 * ends), abs=1e-6)
        by_class = [100 * right[targets == c].mean() if (targets == c).any() else None for c in range(7)]
        assert row["per_class"] == pytest.approx(by_class)
        if name != NETWORK and f"{NETWORK}/{size}" in logits:
            own = logits[f"{NETWORK}/{size}"].argmax(1) == targets
            assert row["paired"]["only_network"] == (own & ~right).sum()
            assert row["paired"]["only_baseline"] == (~own & right).sum()


def test_the_ensemble_follows_from_the_paths(saved: Any) -> None:
    _, logits = saved
    scores = np.exp(network(2).alpha.detach().numpy())
    mixed = (scores[0] * logits["other/32"] + scores[1] * logits["other/24"]) / scores.sum()
    np.testing.assert_allclose(logits["other/ensemble"], mixed, rtol=1e-5, atol=1e-6)


def test_classes_and_interpolation_are_told(saved: Any) -> None:
    facts, _ = saved
    assert facts["classes"] == list(CLASSES)
    assert [row["interpolated"] for row in facts["resolutions"].values()] == [False, True, False, True]
    assert not any(row["interpolated"] for row in facts["baselines"]["plain"]["resolutions"].values())
    assert facts["baselines"]["plain"]["ensemble"] is None


def test_a_pair_is_a_height_and_a_width(samples: Samples) -> None:
    seen: list[tuple[int, ...]] = []
    model = Small()
    model.register_forward_hook(lambda _, args, __: seen.append(tuple(args[0].shape)))
    predict({"plain": model}, samples, [(20, 40), 16], batch_size=23, workers=0)
    assert seen[-2:] == [(23, 3, 20, 40), (23, 3, 16, 16)]


def test_networks_that_see_alike_share_the_decoding(samples: Samples, photos: Photos) -> None:
    predict({"a": network(1), "b": network(2), "c": Small()}, samples, [32], workers=0)
    assert photos.reads == len(TARGETS)


def test_each_network_sees_its_own_preprocessing(samples: Samples, photos: Photos) -> None:
    model = Small().eval()
    set_source(model, Source(preprocessing=Preprocessing(crop_pct=1.0, mean=(0.5,) * 3, std=(0.5,) * 3)))
    together = predict({"net": network(1), "plain": model}, samples, [32], workers=0, keep_logits=True)
    assert photos.reads == 2 * len(TARGETS), "another crop is another view"
    alone = predict({"plain": model}, samples, [32], workers=0, keep_logits=True)
    assert torch.equal(together.answers["plain"][32].logits, alone.answers["plain"][32].logits)
    assert list(together.answers) == ["net", "plain"]


def test_a_baseline_may_not_bear_the_network_s_name(samples: Samples) -> None:
    with pytest.raises(ConfigError, match="a baseline is named network"):
        evaluate(network(1), samples, baselines={"network": Small()}, workers=0)


def test_an_error_names_the_network(samples: Samples) -> None:
    few = Small()
    set_source(few, Source(num_classes=3))
    with pytest.raises(DataError, match=r"^few: the data has 7 classes, the classifier 3 outputs"):
        evaluate(network(1), samples, baselines={"few": few}, workers=0)
    with pytest.raises(ResolutionError, match=r"^plain: resolution 2 does not work"):
        predict({"plain": Small(), "net": network(1)}, samples, [2], workers=0)


CPU = torch.device("cpu")


def unread(count: int) -> Samples:
    return Samples([(b"", 0)] * count, "photos", ("a",))


def answered(*others: Any) -> Callable[..., list[Any]]:
    """A meeting with processes that bring these values."""
    return lambda value=None: [value, *others]


@pytest.mark.parametrize("count", [1, 5, 6, 7, 12, 13])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_shares_hold_the_batches_of_one_process_and_each_image_once(count: int, world_size: int) -> None:
    batches = [list(range(start, min(start + 3, count))) for start in range(0, count, 3)]
    shares = [share_of_batches(count, 3, rank=rank, world_size=world_size) for rank in range(world_size)]
    for rank, share in enumerate(shares):
        own = [share[start : start + 3] for start in range(0, len(share), 3)]
        assert own == batches[rank::world_size]
        assert len(own) <= rounds(count, 3, Processes(rank, world_size, CPU))
    assert rounds(count, 3, Processes(0, world_size, CPU)) == len(batches[::world_size])
    together = torch.tensor([index for share in shares for index in share])
    assert together[whole_order(count, 3, Processes(0, world_size, CPU))].tolist() == list(range(count))


def test_answers_are_joined_in_the_order_of_the_data() -> None:
    """Five images in batches of two: the first process has 0, 1 and 4, the second 2 and 3."""
    logits = torch.eye(5) + torch.arange(5.0)[:, None]
    targets = torch.tensor([0, 1, 2, 4, 4])
    whole = Answers.of(logits, targets, keep_logits=True)
    parts = [whole.taken(torch.tensor(share)) for share in ([0, 1, 4], [2, 3])]
    for rank in (0, 1):
        processes = Processes(rank, 2, CPU)
        found = joined_answers({32: parts[0]}, whole_order(5, 2, processes), processes, answered(parts[1]))[32]
        assert torch.equal(found.best, whole.best)
        assert torch.equal(found.confidence, whole.confidence)
        assert torch.equal(found.among_five, whole.among_five)
        assert (found.logits is None) == (rank == 1), "the first process alone holds the logits"
        assert rank == 1 or torch.equal(found.logits, logits)


def test_what_processes_hold_must_be_the_same() -> None:
    pair, net = Processes(0, 2, CPU), nn.BatchNorm2d(2)
    same = {"network": "another digest"}
    with pytest.raises(DataError, match=r"see different images \(6, 7 of them\)"):
        check_alike({"network": net}, unread(6), pair, answered((7, ("a",))))
    told = iter([[(6, ("a",))] * 2, [same, same]])
    check_alike({"network": net}, unread(6), pair, lambda value: next(told))
    told = iter([[(6, ("a",))] * 2, [same, {"network": "one more"}]])
    with pytest.raises(ConfigError, match=r"^network has other values in one process than in another"):
        check_alike({"network": net}, unread(6), pair, lambda value: next(told))


def test_a_stream_is_read_by_one_process() -> None:
    stream = Stream.__new__(Stream)
    stream.label = "wds/ validation"
    with pytest.raises(DataError, match=r"^wds/ validation can only be read in order; 2 processes share images by"):
        check_alike({}, stream, Processes(0, 2, CPU), answered())
    check_alike({}, stream, Processes(0, 1, CPU), answered())


def test_a_split_by_its_name_and_some_classes_by_theirs(tmp_path: Path, tiny: Callable[..., Any]) -> None:
    for name, grey in (("test/c/1.png", 0), ("test/c/2.png", 9), ("test/a/1.png", 90)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 24), (grey,) * 3).save(tmp_path / name)
    net = make_switchable(tiny(classes=3), (24, 16))
    net.source = replace(net.source, num_classes=3)
    with pytest.raises(DataError, match="the data has 2 classes, the classifier 3 outputs"):
        predict({"": net}, tmp_path, (24,), workers=0, split="test")
    net.source = replace(net.source, class_names=("a", "b", "c"))
    found = predict({"": net}, tmp_path, (24,), workers=0, split="test")
    assert found.targets.tolist() == [0, 2, 2]
    assert found.classes == ("a", "b", "c")
    assert predict({"": net}, tmp_path / "test", (24,), workers=0).targets.tolist() == [0, 2, 2]
    with pytest.raises(ConfigError, match="split is test, which has no effect on opened samples"):
        predict({"": net}, open_split(str(tmp_path), "test"), (24,), split="test")


class Dense(nn.Module):
    """Logits of four classes for each position."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, classes, 3, padding=1), nn.BatchNorm2d(classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


def pairs(folder: Path, ignored: int) -> Pairs:
    """Three drawn images, their masks of random classes and of what is ignored."""
    rng, places = np.random.default_rng(0), []
    for number in range(3):
        image, mask = folder / f"{number}.png", folder / f"{number}_mask.png"
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(image)
        Image.fromarray(rng.choice(np.array([0, 1, 2, ignored], np.uint8), (20, 30))).save(mask)
        places.append((image.read_bytes(), mask.read_bytes()))
    return Pairs(places, "pairs", None, MaskReading(classes=4, ignore_index=ignored))


@pytest.mark.parametrize("ignored", [0, 255])
def test_the_masks_say_what_all_networks_ignore(tmp_path: Path, ignored: int) -> None:
    torch.manual_seed(0)
    net = make_switchable(Dense(), (16, 8), task={"name": "segmentation", "ignore_index": 0})
    other = make_switchable(net.extract(16), (16, 8), task="segmentation")
    found = evaluate(net, pairs(tmp_path, ignored), baselines={"other": other}, workers=0)
    assert found.baselines["other"].resolutions[16].score == found.resolutions[16].score


def test_each_network_fills_masks_up_with_its_own_colour(tmp_path: Path) -> None:
    net = make_switchable(Dense(), (16, 8), task="segmentation")
    dark = make_switchable(Dense(), (16, 8), task="segmentation")
    dark.source = replace(dark.source, preprocessing=Preprocessing(mean=(0.0,) * 3))
    samples, masks = pairs(tmp_path, 255), Masks(resize="pad")
    together = predict({"net": net, "dark": dark}, samples, (16, 8), masks=masks, workers=0)
    alone = predict({"dark": dark}, samples, (16, 8), masks=masks, workers=0)
    assert torch.equal(together.overlaps["dark"][16].counts, alone.overlaps["dark"][16].counts)


def test_one_number_for_each_position_is_refused(tmp_path: Path) -> None:
    net = make_switchable(Dense(1), (16, 8), task="segmentation")
    with pytest.raises(UnsupportedModelError, match="one number for each position; logits of at least two"):
        evaluate(net, pairs(tmp_path, 255), workers=0)

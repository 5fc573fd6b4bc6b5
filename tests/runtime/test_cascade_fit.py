"""fit_cascade: its figures by NumPy out of the logits of every path; what it stores, and what drops it."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import rsconvert
from rsconvert.checkpoint import read_metadata, subset
from rsconvert.data import Samples, Stream, normalize
from rsconvert.errors import DataError, ResolutionError
from rsconvert.evaluation import multiply_adds, predict, validation_loader
from rsconvert.evaluation.uncertainty import mcnemar
from rsconvert.runtime import fit_cascade
from rsconvert.runtime.cascade_fit import halves
from rsconvert.runtime.cascade_report import CascadeReport
from rsconvert.surgery import SwitchableModel, make_switchable

TRIED = (48, 32, 24)
TARGETS = tuple(i % 5 for i in range(40))


class Photos:
    """Noise photos, each class with a brightness of its own."""

    def __init__(self) -> None:
        noise = np.random.default_rng(0).integers(0, 120, (len(TARGETS), 56, 56, 3))
        self.pixels = (noise + 30 * np.array(TARGETS)[:, None, None, None]).astype(np.uint8)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return Image.fromarray(self.pixels[index]), TARGETS[index]


@pytest.fixture
def samples() -> Samples:
    return Samples(Photos(), "photos", tuple("abcde"))


@pytest.fixture(scope="module")
def made() -> SwitchableModel:
    """test_efficientnet for 5 classes at 48, 32 and 24, whose sets differ, with confidences far apart."""
    torch.manual_seed(0)
    net = make_switchable(rsconvert.create_model("test_efficientnet", num_classes=5), TRIED)
    rsconvert.calibrate(net, Samples(Photos(), "photos", None), TRIED, workers=0)
    return net.train()


@pytest.fixture
def net(made: SwitchableModel) -> SwitchableModel:
    return copy.deepcopy(made)


@pytest.fixture
def report(net: SwitchableModel, samples: Samples) -> CascadeReport:
    return fit_cascade(net, samples, resolutions=TRIED, seed=3, workers=0, batch_size=7)


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def composed(logits: dict[int, np.ndarray], facts: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The answer of each image and the resolution that gave it, by the thresholds in plain data."""
    stages, limits = facts["stages"], [*facts["thresholds"], -1]
    sure = np.stack([softmax(logits[r]).max(1) >= limit for r, limit in zip(stages, limits, strict=True)])
    which = sure.argmax(0)
    answers = np.stack([logits[r].argmax(1) for r in stages])[which, np.arange(len(which))]
    return answers, np.array(stages)[which]


def test_the_halves_share_each_class_and_no_image() -> None:
    targets = torch.tensor([0] * 10 + [1] * 4 + [2] * 6)[torch.randperm(20)]
    first, second = halves(targets, 1)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(20))
    assert first.tolist() == sorted(first.tolist())
    assert torch.bincount(targets[first]).tolist() == torch.bincount(targets[second]).tolist() == [5, 2, 3]
    assert not torch.equal(first, halves(targets, 2)[0])
    assert torch.equal(first, halves(targets, 1)[0])


def test_every_figure_follows_from_the_logits(net: SwitchableModel, samples: Samples, report: CascadeReport) -> None:
    facts = json.loads(json.dumps(report.to_dict()))
    found = predict({"network": net}, samples, TRIED, workers=0, keep_logits=True)
    logits = {r: found.answers["network"][r].logits.numpy() for r in TRIED}
    targets = np.array(TARGETS)
    first, second = (part.numpy() for part in halves(found.targets, 3))
    for r in TRIED:
        right = logits[r].argmax(1) == targets
        path = facts["paths"][str(r)]
        top1 = [100 * right[part].mean() for part in (first, second)]
        assert [path["top1_fit"], path["top1"]] == pytest.approx(top1)
        assert (path["multiply_adds"], path["interpolated"]) == (multiply_adds(net.at(r), r), False)
        assert path["milliseconds"] > 0
    assert facts["aim"] == {"top1": max(path["top1_fit"] for path in facts["paths"].values())}
    answers, where = composed(logits, facts)
    costs = np.cumsum([facts["paths"][str(r)]["multiply_adds"] for r in facts["stages"]])
    spent = dict(zip(facts["stages"], costs, strict=True))
    cost = np.array([spent[r] for r in where])
    assert facts["fit"] == pytest.approx(
        {"count": 20, "top1": 100 * (answers == targets)[first].mean(), "multiply_adds": cost[first].mean()}
    )
    assert facts["measured"]["top1_own_views"] == pytest.approx(100 * (answers == targets)[second].mean())


def test_the_measured_half_runs_on_one_view(net: SwitchableModel, samples: Samples, report: CascadeReport) -> None:
    facts, net = report.to_dict(), net.eval()
    (views, targets), *_ = validation_loader(net, samples, [48], batch_size=40, workers=0)
    image = normalize(views[0], net.source.preprocessing)
    with torch.no_grad():
        logits = {r: net.at(r)(resized(image, r)).numpy() for r in TRIED}
    answers, where = composed(logits, facts)
    second = halves(targets, 3)[1].numpy()
    right = (answers == targets.numpy())[second]
    done = facts["measured"]
    assert (done["count"], done["top1"]) == (20, pytest.approx(100 * right.mean()))
    assert done["answered"] == pytest.approx({str(r): 100 * (where[second] == r).mean() for r in facts["stages"]})
    costs = np.cumsum([facts["paths"][str(r)]["multiply_adds"] for r in facts["stages"]])
    shares = np.array(list(done["answered"].values())) / 100
    assert done["multiply_adds"] == pytest.approx((costs * shares).sum())
    found = predict({"network": net}, samples, TRIED, workers=0)
    for r in TRIED:
        single = found.right("network", r).numpy()[second]
        pair = (int((right & ~single).sum()), int((single & ~right).sum()))
        figures = {"only_network": pair[0], "only_baseline": pair[1], "p_value": mcnemar(*pair)}
        assert facts["pairs"][str(r)] == figures
    assert facts["paired"] == facts["pairs"][str(facts["best"]["resolution"])]


def resized(image: Tensor, resolution: int) -> Tensor:
    if resolution == image.shape[-1]:
        return image
    return F.interpolate(image, (resolution, resolution), mode="bilinear", antialias=True)


def test_the_rest_of_the_network_stays(net: SwitchableModel, samples: Samples) -> None:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.at(32).eval()
    modes = [m.training for r in TRIED for m in net.at(r).modules()]
    fit_cascade(net, samples, resolutions=TRIED, workers=0)
    assert modes == [m.training for r in TRIED for m in net.at(r).modules()]
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_it_is_stored_and_runs_again(net: SwitchableModel, report: CascadeReport, tmp_path: Path) -> None:
    rsconvert.save(net, tmp_path / "net.safetensors")
    stored = read_metadata(tmp_path / "net.safetensors").fields["cascade"]
    assert stored == json.loads(json.dumps(report.record()))
    again = rsconvert.load(tmp_path / "net.safetensors").eval()
    assert again.measured.cascade == net.measured.cascade
    images = torch.randn(4, 3, 48, 48)
    expected = rsconvert.cascade(net.eval(), images)
    assert torch.equal(rsconvert.cascade(again, images).logits, expected.logits)


def step(net: SwitchableModel) -> None:
    """One step of a loop that knows nothing of rsconvert."""
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    net.at(32)(torch.randn(2, 3, 32, 32)).square().sum().backward()
    optimizer.step()


CHANGES: dict[str, Callable[[SwitchableModel, Samples], SwitchableModel | None]] = {
    "calibrate": lambda net, samples: rsconvert.calibrate(net, samples, images=9, workers=0) and None,
    "a step": lambda net, _: step(net),
    "reset_classifier": lambda net, _: net.reset_classifier(5),
    "subset": lambda net, _: subset(net, [48, 32]),
    "make_switchable": lambda net, _: make_switchable(net.extract(48), TRIED),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_changed_network_has_none(net: SwitchableModel, samples: Samples, report: CascadeReport, change: str) -> None:
    assert net.measured.cascade is not None
    changed = CHANGES[change](net, samples) or net
    assert changed.measured.cascade is None


def test_a_map_tells_which_outputs_count(net: SwitchableModel, samples: Samples, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(json.dumps(dict(zip("abcde", (4, 3, 2, 1, 0), strict=True))))
    report = fit_cascade(net, samples, resolutions=TRIED, workers=0, class_map=tmp_path / "map.json")
    assert (net.measured.cascade or {})["outputs"] == [4, 3, 2, 1, 0]
    found = predict({"network": net}, samples, TRIED, workers=0, class_map=tmp_path / "map.json")
    second = halves(found.targets, 0)[1]
    assert report.paths[24].top1 == pytest.approx(100 * found.right("network", 24)[second].double().mean())
    rsconvert.save(net, tmp_path / "net.safetensors")
    assert (rsconvert.load(tmp_path / "net.safetensors").measured.cascade or {})["outputs"] == [4, 3, 2, 1, 0]


def test_trained_paths_and_those_between_are_tried(samples: Samples, tiny: type[nn.Module]) -> None:
    torch.manual_seed(0)
    net = make_switchable(tiny(), (56, 16))
    report = fit_cascade(net, samples, multiply_adds=1e9, workers=0)
    assert list(report.paths) == [56, 48, 32, 16]
    assert [path.interpolated for path in report.paths.values()] == [False, True, True, False]
    assert report.aim == {"multiply_adds": 1e9}


def test_what_can_not_be_fitted_is_refused(net: SwitchableModel, samples: Samples, tiny: type[nn.Module]) -> None:
    with pytest.raises(ResolutionError, match="resolutions is 48 alone"):
        fit_cascade(net, samples, resolutions=[48], workers=0)
    with pytest.raises(ResolutionError, match="resolutions is 64 alone"):
        fit_cascade(make_switchable(tiny(), [64]), samples, workers=0)
    with pytest.raises(DataError, match="holds 1 images"):
        fit_cascade(net, samples.subset([0]), workers=0)
    with pytest.raises(DataError, match="stream"):
        fit_cascade(net, Stream.__new__(Stream), workers=0)
    net.at(48).get_classifier().bias.data.fill_(torch.nan)
    with pytest.raises(DataError, match="equally sure"):
        fit_cascade(net, samples, resolutions=TRIED, workers=0)
    assert net.measured.cascade is None

"""A small U-Net on drawn shapes: three sizes learn together, and the smallest gains on the network of the largest."""

import csv
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

import rsconvert
import rsconvert.data
import rsconvert.evaluation
from rsconvert import FinetuneConfig
from rsconvert.export import export_onnx, verify_export
from rsconvert.runtime import fit_cascade
from rsconvert.surgery import SwitchableModel
from rsconvert.training import MREDTask
from rsconvert.training.step import Objective, Teacher
from rsconvert.training.step.gradients import backward, backward_by_view
from rsconvert.training.step.optimizer import parameter_groups

SIZES = (64, 48, 24)


class Block(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class UNet(nn.Module):
    """Three levels; logits at the input's size, in a dictionary, with an auxiliary output in train mode."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.encoder = nn.ModuleList([Block(3, 8), Block(8, 16, 2), Block(16, 32, 2)])
        self.decoder = nn.ModuleList([Block(48, 16), Block(24, 12)])
        self.head, self.side = nn.Conv2d(12, classes, 1), nn.Conv2d(16, classes, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        levels = [image]
        for block in self.encoder:
            levels.append(block(levels[-1]))
        x = sides = levels[3]
        for i, block in enumerate(self.decoder):
            skip = levels[2 - i]
            x = block(torch.cat([F.interpolate(x, skip.shape[-2:], mode="nearest"), skip], 1))
            sides = self.side(x) if i == 0 else sides
        return {"mask": self.head(x), **({"side": sides} if self.training else {})}


def draw(folder: Path, count: int, seed: int, width: int = 72, height: int = 64) -> None:
    """Discs and squares, whose stripes say the class: of 6 pixels 1, of 16 pixels 2; a corner is unknown (255).

    At 24 pixels the wide stripes look as the narrow ones do at 64.
    """
    rng = np.random.default_rng(seed)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rows = np.arange(height)[:, None, None] * np.ones((1, width, 1))
    for number in range(count):
        pixels = rng.normal(120, 8, (height, width, 3))
        mask = np.zeros((height, width), np.uint8)
        for kind, period in ((1, 6), (2, 16)):
            shape = Image.new("1", (width, height))
            side, phase = int(rng.integers(26, 34)), rng.uniform(0, 6)
            x, y = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
            pen = ImageDraw.Draw(shape)
            (pen.ellipse if rng.integers(2) else pen.rectangle)((x, y, x + side, y + side), fill=1)
            inside = np.asarray(shape)
            pixels = np.where(inside[..., None], 128 + 100 * np.sin(2 * np.pi * rows / period + phase), pixels)
            mask[inside] = kind
        mask[:5, :5] = 255
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{number:03d}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number:03d}.png")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    draw(folder / "train", 48, 0)
    draw(folder / "val", 16, 1)
    return folder


def network(sizes: tuple[int, ...] = SIZES) -> SwitchableModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = UNet()
    task = rsconvert.Task(name="segmentation", output="mask", auxiliary={"side": 0.4})
    return rsconvert.make_switchable(model, sizes, task=task)


CONFIG = FinetuneConfig(
    epochs=8, batch_size=8, lr=0.1, workers=0, crop_area=(0.5, 1.0), poly_power=0.9, schedule="poly", device="cpu"
)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[SwitchableModel, Path]:
    net, run = network(), tmp_path_factory.mktemp("run") / "run"
    with pytest.warns(rsconvert.NamelessModelWarning):
        rsconvert.finetune(net, data, run, CONFIG)
    return net, run


def test_the_smallest_size_gains_on_that_of_the_largest(trained: tuple[SwitchableModel, Path], data: Path) -> None:
    net, _ = trained
    alone = network((64,))
    rsconvert.finetune(alone, data, None, CONFIG)
    found = rsconvert.evaluate(net, data, (*SIZES, 32), baselines={"I-64": alone}, workers=0, per_class=True)
    own, other = found.resolutions[24].score, found.baselines["I-64"].resolutions[24].score
    assert own > other + 10
    assert found.baselines["I-64"].resolutions[24].differs
    assert found.resolutions[32].interpolated
    assert found.ensemble is not None


def test_one_onnx_file_gives_the_masks_of_every_size(trained: tuple[SwitchableModel, Path], tmp_path: Path) -> None:
    """In ONNX Runtime: the numbers of the masks agree with the network's at trained and interpolated sizes."""
    net, _ = trained
    found = verify_export(export_onnx(net, tmp_path / "shapes.onnx", compact=True), net, (*SIZES, 32))
    assert found.passed
    assert set(found.sizes) >= {"64", "48", "24", "32"}


def test_the_summary_holds_the_scores_of_masks(trained: tuple[SwitchableModel, Path]) -> None:
    _, run = trained
    rows = list(csv.DictReader((run / "summary.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == CONFIG.epochs
    for name in ("miou_64", "pixel_accuracy_48", "mean_accuracy_24", "miou_ensemble"):
        assert 0 < float(rows[-1][name]) <= 100
    assert "top1_64" not in rows[0]
    scores = [sum(float(row[f"miou_{r}"]) for r in SIZES) for row in rows]
    best = rsconvert.load(run / "best.safetensors", UNet())
    assert best.source.training is not None
    assert best.source.training["epoch"] == 1 + scores.index(max(scores))
    assert best.source.task == rsconvert.Task(name="segmentation", output="mask", auxiliary={"side": 0.4})


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images to train and two to test."""
    folder = tmp_path_factory.mktemp("few")
    draw(folder / "train", 4, 2)
    draw(folder / "val", 2, 3)
    return folder


SHORT = FinetuneConfig(epochs=2, batch_size=2, lr=0.01, workers=0, warmup_epochs=0, device="cpu")


def test_a_run_on_native_grids_resumes_to_the_bit(few: Path, tmp_path: Path) -> None:
    config = replace(SHORT, loss_grid="native", low_memory=True, views="sandwich", resize="pad", label_offset=0)
    whole, broken = network((32, 24, 16)), network((32, 24, 16))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rsconvert.NamelessModelWarning)
        rsconvert.finetune(whole, few, tmp_path / "whole", config)

        def stop(row: object) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            rsconvert.finetune(broken, few, tmp_path / "broken", config, on_epoch=stop)
        again = network((32, 24, 16))
        result = rsconvert.finetune(again, few, tmp_path / "broken", config, resume=True)
    assert [row["epoch"] for row in result] == [1, 2]
    own, other = whole.state_dict(), again.state_dict()
    assert all(torch.equal(own[key], other[key]) for key in own)


def test_auxiliary_outputs_learn_alike_view_by_view(few: Path) -> None:
    gradients = []
    target = torch.randint(3, (2, 32, 32), generator=torch.Generator().manual_seed(0))
    views = [torch.randn(2, 3, r, r, generator=torch.Generator().manual_seed(r)) for r in (32, 24)]
    for run in (backward, backward_by_view):
        net = network((32, 24)).double()
        objective = Objective(net, SHORT).train()
        doubled = [view.double() for view in views]
        call = (objective, objective) if run is backward else (objective,)
        loss = run(*call, doubled, target, lambda total: total)  # type: ignore[operator]
        gradients.append({name: p.grad for name, p in net.named_parameters()})
        side = net.at(32)(doubled[0])["side"].detach()
    assert gradients[0]["side.weight"].abs().sum() > 0
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-9, atol=1e-12)
    assert side.shape == (2, 3, 16, 16)
    plain = network((32, 24)).double()
    plain.source = replace(plain.source, task=rsconvert.Task(name="segmentation", output="mask"))
    own = Objective(plain, SHORT).train()([view.double() for view in views], target)
    full = Objective(network((32, 24)).double(), SHORT).train()
    logits = [full.logits(i, view.double()) for i, view in enumerate(views)]
    extra = sum(
        F.cross_entropy(F.interpolate(z[1], (32, 32), mode="bilinear"), target) * weight
        for z, weight in zip(logits, (0.4, 0.4), strict=True)
    )
    assert loss.total.item() == pytest.approx((own.total + extra).item())


def test_frozen_statistics_stay_and_their_scales_learn(few: Path) -> None:
    net = network((32, 16))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    rsconvert.finetune(net, few, None, replace(SHORT, epochs=1, bn_statistics="frozen", encoder_lr=0.1))
    after = net.state_dict()
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert not any("running" in name or "num_batches" in name for name in moved)
    assert {"encoder.0.1.weight", "encoder.0.1.at.16.weight", "head.weight"} <= moved


def test_the_encoder_has_a_rate_of_its_own() -> None:
    net = network((32, 16))
    groups = parameter_groups(net, replace(SHORT, encoder_lr=0.1))
    scales = {id(p): group.get("lr_scale") for group in groups for p in group["params"]}
    named = dict(net.named_parameters())
    slow = {name for name, p in named.items() if scales.get(id(p)) == 0.1}
    assert slow == {name for name in named if name.startswith("encoder.")}


def test_statistics_are_estimated_on_the_images_alone(few: Path) -> None:
    net = network((32, 16))
    report = rsconvert.calibrate(net, few, workers=0, device="cpu")
    assert report.images == 4
    whole = rsconvert.data.open_pairs(str(few), "train", rsconvert.data.MaskReading())
    images = [whole.open_pair(i)[0].decode() for i in range(4)]  # type: ignore[union-attr]
    views = [F.interpolate(image[None], (16, 16), mode="bilinear", antialias=True) for image in images]
    x = rsconvert.data.normalize(torch.cat(views), net.source.preprocessing)
    inputs = net.at(16).get_submodule("encoder.0.0")(x)
    statistics = net.get_buffer("encoder.0.1.at.16.running_mean")
    torch.testing.assert_close(statistics, inputs.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"mixup": 0.2}, "mixup is 0.2, for which masks have no meaning; segmentation takes none alone"),
        ({"crop": "per-view"}, "crop is per-view, .*; segmentation takes shared alone"),
        ({"labels": "none"}, "labels is none, .*; segmentation takes data alone"),
        ({"class_names": "none.txt"}, "class names none.txt can't be read"),
        ({"label_offset": -5}, "has the value 0; 0 to 2 after the label offset -5"),
        ({"probe_epochs": 1}, "logits"),
    ],
)
def test_settings_that_masks_do_not_take_are_one_line(few: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(rsconvert.RSConvertError, match=told) as caught:
        rsconvert.finetune(network((32, 16)), few, None, replace(SHORT, **settings))
    assert "\n" not in str(caught.value)


def test_masks_without_a_labelled_position_are_told(tmp_path: Path) -> None:
    for split in ("train", "val"):
        draw(tmp_path / split, 2, 0)
        for mask in (tmp_path / split / "masks").iterdir():
            Image.new("L", (72, 64), 255).save(mask)
    with pytest.raises(rsconvert.DataError, match="the masks label no position"):
        rsconvert.finetune(network((32, 16)), tmp_path, None, SHORT)
    with pytest.raises(rsconvert.DataError, match="the masks label no position"):
        rsconvert.evaluate(network((32, 16)), tmp_path, workers=0)


def test_class_folders_and_settings_of_masks_do_not_fit_together(make_net: Any, few: Path, tmp_path: Path) -> None:
    with pytest.raises(rsconvert.ConfigError, match="loss_grid is native and has no effect"):
        rsconvert.finetune(make_net(), tmp_path, None, replace(SHORT, loss_grid="native"))
    masks = rsconvert.evaluation.Masks(label_offset=1)
    with pytest.raises(rsconvert.ConfigError, match="label_offset is 1 and has no effect"):
        rsconvert.evaluate(make_net(), tmp_path, masks=masks)
    with pytest.raises(rsconvert.ConfigError, match="different tasks: other classification, network segmentation"):
        rsconvert.evaluate(network((32, 16)), few, baselines={"other": make_net()})


def test_another_network_teaches_in_the_place_of_the_ensemble(few: Path) -> None:
    net = network((32, 16))
    teacher = Teacher(UNet(), net.source.preprocessing, net.source.preprocessing, torch.device("cpu"), net.source.task)
    view = torch.randn(2, 3, 32, 32)
    assert teacher(view).shape == (2, 3, 32, 32)
    views, target = [view, torch.randn(2, 3, 16, 16)], torch.ones(2, 32, 32).long()
    loss = Objective(net, SHORT, teacher=teacher).train()(views, target)
    assert loss.total.isfinite()


def test_what_needs_one_class_per_image_says_so(few: Path) -> None:
    net = network((32, 16))
    with pytest.raises(rsconvert.UnsupportedModelError, match="a cascade needs one prediction for each image"):
        fit_cascade(net, few)
    found = rsconvert.evaluation.predict({"net": net}, few, (32, 16), workers=0)
    with pytest.raises(rsconvert.UnsupportedModelError, match="net gives masks, which are right in part"):
        found.right("net", 32)
    with pytest.raises(rsconvert.ConfigError, match="MREDTask trains on one class per image"):
        MREDTask(net)
    with pytest.raises(rsconvert.ConfigError, match="logits are kept of one class per image"):
        rsconvert.evaluation.predict({"net": net}, few, (32, 16), workers=0, keep_logits=True)


def test_a_changed_mask_is_another_run(few: Path, tmp_path: Path) -> None:
    shutil.copytree(few, tmp_path / "data")
    before = rsconvert.data.open_pairs(str(few), "train", rsconvert.data.MaskReading()).fingerprint()
    copied = rsconvert.data.open_pairs(str(tmp_path / "data"), "train", rsconvert.data.MaskReading())
    assert copied.fingerprint() == before
    Image.new("L", (72, 64), 1).save(tmp_path / "data" / "train" / "masks" / "000.png")
    assert copied.fingerprint() != before

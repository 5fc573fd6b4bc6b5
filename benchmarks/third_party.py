"""Converts networks of third-party packages, which are installed alongside rsconvert, and prints a row for each.

    python benchmarks/third_party.py > benchmarks/third_party.md
    python benchmarks/third_party.py --only monai,yolo --debug

Nothing is installed or downloaded: weights are random, and a package that is absent is named and skipped. For each
network: the outputs of every path against the source's, bit for bit in eval mode; the file, loaded around a new plain
model; a deepcopy; a training step at both sizes. The exit status is 1 if something failed.
"""

import argparse
import contextlib
import copy
import importlib.metadata
import io
import os
import platform
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rsconvert
from rsconvert import SwitchableModel

COLUMNS = ("package", "version", "network", "BatchNorms", "exact", "save, load", "deepcopy", "step", "remark")
GLOBAL_POOLING = "AdaptiveAvgPool2d(1) in place of a fixed window"
Build = Callable[[int], nn.Module]


@dataclass(frozen=True)
class Case:
    """A network of a package, and what its input looks like."""

    package: str
    name: str
    make: Callable[[], nn.Module]
    sizes: tuple[int, int] = (96, 64)
    channels: int = 3
    dimensions: int = 2
    build: Build | None = None
    remark: str = ""

    def image(self, side: int) -> Tensor:
        """Return two images, of a seed."""
        generator = torch.Generator().manual_seed(side)
        return torch.rand(2, self.channels, *(side,) * self.dimensions, generator=generator)

    def converted(self, model: nn.Module) -> SwitchableModel:
        """Return the network of a model; an input that is no RGB image is shown to it."""
        ordinary = (self.channels, self.dimensions) == (3, 2)
        example = None if ordinary else lambda side: (self.image(side),)
        return rsconvert.make_switchable(model, self.sizes, build=self.build, example=example)


@dataclass
class Row:
    """What came of it, column by column."""

    cells: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return "**no**" in self.cells.values()


def main() -> int:
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    cases = [case for make in CATALOG for case in make()]
    chosen = [case for case in cases if options.only is None or any(f"{w}" in told(case) for w in options.only)]
    absent = sorted({case.package for case in chosen if version_of(case.package) is None})
    print(head(), flush=True)
    failed = done = 0
    for case in chosen:
        if case.package not in absent:
            row = checked(case, debug=options.debug)
            failed, done = failed + row.failed, done + 1
            print(f"| {' | '.join([*row.cells.values(), '; '.join(row.remarks)])} |", flush=True)
    print(f"\n{done} networks, {failed} with a failure." + (f" Not installed: {', '.join(absent)}." if absent else ""))
    return 1 if failed else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--only", type=lambda text: text.lower().split(","), help="words of packages and networks")
    parser.add_argument("--threads", type=int, default=1, help="(1)")
    parser.add_argument("--debug", action="store_true", help="print the traceback of each failure on stderr")
    return parser.parse_args()


def head() -> str:
    found = {name: version_of(name) for name in ("rsconvert", "timm", "torchvision", "torch")}
    versions = ", ".join(f"{name} {version or rsconvert.__version__}" for name, version in found.items())
    machine = f"{os.cpu_count()} cores, {platform.machine()}, no GPU used"
    table = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"
    return f"`python benchmarks/third_party.py`, {machine}; {versions}.\n\n{table}"


def told(case: Case) -> str:
    return f"{case.package} {case.name}".lower()


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def checked(case: Case, *, debug: bool) -> Row:
    """Return the row of a network; what fails is a cell of it."""
    row = Row({"package": case.package, "version": version_of(case.package) or "", "network": case.name})
    row.remarks += [case.remark] if case.remark else []
    row.cells |= dict.fromkeys(COLUMNS[3:-1], "")
    state: dict[str, Any] = {}

    def attempt(column: str, check: Callable[[], object]) -> bool:
        try:
            with quiet():
                check()
        except Exception as error:  # whatever the packages' own code raises
            row.cells[column] = "**no**"
            row.remarks.append(f"{column}: {one_line(error)}")
            if debug:
                print(f"--- {told(case)}, {column}\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            return False
        row.cells[column] = "yes"
        return True

    if attempt("exact", lambda: state.update(prepared(case, row))):
        attempt("save, load", lambda: check_file(case, state["net"]))
        attempt("deepcopy", lambda: check_copy(case, state["net"]))
        attempt("step", lambda: check_step(case, state["net"]))
    return row


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def one_line(error: Exception) -> str:
    words = " ".join(f"{type(error).__name__}: {error}".split()).replace("|", "\\|").replace(str(Path.home()), "~")
    return words if len(words) < 300 else words[:297] + " …"


def prepared(case: Case, row: Row) -> dict[str, Any]:
    """Convert, and compare every path, and the network itself, with the source."""
    torch.manual_seed(0)
    model = case.make().eval()
    net = case.converted(model)
    converted, there = sum(1 for _ in net.switchable_bns()), sum(map(is_batchnorm, model.modules()))
    row.cells["BatchNorms"] = str(there) if converted == there else f"{converted} of {there}"
    for side in case.sizes:
        source = model if case.build is None else filled(case.build(side), net.at(side)).eval()
        compare(outputs(source, case.image(side)), outputs(net.at(side), case.image(side)), f"the path of {side}")
    try:
        for side in case.sizes:
            compare(outputs(net.at(side), case.image(side)), outputs(net, case.image(side)), f"net(x) at {side}")
    except rsconvert.ResolutionError as error:
        row.remarks.append(f"net(x) refuses: {one_line(error)}")
    return {"net": net}


def is_batchnorm(module: nn.Module) -> bool:
    """Tell whether a module is one by its class, or by its statistics, as one written by hand."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) or isinstance(
        getattr(module, "running_mean", None), Tensor
    )


def filled(model: nn.Module, source: nn.Module) -> nn.Module:
    model.load_state_dict(source.state_dict())
    return model


def outputs(model: nn.Module, image: Tensor) -> list[Tensor]:
    """Return all tensors of what a model returns."""
    with torch.no_grad():
        found = [leaf.clone() for leaf in tree_leaves(model(image)) if isinstance(leaf, Tensor)]
    assert found, "the output holds no tensor"
    return found


def compare(wanted: list[Tensor], found: list[Tensor], what: str) -> None:
    """See that two lists of tensors have the same bits; NaN equals NaN."""
    assert len(wanted) == len(found), f"{what} gives {len(found)} tensors, the source {len(wanted)}"
    for one, other in zip(wanted, found, strict=True):
        assert torch.equal(one.isnan(), other.isnan()), f"{what} differs from the source"
        assert torch.equal(one.nan_to_num(), other.nan_to_num()), f"{what} differs from the source"


def check_file(case: Case, net: SwitchableModel) -> None:
    """Save, and load around a new plain model."""
    with tempfile.TemporaryDirectory() as folder:
        rsconvert.save(net, Path(folder, "net.safetensors"))
        torch.manual_seed(1)
        again = rsconvert.load(Path(folder, "net.safetensors"), case.make(), build=case.build).eval()
    wanted, found = net.state_dict(), again.state_dict()
    assert wanted.keys() == found.keys(), "the loaded network has other keys"
    assert all(torch.equal(value, found[key]) for key, value in wanted.items()), "a loaded value differs"
    for side in case.sizes:
        image = case.image(side)
        compare(outputs(net.at(side), image), outputs(again.at(side), image), f"the loaded path of {side}")


def check_copy(case: Case, net: SwitchableModel) -> None:
    """Copy, compare, and see that no tensor is shared."""
    twin = copy.deepcopy(net)
    for side in case.sizes:
        image = case.image(side)
        compare(outputs(net.at(side), image), outputs(twin.at(side), image), f"the copied path of {side}")
    own = {tensor.data_ptr() for tensor in net.state_dict().values() if tensor.numel()}
    shared = [key for key, tensor in twin.state_dict().items() if tensor.numel() and tensor.data_ptr() in own]
    assert not shared, f"the copy shares {shared[0]}"


def check_step(case: Case, net: SwitchableModel) -> None:
    """Take one step of training on a view of each size; gradients and values stay finite, and each set moves."""
    net.train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=1e-4)
    sum(map(loss, net(views=[case.image(side) for side in case.sizes]))).backward()
    gradients = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    assert gradients, "no parameter has a gradient"
    infinite = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
    assert not infinite, f"the gradient of {infinite[0]} is not finite"
    optimizer.step()
    after = net.state_dict()
    assert all(value.isfinite().all() for value in after.values()), "a value is not finite after the step"
    moved = {key for key, value in after.items() if not torch.equal(value, before[key])}
    small = f".at.{case.sizes[1]}."
    moves = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules())
    assert any(small in key for key in moved) is moves, (
        f"of the BN sets of {case.sizes[1]} {'none' if moves else 'a frozen one'} moved"
    )
    native = any(key.replace(small, ".") in moved for key in moved if small in key)
    assert native is moves, "no native BN set moved"


def loss(output: Any) -> Tensor:
    """Return the mean square of all tensors of an output that have a gradient."""
    parts = [leaf.float().square().mean() for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    parts = [part for part in parts if part.requires_grad]
    assert parts, "no output has a gradient"
    return torch.stack(parts).sum()


def efficientnets() -> Iterator[Case]:
    def make(name: str) -> nn.Module:
        from efficientnet_pytorch import EfficientNet

        return EfficientNet.from_name(name)

    for name in ("efficientnet-b0", "efficientnet-b2"):
        yield Case("efficientnet_pytorch", name, lambda name=name: make(name))


def segmentation() -> Iterator[Case]:
    def make(name: str, encoder: str) -> nn.Module:
        import segmentation_models_pytorch

        return getattr(segmentation_models_pytorch, name)(encoder, encoder_weights=None, classes=4)

    encoders = ("resnet18", "efficientnet-b0", "mobilenet_v2", "timm-regnetx_002")
    pairs = [("Unet", encoder) for encoder in encoders]
    names = ("UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "UPerNet", "Segformer")
    pairs += [(name, "resnet18") for name in names]
    for name, encoder in pairs:
        yield Case("segmentation_models_pytorch", f"{name}, {encoder}", lambda n=name, e=encoder: make(n, e))
    # Its pyramid pools three times below stride 16.
    yield Case("segmentation_models_pytorch", "PAN, resnet18", lambda: make("PAN", "resnet18"), sizes=(160, 128))


def faces() -> Iterator[Case]:
    def make() -> nn.Module:
        from facenet_pytorch import InceptionResnetV1

        return InceptionResnetV1(pretrained=None, classify=True, num_classes=10)

    yield Case("facenet-pytorch", "InceptionResnetV1", make, sizes=(160, 112))


def xrays() -> Iterator[Case]:
    def make() -> nn.Module:
        from torchxrayvision.models import DenseNet

        return DenseNet(num_classes=18, in_channels=1, weights=None)

    yield Case("torchxrayvision", "DenseNet", make, channels=1)


def medical() -> Iterator[Case]:
    def nets() -> Any:
        from monai.networks import nets

        return nets

    unet = {"channels": (8, 16, 32), "strides": (2, 2), "num_res_units": 1, "norm": "batch"}
    for d, sizes in ((2, (96, 64)), (3, (48, 32))):
        ends: dict[str, Any] = {"spatial_dims": d, "in_channels": 1, "out_channels": 2}
        makers: dict[str, Callable[..., nn.Module]] = {
            "DenseNet121": lambda ends=ends: nets().DenseNet121(**ends),
            "resnet18": lambda d=d: nets().resnet18(spatial_dims=d, n_input_channels=1, num_classes=2),
            "UNet": lambda ends=ends: nets().UNet(**ends, **unet),
            "BasicUNet": lambda ends=ends: nets().BasicUNet(**ends, features=(8, 8, 16, 32, 32, 8), norm="batch"),
            "SegResNet": lambda ends=ends: nets().SegResNet(**ends, init_filters=8, norm="batch"),
            "AttentionUnet": lambda ends=ends: nets().AttentionUnet(**ends, channels=(8, 16, 32), strides=(2, 2)),
            "VNet": lambda ends=ends: nets().VNet(**ends),
        }
        for name, make in makers.items():
            yield Case("monai", f"{name}, {d}-d", make, sizes=sizes, channels=1, dimensions=d)
    yield Case("monai", "SEResNet50, 2-d", lambda: nets().SEResNet50(spatial_dims=2, in_channels=3, num_classes=2))
    yield Case(
        "monai",
        "EfficientNetBN, 2-d",
        lambda: nets().EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=2, num_classes=2),
    )


def detectors() -> Iterator[Case]:
    def make(side: int) -> nn.Module:
        from effdet import EfficientDet, get_efficientdet_config

        config = get_efficientdet_config("tf_efficientdet_d0")
        config.image_size = (side, side)
        return EfficientDet(config, pretrained_backbone=False)

    yield Case("effdet", "tf_efficientdet_d0", lambda: make(256), sizes=(256, 128), build=make)


def yolos() -> Iterator[Case]:
    def make(kind: str, file: str) -> nn.Module:
        from ultralytics.nn import tasks

        return getattr(tasks, kind)(file, verbose=False)

    files = (
        ("DetectionModel", "yolov8n.yaml"),
        ("DetectionModel", "yolo11n.yaml"),
        ("DetectionModel", "yolo26n.yaml"),
        ("SegmentationModel", "yolo11n-seg.yaml"),
        ("PoseModel", "yolo11n-pose.yaml"),
        ("ClassificationModel", "yolo11n-cls.yaml"),
        ("RTDETRDetectionModel", "rtdetr-resnet50.yaml"),
    )
    for kind, file in files:
        yield Case("ultralytics", file.removesuffix(".yaml"), lambda k=kind, f=file: make(k, f), sizes=(128, 96))


def pytorchcv() -> Iterator[Case]:
    def make(name: str) -> nn.Module:
        from pytorchcv.model_provider import get_model

        model = get_model(name, pretrained=False)
        if isinstance(model.features.final_pool, nn.AvgPool2d):
            model.features.final_pool = nn.AdaptiveAvgPool2d(1)
        return model

    small = (
        "resnet10 preresnet10 resnext14_16x4d seresnet10 mobilenet_wd4 mobilenetv2_wd4 mobilenetv3_small_wd2 "
        "shufflenetv2_wd2 igcv3_wd4 mnasnet_b1 peleenet hardnet39ds ghostnet regnetx002 efficientnet_b0 fbnet_cb"
    )
    for name in small.split():
        remark = "" if name in ("regnetx002", "efficientnet_b0") else GLOBAL_POOLING
        yield Case("pytorchcv", name, lambda name=name: make(name), sizes=(128, 96), remark=remark)


def older() -> Iterator[Case]:
    def pretrainedmodels(name: str, pool: str) -> nn.Module:
        import pretrainedmodels

        model = pretrainedmodels.__dict__[name](num_classes=1000, pretrained=None)
        if pool:
            setattr(model, pool, nn.AdaptiveAvgPool2d(1))
        return model

    def geffnet(name: str) -> nn.Module:
        import geffnet

        return geffnet.create_model(name, pretrained=False)

    def resnest() -> nn.Module:
        from resnest.torch import resnest50

        return resnest50(pretrained=False)

    for name, pool in (("se_resnext50_32x4d", "avg_pool"), ("inceptionresnetv2", "avgpool_1a"), ("xception", "")):
        remark = GLOBAL_POOLING if pool else ""
        make = partial(pretrainedmodels, name, pool)
        yield Case("pretrainedmodels", name, make, sizes=(160, 128), remark=remark)
    for name in ("tf_mobilenetv3_small_100", "mixnet_s"):
        yield Case("geffnet", name, lambda name=name: geffnet(name))

    def osnet() -> nn.Module:
        import torchreid

        return torchreid.models.build_model("osnet_x0_25", 10, pretrained=False)

    yield Case("resnest", "resnest50", resnest)
    yield Case("torchreid", "osnet_x0_25", osnet)


def hugging_face() -> Iterator[Case]:
    def make(name: str, **settings: Any) -> nn.Module:
        import transformers

        return getattr(transformers, f"{name}ForImageClassification")(
            getattr(transformers, f"{name}Config")(num_labels=10, **settings)
        )

    small = {"embedding_size": 8, "hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1]}
    yield Case("transformers", "ResNet", lambda: make("ResNet", **small))
    yield Case("transformers", "RegNet", lambda: make("RegNet", **small, groups_width=8))
    yield Case("transformers", "MobileNetV1", lambda: make("MobileNetV1", depth_multiplier=0.25))
    yield Case("transformers", "MobileNetV2", lambda: make("MobileNetV2", depth_multiplier=0.35))
    b0 = {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280}
    yield Case("transformers", "EfficientNet", lambda: make("EfficientNet", **b0))
    yield Case("transformers", "MobileViTV2", lambda: make("MobileViTV2"))
    yield Case("transformers", "SwiftFormer", lambda: make("SwiftFormer"), sizes=(128, 96))
    levit = partial(make, "Levit", num_attention_heads=[2, 2, 2], hidden_sizes=[32, 48, 64], key_dim=[16, 16, 16])
    yield Case("transformers", "LeViT", lambda: levit(image_size=96), build=lambda side: levit(image_size=side))
    yield Case("transformers", "DETR, ResNet", lambda: detr(small))


def detr(backbone: dict[str, Any]) -> nn.Module:
    """Its frozen BatchNorm is a class of its own."""
    import transformers

    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 5}
    sizes |= {f"{end}_attention_heads": 2 for end in ("encoder", "decoder")}
    below = transformers.ResNetConfig(**backbone, out_features=["stage4"])
    config = transformers.DetrConfig(use_timm_backbone=False, backbone=None, backbone_config=below, **sizes)
    return transformers.DetrForObjectDetection(config)


CATALOG = (efficientnets, segmentation, faces, xrays, medical, detectors, yolos, pytorchcv, older, hugging_face)


if __name__ == "__main__":
    sys.exit(main())

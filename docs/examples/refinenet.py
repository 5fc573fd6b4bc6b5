"""RefineNet-101, the segmentation network of the paper's appendix B, on a ResNet of timm.

    rsconvert wrap docs/examples/refinenet.py:build --num-classes 40 --task segmentation --resolutions 352,224,96 \
        -o refinenet.rs.safetensors

    python docs/examples/refinenet.py refinenet.rs.safetensors 40    # with ImageNet weights in it

Lin, Milan, Shen, Reid: "Multi-Path Refinement Networks for High-Resolution Semantic Segmentation", CVPR 2017.
BatchNorm is in the ResNet alone: 104 layers of 52,672 channels. Logits have a quarter of the image's side.
"""

import sys

import timm
import torch.nn.functional as F
from torch import Tensor, nn

import rsconvert

__all__ = ["RefineNet", "build", "load_backbone"]


def conv3x3(channels: int, out: int, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, padding=1, bias=bias)


class ResidualUnit(nn.Module):
    """Two convolutions, each after a ReLU, and the input added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv3x3(channels, channels, bias=True), conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class ChainedPooling(nn.Module):
    """Four times a pooling and a convolution, each applied to what the one before gave; all are added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv3x3(channels, channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        total = x
        for conv in self.convs:
            x = conv(F.max_pool2d(x, 5, stride=1, padding=2))
            total = total + x
        return total


class Refine(nn.Module):
    """Fuse the features of a stage with what the deeper stages gave, at the size of the stage.

    ``deeper`` are the channels of the latter; None for the deepest stage, which has nothing to fuse.
    """

    def __init__(self, features: int, channels: int, deeper: int | None) -> None:
        super().__init__()
        self.adapt = nn.Sequential(conv3x3(features, channels), ResidualUnit(channels), ResidualUnit(channels))
        self.fuse_own = None if deeper is None else conv3x3(channels, channels)
        self.fuse_deeper = None if deeper is None else conv3x3(deeper, channels)
        self.pool = ChainedPooling(channels)
        self.output = nn.Sequential(*(ResidualUnit(channels) for _ in range(3)))

    def forward(self, features: Tensor, deeper: Tensor | None) -> Tensor:
        x = self.adapt(features)
        if deeper is not None:
            small = self.fuse_deeper(deeper)
            x = self.fuse_own(x) + F.interpolate(small, size=x.shape[-2:], mode="bilinear", align_corners=True)
        return self.output(self.pool(F.relu(x)))


class RefineNet(nn.Module):
    """A ResNet of timm, four refining blocks from its deepest stage to its first, and a classifier."""

    def __init__(self, num_classes: int, backbone: str, width: int) -> None:
        super().__init__()
        self.backbone = timm.create_model(backbone, features_only=True, out_indices=(1, 2, 3, 4))
        first, second, third, last = self.backbone.feature_info.channels()
        self.refine4 = Refine(last, 2 * width, None)
        self.refine3 = Refine(third, width, 2 * width)
        self.refine2 = Refine(second, width, width)
        self.refine1 = Refine(first, width, width)
        self.dropout = nn.Dropout(0.5)
        self.classifier = conv3x3(width, num_classes, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        first, second, third, last = self.backbone(x)
        deep = self.refine3(self.dropout(third), self.refine4(self.dropout(last), None))
        return self.classifier(self.dropout(self.refine1(first, self.refine2(second, deep))))


def build(num_classes: int = 40, backbone: str = "resnet101", width: int = 256) -> nn.Module:
    """Return the network with random weights; ``width`` are the channels of the refining blocks."""
    return RefineNet(num_classes, backbone, width)


def load_backbone(model: nn.Module, backbone: str = "resnet101") -> None:
    """Fill the ResNet with timm's own weights, which are downloaded."""
    trained = timm.create_model(backbone, pretrained=True, features_only=True, out_indices=(1, 2, 3, 4))
    model.backbone.load_state_dict(trained.state_dict())


if __name__ == "__main__":
    place, classes = sys.argv[1], int(sys.argv[2])
    network = build(classes)
    load_backbone(network)
    name, arguments = f"{__file__}:build", {"num_classes": classes}
    net = rsconvert.make_switchable(network, (352, 224, 96), name=name, model_kwargs=arguments, task="segmentation")
    rsconvert.save(net, place)

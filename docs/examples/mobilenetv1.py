"""A network that no library has a name for: MobileNetV1 with a quarter of the channels, as Google trained it.

    rsconvert wrap docs/examples/mobilenetv1.py:build --weights FILE --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5 \
        -o v1.rs.safetensors
    rsconvert evaluate v1.rs.safetensors --model docs/examples/mobilenetv1.py:build --data DIR --class-map FILE

Any function will do that returns an nn.Module. Its parameters are set by ``--model-kwargs KEY=VALUE``, and
``num_classes`` by ``--num-classes``.
"""

from timm.models.efficientnet import _gen_mobilenet_v1
from torch import nn

__all__ = ["build"]


def build(num_classes: int = 1000, width: float = 0.25) -> nn.Module:
    """Return the network; its weights come from a file. Padding and eps are those of TensorFlow."""
    model: nn.Module = _gen_mobilenet_v1(
        "mobilenetv1_100", width, pretrained=False, num_classes=num_classes, pad_type="same", bn_eps=1e-3
    )
    return model

"""What a path costs: multiply-adds."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rsconvert.data import Size
from rsconvert.errors import ResolutionError
from rsconvert.models import as_call, example_arguments
from rsconvert.surgery import copy_structure

__all__ = ["multiply_adds"]


@torch.no_grad()
def multiply_adds(model: nn.Module, resolution: Size) -> int:
    """Return the multiply-adds of one image: half the operations that torch's counter finds.

    Counted are convolutions, matrix products and attention. Normalisation, activation, pooling and additions are not:
    papers that count them come out higher, by about a hundredth.

    Args:
        model: a plain model, such as ``net.at(160)``; it is left as it is.
        resolution: side of the square input in pixels, or its height and width.
    Raises:
        ResolutionError: the model does not run at the resolution.
    """
    plain = copy_structure(model).eval()
    args, kwargs = as_call(example_arguments(plain, resolution))
    try:
        with FlopCounterMode(display=False) as counter:
            plain(*args, **kwargs)
    except Exception as error:  # whatever the model's own code raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ResolutionError(
            f"resolution {resolution} does not work in {type(model).__name__} ({reason}). "
            "Choose another resolution, as a rule a larger one or a multiple of 32."
        ) from error
    return int(counter.get_total_flops()) // 2

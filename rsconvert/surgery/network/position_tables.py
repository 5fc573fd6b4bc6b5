"""Position tables: the values learnt at one resolution, resampled for another.

Attention knows where it looks by a table whose size follows the resolution. timm resizes such tables when it loads
weights trained at another size; here the same functions give every resolution its own. By name:

- ``relative_position_bias_table`` (coatnet, maxvit) and ``pos_emb`` (lambda layers), one entry per 2-d offset:
  ``resize_rel_pos_bias_table``. timm resizes no ``pos_emb``; it is the former with channels in place of heads.
- ``attention_biases`` (levit, efficientformerv2, efficientvit_m), one entry per distance:
  ``resize_rel_pos_bias_table_levit``, as timm does for tiny_vit and efficientvit_m.
- ``pos_embed`` (vision transformers, attention pooling), one entry per position: ``resample_abs_pos_embed``, on a grid
  (volo; visformer's ``pos_embed1`` to ``pos_embed3``, channels first) ``resample_abs_pos_embed_nhwc``. timm does not
  resize those of volo and visformer; they are grids of the same kind.
- ``height_rel``, ``width_rel`` (botnet), one entry per 1-d offset: timm has no function for botnet. The same table
  in its ``vision_transformer_sam`` is interpolated linearly (``get_rel_pos``), and so it is done here.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from timm.layers import (
    resample_abs_pos_embed,
    resample_abs_pos_embed_nhwc,
    resize_rel_pos_bias_table,
    resize_rel_pos_bias_table_levit,
)
from torch import Size, Tensor, nn

__all__ = ["TABLES", "resample_table"]


def resample_table(table: Tensor, name: str, owner: nn.Module) -> Tensor | None:
    """Return a position table resampled to the size that ``owner`` was built for; None if the kind is unknown.

    A table that has this size already is copied, whatever its kind.

    Args:
        table: the values of the source, a table for square images.
        name: the name of the tensor inside ``owner``, such as ``attention_biases``.
        owner: the module, built for the wanted resolution; its own tensor gives the shape of the result.
    Returns:
        A tensor without gradient, of the dtype and on the device of ``table``.
    """
    wanted = getattr(owner, name).shape
    if table.shape == wanted:
        return table.detach().clone()
    resample = _KINDS.get(name.rstrip("0123456789"))
    if resample is None:
        return None
    # Float32 on the CPU, and the reshape: timm 1.0.22 fails otherwise, and joins the heads of a maxvit into one.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about how timm lays out and indexes its grid
        resampled: Tensor = resample(table.detach().float().cpu(), wanted, owner)
    # A view of a transposed table would run otherwise than a table that was built or loaded.
    return resampled.reshape(wanted).to(table).contiguous()


# Each takes the table, the shape wanted and the owner. Any: timm's functions and attributes have no types.


def _relative(table: Tensor, wanted: Size, owner: Any) -> Any:
    """Resample (offsets, heads) or (heads, 2h-1, 2w-1)."""
    return resize_rel_pos_bias_table(table, new_window_size=owner.window_size, new_bias_shape=wanted)


def _lambda(table: Tensor, wanted: Size, owner: Any) -> Any:
    """Resample (2h-1, 2w-1, channels)."""
    height, width, channels = wanted
    size = ((height + 1) // 2, (width + 1) // 2)
    return resize_rel_pos_bias_table(
        table.flatten(0, 1), new_window_size=size, new_bias_shape=(height * width, channels)
    )


def _distances(table: Tensor, wanted: Size, owner: Any) -> Any:
    """Resample (heads, h·w)."""
    return resize_rel_pos_bias_table_levit(table.T, wanted[::-1]).T


def _axis(table: Tensor, wanted: Size, owner: Any) -> Any:
    """Resample (2n-1, channels)."""
    return F.interpolate(table.T[None], size=wanted[0], mode="linear")[0].T


def _absolute(table: Tensor, wanted: Size, owner: Any) -> Any:
    """Resample ([1,] prefix + h·w, channels), (1, h, w, channels) or (1, channels, h, w)."""
    if table.ndim < 4:
        return _tokens(table.reshape(1, *table.shape[-2:]), wanted[-2], owner)
    if table.shape[-1] == wanted[-1]:
        return resample_abs_pos_embed_nhwc(table, new_size=wanted[1:3])
    return resample_abs_pos_embed_nhwc(table.permute(0, 2, 3, 1), new_size=wanted[2:]).permute(0, 3, 1, 2)


def _tokens(table: Tensor, length: int, owner: Any) -> Any:
    """Resample (1, prefix + h·w, channels) to a new length; class and register tokens stand in front, unchanged."""
    side = math.isqrt(length)
    patches = getattr(owner, "patch_embed", None)
    grid = getattr(patches, "grid_size", None) or getattr(owner, "feat_size", None) or (side, side)
    return resample_abs_pos_embed(table, new_size=grid, num_prefix_tokens=length - grid[0] * grid[1])


_KINDS: dict[str, Callable[[Tensor, Size, Any], Any]] = {
    "attention_biases": _distances,
    "height_rel": _axis,
    "pos_emb": _lambda,
    "pos_embed": _absolute,
    "relative_position_bias_table": _relative,
    "width_rel": _axis,
}

TABLES = tuple(_KINDS)

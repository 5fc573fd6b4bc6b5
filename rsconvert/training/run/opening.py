"""The images of a run, seen to fit the network before anything is made."""

from pathlib import Path

import torch

from rsconvert.data import Samples, open_train_val
from rsconvert.errors import ConfigError, DataError
from rsconvert.evaluation import check_classes, float_dtype, mapped_outputs
from rsconvert.settings import FinetuneConfig
from rsconvert.surgery import SwitchableModel

__all__ = ["open_for_training"]


def open_for_training(
    net: SwitchableModel, data: str | Path | tuple[Samples, Samples], config: FinetuneConfig
) -> tuple[tuple[Samples, Samples], tuple[int, ...] | None]:
    """Return the splits train and val, and the network's output for each of their classes if a class map gives it.

    Raises:
        ConfigError: the network's weights are of a type that does not learn.
        DataError: there is no such data; the classes do not fit the network, or each other.
    """
    _check_dtype(net)
    train, val = open_train_val(str(data), root=config.data_root) if isinstance(data, str | Path) else data
    outputs = mapped_outputs(train, config.class_map)
    check_classes(net, train, outputs)
    _check_val(train, val)
    return (train, val), outputs


def _check_val(train: Samples, val: Samples) -> None:
    if len(val) == 0:
        raise DataError("the val set is empty; each epoch ends with an evaluation on it. Add images.")
    if train.classes != val.classes:
        raise DataError(
            f"train has the classes {_listed(train.classes)}, val {_listed(val.classes)}; both need the same ones. "
            "Open the splits of one data set."
        )


def _listed(classes: tuple[str, ...] | None) -> str:
    return "without names" if classes is None else ", ".join(classes[:5]) + (", …" if len(classes) > 5 else "")


def _check_dtype(net: SwitchableModel) -> None:
    dtype = float_dtype(net)
    if dtype not in (torch.float32, torch.float64):
        raise ConfigError(
            f"the network's weights are {str(dtype).removeprefix('torch.')}; float32 or float64 learns. "
            "Call net.float() before, and choose half precision by amp."
        )

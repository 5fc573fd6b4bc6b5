"""rsconvert: a BatchNorm CNN becomes one network that switches its input resolution.

A map of the package, in the order in which it is used:

    name → create_model → make_switchable → SwitchableModel → calibrate | finetune → save
    load → SwitchableModel → at(r): a plain nn.Module → evaluate | export

    data/        one crop of an image → S views
    zoo/         names → plain models
    surgery/     a network goes in, a switchable network comes out
    models/      what the conversion does to each model of the libraries
    checkpoint   the one switchable file
    evaluation/  accuracy and cost at each resolution
    training/    the loss and the loop; statistics without labels
    export/      files for other software
    runtime/     latency on a machine, the choice of a path by a budget, the cascade
    analysis/    the paper's tables and figures
    comparison/  ways to train, with one budget
    report/      one HTML page about a network
    demo, cli    the commands

Names are imported when they are first used, so that importing the package does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from rsconvert.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    NamelessModelWarning,
    ResolutionError,
    RSConvertError,
    TrainingError,
    UnsupportedModelError,
)

if TYPE_CHECKING:
    from rsconvert.checkpoint import load, save
    from rsconvert.evaluation import evaluate
    from rsconvert.export import export_hub, export_onnx, export_program, export_timm, export_torchvision
    from rsconvert.runtime import cascade, for_budget
    from rsconvert.surgery import SwitchableBN, SwitchableModel, make_switchable, to_graph
    from rsconvert.training import FinetuneConfig, calibrate, finetune, mred_loss
    from rsconvert.zoo import create_model

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "FinetuneConfig",
    "NamelessModelWarning",
    "RSConvertError",
    "ResolutionError",
    "SwitchableBN",
    "SwitchableModel",
    "TrainingError",
    "UnsupportedModelError",
    "calibrate",
    "cascade",
    "create_model",
    "evaluate",
    "export_hub",
    "export_onnx",
    "export_program",
    "export_timm",
    "export_torchvision",
    "finetune",
    "for_budget",
    "load",
    "make_switchable",
    "mred_loss",
    "save",
    "to_graph",
]

__version__ = "0.1.0"

_HOMES = {
    "checkpoint": ("load", "save"),
    "evaluation": ("evaluate",),
    "export": ("export_hub", "export_onnx", "export_program", "export_timm", "export_torchvision"),
    "runtime": ("cascade", "for_budget"),
    "surgery": ("SwitchableBN", "SwitchableModel", "make_switchable", "to_graph"),
    "training": ("FinetuneConfig", "calibrate", "finetune", "mred_loss"),
    "zoo": ("create_model",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"rsconvert.{home}"), name)
    raise AttributeError(f"module 'rsconvert' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

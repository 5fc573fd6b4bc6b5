"""rsconvert: a BatchNorm CNN becomes one network that switches its input resolution.

A map of the package, in the order in which it is used:

    name → create_model → make_switchable → SwitchableModel → calibrate | finetune → save
    load → SwitchableModel → at(r): a plain nn.Module → evaluate | export

    errors, text    exceptions; tables and small files
    settings        the settings of finetuning, without torch
    data/           one crop of an image → S views
    models/         names → plain models
    surgery/        a network goes in, a switchable network comes out
    quantization/   weights and activations of few bits
    compatibility/  what the conversion does to each model of the libraries
    checkpoint/     the one switchable file
    evaluation/     accuracy, cost and latency at each resolution
    wrapping        a name becomes a switchable network, with a report
    calibration/    statistics without labels
    training/       the loss, a step, a run
    export/         files for other software
    runtime/        the choice of a path: by a budget, or image by image; photos → names of classes
    study/          the paper's tables and figures, comparison, report
    demo/, cli/     the commands

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
    from rsconvert.calibration import calibrate
    from rsconvert.checkpoint import load, save
    from rsconvert.evaluation import evaluate
    from rsconvert.export import export_hub, export_onnx, export_program, export_timm, export_torchvision
    from rsconvert.models import Task, create_model
    from rsconvert.quantization import quantize_
    from rsconvert.runtime import cascade, for_budget, predict
    from rsconvert.settings import FinetuneConfig
    from rsconvert.surgery import SwitchableBN, SwitchableModel, make_switchable, to_graph
    from rsconvert.training import finetune, mred_loss

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
    "Task",
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
    "predict",
    "quantize_",
    "save",
    "to_graph",
]

__version__ = "0.1.0"

_HOMES = {
    "calibration": ("calibrate",),
    "checkpoint": ("load", "save"),
    "evaluation": ("evaluate",),
    "export": ("export_hub", "export_onnx", "export_program", "export_timm", "export_torchvision"),
    "quantization": ("quantize_",),
    "runtime": ("cascade", "for_budget", "predict"),
    "surgery": ("SwitchableBN", "SwitchableModel", "make_switchable", "to_graph"),
    "settings": ("FinetuneConfig",),
    "training": ("finetune", "mred_loss"),
    "models": ("Task", "create_model"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"rsconvert.{home}"), name)
    raise AttributeError(f"module 'rsconvert' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

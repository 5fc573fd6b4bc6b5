"""Training: all resolutions together, each a teacher of the smaller ones."""

from rsconvert.evaluation import choose_device, choose_precision, launched_rank
from rsconvert.training.allocator import keep_freed_memory
from rsconvert.training.calibrate import CalibrationReport, calibrate
from rsconvert.training.config import FinetuneConfig
from rsconvert.training.finetune import finetune
from rsconvert.training.mred import MODES, MREDLoss, mred_loss
from rsconvert.training.objective import Objective
from rsconvert.training.preview import preview
from rsconvert.training.recipes import RECIPES, build_config
from rsconvert.training.result import FinetuneResult

__all__ = [
    "MODES",
    "RECIPES",
    "CalibrationReport",
    "FinetuneConfig",
    "FinetuneResult",
    "MREDLoss",
    "Objective",
    "build_config",
    "calibrate",
    "choose_device",
    "choose_precision",
    "finetune",
    "keep_freed_memory",
    "launched_rank",
    "mred_loss",
    "preview",
]

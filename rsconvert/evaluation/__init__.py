"""Evaluation: what a network gets right, and what it costs, at each resolution."""

from rsconvert.evaluation.accuracy import count_hits, evaluate, measure, validation_loader
from rsconvert.evaluation.cost import multiply_adds
from rsconvert.evaluation.device import choose_device, choose_precision
from rsconvert.evaluation.fitting import check_classes, check_colours, check_labels, check_targets, mapped_outputs
from rsconvert.evaluation.memory import is_memory_error, plain_memory_errors
from rsconvert.evaluation.modes import eval_mode
from rsconvert.evaluation.results import Accuracy, Evaluation

__all__ = [
    "Accuracy",
    "Evaluation",
    "check_classes",
    "check_colours",
    "check_labels",
    "check_targets",
    "choose_device",
    "choose_precision",
    "count_hits",
    "eval_mode",
    "evaluate",
    "is_memory_error",
    "mapped_outputs",
    "measure",
    "multiply_adds",
    "plain_memory_errors",
    "validation_loader",
]

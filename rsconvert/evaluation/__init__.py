"""Evaluation: what a network gets right, and what it costs, at each resolution."""

from rsconvert.evaluation.accuracy import (
    Accuracy,
    Evaluation,
    check_classes,
    count_hits,
    evaluate,
    measure,
    validation_loader,
)
from rsconvert.evaluation.cost import multiply_adds
from rsconvert.evaluation.device import choose_device, choose_precision
from rsconvert.evaluation.memory import is_memory_error, plain_memory_errors

__all__ = [
    "Accuracy",
    "Evaluation",
    "check_classes",
    "choose_device",
    "choose_precision",
    "count_hits",
    "evaluate",
    "is_memory_error",
    "measure",
    "multiply_adds",
    "plain_memory_errors",
    "validation_loader",
]

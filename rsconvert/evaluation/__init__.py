"""Evaluation: what a network gets right, and what it costs, at each resolution."""

from rsconvert.evaluation.accuracy import NETWORK, evaluate, measure, summarize, validation_loader, with_baselines
from rsconvert.evaluation.answers import Answers
from rsconvert.evaluation.cost import multiply_adds
from rsconvert.evaluation.device import Amp, amp_name, autocast, choose_device, choose_precision
from rsconvert.evaluation.distributed import (
    Processes,
    joined_processes,
    launched_processes,
    launched_rank,
    running_processes,
    shared_failure,
)
from rsconvert.evaluation.fitting import (
    check_classes,
    check_colours,
    check_labels,
    check_targets,
    known_source,
    mapped_outputs,
)
from rsconvert.evaluation.memory import is_memory_error, plain_memory_errors
from rsconvert.evaluation.modes import eval_mode
from rsconvert.evaluation.predictions import Predictions, predict, save_logits
from rsconvert.evaluation.results import Accuracy, Evaluation, Paired
from rsconvert.evaluation.sizes import check_sizes, default_resolutions, resolution_of, size_name
from rsconvert.evaluation.tables import as_csv, as_markdown, as_text
from rsconvert.evaluation.uncertainty import calibration_error, mcnemar, wilson_interval

__all__ = [
    "NETWORK",
    "Accuracy",
    "Amp",
    "Answers",
    "Evaluation",
    "Paired",
    "Predictions",
    "Processes",
    "amp_name",
    "as_csv",
    "as_markdown",
    "as_text",
    "autocast",
    "calibration_error",
    "check_classes",
    "check_colours",
    "check_labels",
    "check_sizes",
    "check_targets",
    "choose_device",
    "choose_precision",
    "default_resolutions",
    "eval_mode",
    "evaluate",
    "is_memory_error",
    "joined_processes",
    "known_source",
    "launched_processes",
    "launched_rank",
    "mapped_outputs",
    "mcnemar",
    "measure",
    "multiply_adds",
    "plain_memory_errors",
    "predict",
    "resolution_of",
    "running_processes",
    "save_logits",
    "shared_failure",
    "size_name",
    "summarize",
    "validation_loader",
    "wilson_interval",
    "with_baselines",
]

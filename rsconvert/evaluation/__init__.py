"""Evaluation: what a network gets right, and what it costs, at each resolution."""

from rsconvert.evaluation.accuracy import NETWORK, evaluate, measure, summarize, validation_loader, with_baselines
from rsconvert.evaluation.answers import Answers
from rsconvert.evaluation.benchmark import measure_costs
from rsconvert.evaluation.benchmark_results import Benchmark, Cost
from rsconvert.evaluation.cost import multiply_adds
from rsconvert.evaluation.cost_table import store_costs, stored_costs
from rsconvert.evaluation.device import Amp, amp_name, autocast, choose_device, choose_precision, float_dtype
from rsconvert.evaluation.distributed import (
    Processes,
    joined_processes,
    launched_processes,
    launched_rank,
    shared_failure,
)
from rsconvert.evaluation.fitting import check_classes, check_colours, check_labels, check_targets, mapped_outputs
from rsconvert.evaluation.forms import check_forms
from rsconvert.evaluation.machine import differences, machine_key, processor_name
from rsconvert.evaluation.memory_errors import is_memory_error, plain_memory_errors
from rsconvert.evaluation.predictions import Predictions, check_order, predict, save_logits
from rsconvert.evaluation.results import Accuracy, Evaluation, Paired
from rsconvert.evaluation.sizes import check_sizes, default_resolutions, resolution_of, size_name
from rsconvert.evaluation.subject import crop_shares
from rsconvert.evaluation.switching import Switching, measure_switching
from rsconvert.evaluation.tables import as_csv, as_markdown, as_text
from rsconvert.evaluation.uncertainty import calibration_error, mcnemar, wilson_interval

__all__ = [
    "NETWORK",
    "Accuracy",
    "Amp",
    "Answers",
    "Benchmark",
    "Cost",
    "Evaluation",
    "Paired",
    "Predictions",
    "Processes",
    "Switching",
    "amp_name",
    "as_csv",
    "as_markdown",
    "as_text",
    "autocast",
    "calibration_error",
    "check_classes",
    "check_colours",
    "check_forms",
    "check_labels",
    "check_order",
    "check_sizes",
    "check_targets",
    "choose_device",
    "choose_precision",
    "crop_shares",
    "default_resolutions",
    "differences",
    "evaluate",
    "float_dtype",
    "is_memory_error",
    "joined_processes",
    "launched_processes",
    "launched_rank",
    "machine_key",
    "mapped_outputs",
    "mcnemar",
    "measure",
    "measure_costs",
    "measure_switching",
    "multiply_adds",
    "plain_memory_errors",
    "predict",
    "processor_name",
    "resolution_of",
    "save_logits",
    "shared_failure",
    "size_name",
    "store_costs",
    "stored_costs",
    "summarize",
    "validation_loader",
    "wilson_interval",
    "with_baselines",
]

"""Evaluation: what a network gets right, and what it costs, at each resolution."""

from rsconvert.evaluation.accuracy import NETWORK, evaluate, measure, summarize, with_baselines
from rsconvert.evaluation.benchmark import check_forms, measure_costs
from rsconvert.evaluation.cost_table import (
    Benchmark,
    Cost,
    differences,
    machine_key,
    processor_name,
    store_costs,
    stored_costs,
)
from rsconvert.evaluation.device import Amp, amp_name, autocast, choose_device, choose_precision, float_dtype
from rsconvert.evaluation.distributed import Processes, joined_processes, launched_processes, launched_rank
from rsconvert.evaluation.doubts import doubts, unsound_values
from rsconvert.evaluation.fitting import (
    Masks,
    check_classes,
    check_classifies,
    check_colours,
    check_labels,
    check_names_classes,
    check_pairs,
    mapped_outputs,
    open_labelled,
)
from rsconvert.evaluation.latency import Switching, measure_latency, measure_switching
from rsconvert.evaluation.mask_accuracy import MaskAccuracy
from rsconvert.evaluation.memory import is_memory_error, plain_memory_errors
from rsconvert.evaluation.overlap import (
    Overlaps,
    at_mask,
    count_scores,
    difference_interval,
    drawn_miou,
    mask_scores,
    miou_interval,
    percentiles,
)
from rsconvert.evaluation.predictions import Predictions, check_order, predict, save_logits
from rsconvert.evaluation.results import Accuracy, Evaluation, Paired
from rsconvert.evaluation.sizes import check_sizes, default_resolutions, multiply_adds, size_name
from rsconvert.evaluation.subject import Subject, check_logits, validation_loader
from rsconvert.evaluation.uncertainty import mean_interval, wilson_interval

__all__ = [
    "NETWORK",
    "Accuracy",
    "Amp",
    "Benchmark",
    "Cost",
    "Evaluation",
    "MaskAccuracy",
    "Masks",
    "Overlaps",
    "Paired",
    "Predictions",
    "Processes",
    "Subject",
    "Switching",
    "amp_name",
    "at_mask",
    "autocast",
    "check_classes",
    "check_classifies",
    "check_colours",
    "check_forms",
    "check_labels",
    "check_logits",
    "check_names_classes",
    "check_order",
    "check_pairs",
    "check_sizes",
    "choose_device",
    "choose_precision",
    "count_scores",
    "default_resolutions",
    "difference_interval",
    "differences",
    "doubts",
    "drawn_miou",
    "evaluate",
    "float_dtype",
    "is_memory_error",
    "joined_processes",
    "launched_processes",
    "launched_rank",
    "machine_key",
    "mapped_outputs",
    "mask_scores",
    "mean_interval",
    "measure",
    "measure_costs",
    "measure_latency",
    "measure_switching",
    "miou_interval",
    "multiply_adds",
    "open_labelled",
    "percentiles",
    "plain_memory_errors",
    "predict",
    "processor_name",
    "save_logits",
    "size_name",
    "store_costs",
    "stored_costs",
    "summarize",
    "unsound_values",
    "validation_loader",
    "wilson_interval",
    "with_baselines",
]

"""Models: names to plain models with their weights, the inputs they take, and what is known of them."""

from rsconvert.models.builders import SMP, TORCHVISION, bounded, check_num_classes, check_reachable, unfilled
from rsconvert.models.class_names import output_names, readable_names
from rsconvert.models.classifier import classifier_keys, classifier_layers, count_outputs, replace_classifier
from rsconvert.models.create import create_model, is_file_name, is_model_name, preprocessing_of
from rsconvert.models.example import (
    Arguments,
    Stem,
    argument_names,
    as_call,
    example_arguments,
    example_input,
    example_stem,
    positional_names,
    receivers,
    resizes_inside,
    static_stem,
)
from rsconvert.models.smp_models import smp_candidates
from rsconvert.models.source import ImageArgument, Source, set_source, source_of
from rsconvert.models.task import Metric, Task, chosen_task, recognised_task
from rsconvert.models.torchvision_models import candidates_for

__all__ = [
    "SMP",
    "TORCHVISION",
    "Arguments",
    "ImageArgument",
    "Metric",
    "Source",
    "Stem",
    "Task",
    "argument_names",
    "as_call",
    "bounded",
    "candidates_for",
    "check_num_classes",
    "check_reachable",
    "chosen_task",
    "classifier_keys",
    "classifier_layers",
    "count_outputs",
    "create_model",
    "example_arguments",
    "example_input",
    "example_stem",
    "is_file_name",
    "is_model_name",
    "output_names",
    "positional_names",
    "preprocessing_of",
    "readable_names",
    "receivers",
    "recognised_task",
    "replace_classifier",
    "resizes_inside",
    "set_source",
    "smp_candidates",
    "source_of",
    "static_stem",
    "unfilled",
]

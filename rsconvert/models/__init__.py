"""The zoo: names to plain models with their values, what they take, and what is known of them."""

from rsconvert.models.builders import TORCHVISION, check_num_classes
from rsconvert.models.classifier import classifier_keys, count_outputs, replace_classifier
from rsconvert.models.create import create_model, is_file_name, preprocessing_of
from rsconvert.models.example import (
    Arguments,
    argument_names,
    as_call,
    example_arguments,
    example_input,
    example_stem,
    input_channels,
    positional_names,
    receivers,
)
from rsconvert.models.image_argument import ImageArgument
from rsconvert.models.source import Source, set_source, source_of
from rsconvert.models.stem import Stem, resizes_inside, static_stem
from rsconvert.models.torchvision_models import candidates_for
from rsconvert.models.unfilled import unfilled

__all__ = [
    "TORCHVISION",
    "Arguments",
    "ImageArgument",
    "Source",
    "Stem",
    "argument_names",
    "as_call",
    "candidates_for",
    "check_num_classes",
    "classifier_keys",
    "count_outputs",
    "create_model",
    "example_arguments",
    "example_input",
    "example_stem",
    "input_channels",
    "is_file_name",
    "positional_names",
    "preprocessing_of",
    "receivers",
    "replace_classifier",
    "resizes_inside",
    "set_source",
    "source_of",
    "static_stem",
    "unfilled",
]

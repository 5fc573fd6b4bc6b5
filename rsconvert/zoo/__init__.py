"""The zoo: names to plain models with their values, what they take, and what is known of them."""

from rsconvert.zoo.classifier import classifier_keys, count_outputs, zero_parameters
from rsconvert.zoo.create import create_model, is_file_name
from rsconvert.zoo.example import example_arguments, example_input, input_channels
from rsconvert.zoo.source import Source, set_source, source_of

__all__ = [
    "Source",
    "classifier_keys",
    "count_outputs",
    "create_model",
    "example_arguments",
    "example_input",
    "input_channels",
    "is_file_name",
    "set_source",
    "source_of",
    "zero_parameters",
]

"""Surgery: a network goes in, a switchable network comes out."""

from rsconvert.surgery.bn import SwitchableBN, batchnorms, interpolation_weights, is_batchnorm
from rsconvert.surgery.classifier import classifier_keys
from rsconvert.surgery.dataflow import SetWeights, to_graph
from rsconvert.surgery.example import example_arguments, example_input, input_channels
from rsconvert.surgery.network import SwitchableModel, assemble
from rsconvert.surgery.report import BatchNormRecord, ConversionReport
from rsconvert.surgery.resolutions import check_resolutions
from rsconvert.surgery.rewrite import examine, make_switchable
from rsconvert.surgery.source import Source, set_source, source_of
from rsconvert.surgery.zoo import create_model, is_file_name

__all__ = [
    "BatchNormRecord",
    "ConversionReport",
    "SetWeights",
    "Source",
    "SwitchableBN",
    "SwitchableModel",
    "assemble",
    "batchnorms",
    "check_resolutions",
    "classifier_keys",
    "create_model",
    "examine",
    "example_arguments",
    "example_input",
    "input_channels",
    "interpolation_weights",
    "is_batchnorm",
    "is_file_name",
    "make_switchable",
    "set_source",
    "source_of",
    "to_graph",
]

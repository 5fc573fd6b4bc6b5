"""Surgery: a network goes in, a switchable network comes out."""

from rsconvert.surgery.bn import SwitchableBN, batchnorms, interpolation_weights, is_batchnorm
from rsconvert.surgery.dataflow import SetWeights, to_graph
from rsconvert.surgery.measured import Measured
from rsconvert.surgery.network import SwitchableModel, assemble
from rsconvert.surgery.report import BatchNormRecord, ConversionReport
from rsconvert.surgery.resolutions import check_resolutions, check_stages
from rsconvert.surgery.rewrite import check_switchable, examine, make_switchable

__all__ = [
    "BatchNormRecord",
    "ConversionReport",
    "Measured",
    "SetWeights",
    "SwitchableBN",
    "SwitchableModel",
    "assemble",
    "batchnorms",
    "check_resolutions",
    "check_stages",
    "check_switchable",
    "examine",
    "interpolation_weights",
    "is_batchnorm",
    "make_switchable",
    "to_graph",
]

"""Surgery: a network goes in, a switchable network comes out."""

from rsconvert.surgery.conversion import check_switchable, examine, make_switchable
from rsconvert.surgery.dataflow import SetWeights, to_graph
from rsconvert.surgery.folding import FoldReport, fold_batchnorm, largest_difference, prepare_folded
from rsconvert.surgery.modes import eval_mode
from rsconvert.surgery.network import (
    BUILD,
    WAYS,
    Build,
    Measured,
    SwitchableBN,
    SwitchableModel,
    assemble,
    batchnorms,
    build_like,
    check_resolutions,
    check_stages,
    copy_structure,
    default_images,
    interpolation_weights,
    is_batchnorm,
    kwargs_at,
    rebuilt,
    regroup,
    side_of,
    with_middles,
)
from rsconvert.surgery.report import ConversionReport
from rsconvert.surgery.scramble import fill_zeros, scrambled, write
from rsconvert.surgery.survey import fitted_inside
from rsconvert.surgery.trial import equal_outputs, run_trial

__all__ = [
    "BUILD",
    "WAYS",
    "Build",
    "ConversionReport",
    "FoldReport",
    "Measured",
    "SetWeights",
    "SwitchableBN",
    "SwitchableModel",
    "assemble",
    "batchnorms",
    "build_like",
    "check_resolutions",
    "check_stages",
    "check_switchable",
    "copy_structure",
    "default_images",
    "equal_outputs",
    "eval_mode",
    "examine",
    "fill_zeros",
    "fitted_inside",
    "fold_batchnorm",
    "interpolation_weights",
    "is_batchnorm",
    "kwargs_at",
    "largest_difference",
    "make_switchable",
    "prepare_folded",
    "rebuilt",
    "regroup",
    "run_trial",
    "scrambled",
    "side_of",
    "to_graph",
    "with_middles",
    "write",
]

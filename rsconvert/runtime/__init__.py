"""Run time: the choice of a path, by a budget or image by image.

net, its table of costs → a path within a budget (`budget`)
net, labelled images → thresholds (`thresholds`) → a cascade of its paths (`cascade`), fitted and measured
(`cascade_fit`, `cascade_report`)
net, photos → names of classes and probabilities (`predict`), by a path, a cascade or an ONNX file (`predictors`)
net of masks, photos → the class of each pixel (`predict_masks`)
"""

from rsconvert.runtime.budget import for_budget, resolution_for_budget
from rsconvert.runtime.cascade import Cascade, cascade
from rsconvert.runtime.cascade_fit import fit_cascade
from rsconvert.runtime.predict import ClassProbability, Prediction, PredictionList, predict
from rsconvert.runtime.predict_masks import (
    MaskFile,
    MaskFiles,
    PredictedMask,
    class_palette,
    predict_masks,
    write_masks,
)
from rsconvert.runtime.predictors import chosen_resolution

__all__ = [
    "Cascade",
    "ClassProbability",
    "MaskFile",
    "MaskFiles",
    "PredictedMask",
    "Prediction",
    "PredictionList",
    "cascade",
    "chosen_resolution",
    "class_palette",
    "fit_cascade",
    "for_budget",
    "predict",
    "predict_masks",
    "resolution_for_budget",
    "write_masks",
]

"""Run time: the choice of a path, by a budget or image by image.

net, its table of costs → a path within a budget (`budget`)
net, labelled images → thresholds (`thresholds`) → a cascade of its paths (`cascade`), fitted and measured
(`cascade_fit`, `cascade_report`)
net, photos → names of classes and probabilities (`predict`), by a path, a cascade or an ONNX file (`predictors`)
"""

from rsconvert.runtime.budget import for_budget, resolution_for_budget
from rsconvert.runtime.cascade import Cascade, cascade
from rsconvert.runtime.cascade_fit import fit_cascade
from rsconvert.runtime.predict import ClassProbability, Prediction, PredictionList, predict
from rsconvert.runtime.predictors import chosen_resolution

__all__ = [
    "Cascade",
    "ClassProbability",
    "Prediction",
    "PredictionList",
    "cascade",
    "chosen_resolution",
    "fit_cascade",
    "for_budget",
    "predict",
    "resolution_for_budget",
]

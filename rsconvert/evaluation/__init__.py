"""Evaluation: what a network gets right, and what it costs, at each resolution."""

from rsconvert.evaluation.accuracy import Accuracy, Evaluation, check_classes, count_hits, evaluate
from rsconvert.evaluation.cost import multiply_adds

__all__ = ["Accuracy", "Evaluation", "check_classes", "count_hits", "evaluate", "multiply_adds"]

"""One step of training: a batch, the loss of all resolutions, its gradients, and the update."""

from rsconvert.training.step.batches import Feed
from rsconvert.training.step.defaults import explain_defaults, fill_defaults
from rsconvert.training.step.float_weights import FloatWeights, drop_float_weights
from rsconvert.training.step.gradients import generator_states, set_generators
from rsconvert.training.step.grids import check_task, masks_of
from rsconvert.training.step.objective import Objective
from rsconvert.training.step.optimizer import learning_parameters
from rsconvert.training.step.stepper import Stepper
from rsconvert.training.step.teacher import Teacher

__all__ = [
    "Feed",
    "FloatWeights",
    "Objective",
    "Stepper",
    "Teacher",
    "check_task",
    "drop_float_weights",
    "explain_defaults",
    "fill_defaults",
    "generator_states",
    "learning_parameters",
    "masks_of",
    "set_generators",
]

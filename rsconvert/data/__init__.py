"""Images: names of data sets → samples (`sets`) → views of one crop (`views`) → batches (`loading`)."""

from rsconvert.data.class_map import read_class_map
from rsconvert.data.interrupts import blocked_interrupts, postponed_interrupts
from rsconvert.data.loading import (
    Batch,
    EpochSampler,
    EvaluationViews,
    TrainingViews,
    ViewLoader,
    evaluation_loader,
    training_loader,
)
from rsconvert.data.sets import Samples, Split, open_images, open_split, open_train_val
from rsconvert.data.views import (
    PAPER_PREPROCESSING,
    Crop,
    Flip,
    Preprocessing,
    decode,
    evaluation_views,
    from_pillow,
    normalize,
    training_views,
)

__all__ = [
    "PAPER_PREPROCESSING",
    "Batch",
    "Crop",
    "EpochSampler",
    "EvaluationViews",
    "Flip",
    "Preprocessing",
    "Samples",
    "Split",
    "TrainingViews",
    "ViewLoader",
    "blocked_interrupts",
    "decode",
    "evaluation_loader",
    "evaluation_views",
    "from_pillow",
    "normalize",
    "open_images",
    "open_split",
    "open_train_val",
    "postponed_interrupts",
    "read_class_map",
    "training_loader",
    "training_views",
]

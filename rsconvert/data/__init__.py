"""Images: names of data sets → samples (`sets`) → pixels (`decoding`) → views (`views`) → batches (`loading`)."""

from rsconvert.data.class_map import read_class_map
from rsconvert.data.decoding import EncodedImage, decode, from_pillow
from rsconvert.data.interrupts import Interrupts, blocked_interrupts, postponed_interrupts
from rsconvert.data.loading import (
    Batch,
    EvaluationViews,
    TrainingViews,
    ViewLoader,
    evaluation_loader,
    training_loader,
)
from rsconvert.data.samples import Samples
from rsconvert.data.sampling import EpochSampler, share_of_batches
from rsconvert.data.sets import Split, open_images, open_split, open_train_val
from rsconvert.data.streams import Stream
from rsconvert.data.views import (
    PAPER_PREPROCESSING,
    Crop,
    Flip,
    Preprocessing,
    Size,
    evaluation_views,
    normalize,
    training_views,
)

__all__ = [
    "PAPER_PREPROCESSING",
    "Batch",
    "Crop",
    "EncodedImage",
    "EpochSampler",
    "EvaluationViews",
    "Flip",
    "Interrupts",
    "Preprocessing",
    "Samples",
    "Size",
    "Split",
    "Stream",
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
    "share_of_batches",
    "training_loader",
    "training_views",
]

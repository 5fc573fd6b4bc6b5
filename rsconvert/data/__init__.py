"""Images: names of data sets → samples (`sets`) → pixels (`decoding`) → views (`views`) → batches (`loading`)."""

from rsconvert.data.decoding import EncodedImage, from_pillow
from rsconvert.data.interrupts import Interrupts, postponed_interrupts
from rsconvert.data.loading import (
    EvaluationViews,
    ViewLoader,
    evaluation_loader,
    share_of_batches,
    training_loader,
)
from rsconvert.data.samples import Samples, read_class_map
from rsconvert.data.sets import open_images, open_split, open_train_val
from rsconvert.data.streams import Stream
from rsconvert.data.views import (
    PAPER_PREPROCESSING,
    Augmentation,
    Preprocessing,
    Size,
    evaluation_views,
    normalize,
    training_views,
)

__all__ = [
    "PAPER_PREPROCESSING",
    "Augmentation",
    "EncodedImage",
    "EvaluationViews",
    "Interrupts",
    "Preprocessing",
    "Samples",
    "Size",
    "Stream",
    "ViewLoader",
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

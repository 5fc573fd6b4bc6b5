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
from rsconvert.data.photos import Photo, photo_samples, prepare_photo
from rsconvert.data.samples import Samples, read_class_map, read_output_names
from rsconvert.data.sets import open_images, open_split, open_train_val
from rsconvert.data.streams import Stream
from rsconvert.data.views import (
    PAPER_PREPROCESSING,
    Augmentation,
    Preprocessing,
    Size,
    crop_shares,
    evaluation_views,
    normalize,
    resolution_of,
    training_views,
)

__all__ = [
    "PAPER_PREPROCESSING",
    "Augmentation",
    "EncodedImage",
    "EvaluationViews",
    "Interrupts",
    "Photo",
    "Preprocessing",
    "Samples",
    "Size",
    "Stream",
    "ViewLoader",
    "crop_shares",
    "evaluation_loader",
    "evaluation_views",
    "from_pillow",
    "normalize",
    "open_images",
    "open_split",
    "open_train_val",
    "photo_samples",
    "postponed_interrupts",
    "prepare_photo",
    "read_class_map",
    "read_output_names",
    "resolution_of",
    "share_of_batches",
    "training_loader",
    "training_views",
]

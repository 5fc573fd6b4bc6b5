"""Images: names of data sets → samples (`sets`) → pixels (`decoding`) → views (`views`) → batches (`loading`)."""

from rsconvert.data.broken import without_broken
from rsconvert.data.decoding import EncodedImage, as_pillow, check_channels, from_pillow
from rsconvert.data.folders import Split, is_plain
from rsconvert.data.interrupts import Interrupts, postponed_interrupts
from rsconvert.data.loading import (
    EvaluationViews,
    ViewLoader,
    evaluation_loader,
    share_of_batches,
    training_loader,
    whole_loader,
)
from rsconvert.data.masks import MaskReading, nearest, read_mask
from rsconvert.data.pair_views import Grid, Resize, WholeImages, fitted, whole_views
from rsconvert.data.pairs import Pairs, open_pairs, read_class_names
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
    "Grid",
    "Interrupts",
    "MaskReading",
    "Pairs",
    "Photo",
    "Preprocessing",
    "Resize",
    "Samples",
    "Size",
    "Split",
    "Stream",
    "ViewLoader",
    "WholeImages",
    "as_pillow",
    "check_channels",
    "crop_shares",
    "evaluation_loader",
    "evaluation_views",
    "fitted",
    "from_pillow",
    "is_plain",
    "nearest",
    "normalize",
    "open_images",
    "open_pairs",
    "open_split",
    "open_train_val",
    "photo_samples",
    "postponed_interrupts",
    "prepare_photo",
    "read_class_map",
    "read_class_names",
    "read_mask",
    "read_output_names",
    "resolution_of",
    "share_of_batches",
    "training_loader",
    "training_views",
    "whole_loader",
    "whole_views",
    "without_broken",
]

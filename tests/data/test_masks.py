"""Masks: what palette and grey images hold, and what no mask may be."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from rsconvert.data import MaskReading, nearest, read_mask
from rsconvert.errors import DataError

VALUES = np.array([[0, 1, 2], [3, 255, 1]], dtype=np.uint8)


def encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def palette() -> Image.Image:
    picture = Image.fromarray(VALUES, "P")
    picture.putpalette([i % 251 for i in range(768)])
    return picture


@pytest.mark.parametrize(
    "picture",
    [
        Image.fromarray(VALUES),
        palette(),
        Image.fromarray(VALUES.astype(np.uint16)),
        Image.fromarray(np.repeat(VALUES[..., None], 3, 2)),
    ],
    ids=["grey", "palette", "16 bits", "three equal channels"],
)
def test_values_are_classes(picture: Image.Image) -> None:
    reading = MaskReading(classes=4)
    assert read_mask(encoded(picture), "m.png", reading).tolist() == VALUES.tolist()
    assert read_mask(picture, "m", reading).tolist() == VALUES.tolist()


def test_an_offset_moves_all_but_what_is_ignored() -> None:
    mask = read_mask(Image.fromarray(VALUES), "m", MaskReading(classes=3, label_offset=1))
    assert mask.tolist() == [[255, 0, 1], [2, 255, 0]]
    mask = read_mask(Image.fromarray(VALUES), "m", MaskReading(classes=256, ignore_index=0))
    assert mask.tolist() == VALUES.tolist()


def test_an_offset_makes_no_class_what_is_ignored() -> None:
    with pytest.raises(DataError, match=r"the value 1, which the label offset 1 makes 0, .*another --ignore-index"):
        read_mask(Image.fromarray(VALUES), "m", MaskReading(classes=256, ignore_index=0, label_offset=1))
    with pytest.raises(DataError, match="the value 3, which the label offset -2 makes 5"):
        read_mask(Image.fromarray(VALUES), "m", MaskReading(ignore_index=5, label_offset=-2))


def test_many_classes_keep_their_numbers() -> None:
    values = np.array([[0, 40000]], dtype=np.uint16)
    mask = read_mask(Image.fromarray(values), "m", MaskReading(ignore_index=65535))
    assert (mask.tolist(), mask.dtype) == (values.tolist(), torch.int64)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"nothing", r"mask m.png can't be decoded .*PNG"),
        (encoded(Image.fromarray(VALUES), "JPEG"), "m.png is a JPEG, whose values are not exact"),
        (
            encoded(Image.new("RGB", (3, 2), (1, 2, 3))),
            "mode RGB with several values per position; a palette or .*colours to indices",
        ),
        (encoded(Image.new("F", (3, 2), 0.5), "TIFF"), "mode F with fractions; .*Write whole numbers"),
        (encoded(Image.fromarray(np.full((2, 2), 9, np.uint8))), "the value 9; 0 to 3, or 255 .*--label-offset"),
    ],
)
def test_what_is_no_mask_is_refused_in_one_line(content: bytes, told: str) -> None:
    with pytest.raises(DataError, match=told) as caught:
        read_mask(content, "m.png", MaskReading(classes=4))
    assert "\n" not in str(caught.value)


def test_the_nearest_value_is_that_at_the_centre() -> None:
    mask = torch.arange(8).view(2, 4)
    assert torch.equal(nearest(mask, 2, 4), mask)
    assert nearest(mask, 1, 2).tolist() == [[5, 7]]
    assert nearest(mask, 4, 4).tolist() == [[0, 1, 2, 3], [0, 1, 2, 3], [4, 5, 6, 7], [4, 5, 6, 7]]
    torch.manual_seed(0)
    like = torch.randint(99, (37, 23))
    own = torch.nn.functional.interpolate(like[None, None].float(), (11, 50), mode="nearest-exact")[0, 0]
    assert torch.equal(nearest(like, 11, 50), own.long())

"""Samples: images and targets by index, with an error that names what is wrong."""

import numpy as np
import pytest
import torch
from PIL import Image

from rsconvert.data.decoding import EncodedImage
from rsconvert.data.samples import Samples
from rsconvert.errors import DataError


def test_a_file_is_opened_before_it_is_decoded(tmp_path):
    Image.new("RGB", (3, 2), (1, 2, 3)).save(tmp_path / "a.png")
    for content in ((tmp_path / "a.png").read_bytes(), (tmp_path / "a.png").open("rb")):
        image, target = Samples([(content, 1)], "set", ("cat", "dog")).open(0)
        assert isinstance(image, EncodedImage)
        assert (image.shape, target) == ((3, 2, 3), 1)
        assert image.decode()[:, 0, 0].tolist() == [1, 2, 3]


def test_a_picture_comes_as_pixels():
    samples = Samples([(Image.new("RGB", (3, 2)), 0)], "set", None)
    assert torch.equal(samples.open(0)[0], torch.zeros((3, 2, 3), dtype=torch.uint8))
    assert torch.equal(samples.read(0)[0], samples.open(0)[0])


@pytest.mark.parametrize("content", [None, "a path", np.zeros((4, 4, 3), dtype=np.uint8), b"no image"])
def test_what_is_no_image_is_named(content):
    with pytest.raises(DataError, match=r"^set\[0\] can't be ") as caught:
        Samples([(content, 0)], "set", None).read(0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", [2, -1, None, 0.5, "cat", [0, 1]])
def test_a_target_that_is_no_class_is_named(target):
    samples = Samples([(Image.new("RGB", (2, 2)), target)], "set train", ("cat", "dog"))
    with pytest.raises(DataError, match=r"^set train\[0\] has the target .*; a target is one of 0 to 1\."):
        samples.read(0)


def test_without_class_names_any_count_is_a_target():
    samples = Samples([(Image.new("RGB", (2, 2)), 1000), (Image.new("RGB", (2, 2)), -1)], "set", None)
    assert samples.read(0)[1] == 1000
    with pytest.raises(DataError, match="an integer from 0 upwards"):
        samples.read(1)

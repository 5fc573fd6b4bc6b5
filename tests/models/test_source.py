"""Source: noted on a model, copied with it, absent elsewhere. ImageArgument: what a file may say of it."""

import copy
import dataclasses
import json

import pytest
from torch import nn

from rsconvert.data import Preprocessing
from rsconvert.models import ImageArgument, Source, set_source, source_of
from rsconvert.surgery import make_switchable

BATCH = ImageArgument(name="batch", keys=("left", "image"), ndim=5, axes=(-3, -2), channels=(-4, 2))


def test_a_model_made_elsewhere_has_an_empty_source() -> None:
    assert source_of(nn.Identity()) == Source()
    assert Source().architecture is None
    assert Source().preprocessing == Preprocessing()


def test_a_source_goes_with_copies_of_the_model() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    source = Source(architecture="mine.py:build", num_classes=4)
    set_source(model, source)
    assert source_of(copy.deepcopy(model)) == source
    assert list(model.state_dict()) == list(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).state_dict())
    net = make_switchable(model, (64, 32))
    assert source_of(net.at(64)) == source_of(net.extract(40)) == source
    assert net.source == dataclasses.replace(source, images=net.source.images)


def test_a_foreign_note_of_that_name_is_ignored() -> None:
    model = nn.Identity()
    model.rsconvert_source = "elsewhere"
    assert source_of(model) == Source()


def test_a_source_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Source().num_classes = 3


@pytest.mark.parametrize("image", [ImageArgument(), BATCH, ImageArgument(position=None, name="x")])
def test_plain_data_and_back(image: ImageArgument) -> None:
    assert ImageArgument.from_dict(json.loads(json.dumps(image.to_dict()))) == image


def test_it_says_where_and_how_an_image_lies() -> None:
    assert (BATCH.label, BATCH.layout) == ("batch.left.image", "(N, 2, H, W, *)")
    assert (ImageArgument(position=2).label, ImageArgument().layout) == ("2", "(N, C, H, W)")
    assert ImageArgument(ndim=5, axes=(-3, -2, -1), channels=(-4, 1)).layout == "(N, 1, H, W, D)"
    assert ImageArgument(ndim=3, axes=(-1,)).layout == "(N, *, L)"


@pytest.mark.parametrize(
    "change",
    [
        *({"position": value} for value in (-1, "0", True, 0.0)),
        *({"name": 1}, {"position": None, "name": None}, {"keys": "x"}, {"keys": [1]}),
        *({"ndim": value} for value in (0, 9, None, "4", 10**12)),
        *({"axes": value} for value in ([], [0], [-5], [-1, -1], [-1.0], "-1", None, [[]])),
        *({"channels": value} for value in ([], [-3], [-3, 0], [0, 3], [-3, 3.0], {}, [[], 3])),
    ],
)
def test_malformed_data_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="images holds"):
        ImageArgument.from_dict({**ImageArgument(name="x").to_dict(), **change})

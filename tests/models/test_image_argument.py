"""ImageArgument: what a file says of it, and what it must not say."""

import json

import pytest

from rsconvert.models.image_argument import ImageArgument

BATCH = ImageArgument(name="batch", keys=("left", "image"), ndim=5, axes=(-3, -2), channels=(-4, 2))


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

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rsconvert.demo import PATTERNS, draw, write_images


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_drawing_is_a_function_of_its_generator(pattern: str) -> None:
    one, same, other = (np.asarray(draw(pattern, np.random.default_rng(seed))) for seed in (3, 3, 4))
    assert one.shape == (128, 128, 3)
    assert one.dtype == np.uint8
    assert (one == same).all()
    assert (one != other).mean() > 0.5


def test_the_classes_differ_in_detail_alone() -> None:
    """One generator state draws one place and colours; what is left after shrinking eightfold is nearly equal."""
    drawings = [draw(pattern, np.random.default_rng(0)) for pattern in PATTERNS]
    full = [np.asarray(d, dtype=float) for d in drawings]
    small = [np.asarray(d.resize((16, 16), Image.Resampling.BOX), dtype=float) for d in drawings]
    pairs = [(i, j) for i in range(len(drawings)) for j in range(i)]
    apart = np.mean([np.abs(full[i] - full[j]).mean() for i, j in pairs])
    blurred = np.mean([np.abs(small[i] - small[j]).mean() for i, j in pairs])
    assert blurred < apart / 2


def test_images_lie_in_class_folders(tmp_path: Path) -> None:
    write_images(tmp_path, "val", 2, np.random.default_rng(0))
    assert sorted(p.parent.name for p in tmp_path.glob("val/*/*.png")) == sorted([*PATTERNS, *PATTERNS])

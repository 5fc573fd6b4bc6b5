from typing import Any

import pytest

from rsconvert import ConfigError, DataError
from rsconvert.data import open_split
from rsconvert.evaluation import predict
from rsconvert.study.report.examples import draw_images, encoded_views, short_name


def test_images_are_drawn_once_each_by_the_seed_alone() -> None:
    drawn = draw_images(24, 1500, 0)
    assert drawn == sorted(set(drawn)) == draw_images(24, 1500, 0)
    assert len(drawn) == 24
    assert set(drawn) < set(range(1500))
    assert drawn != draw_images(24, 1500, 1)
    assert draw_images(24, 3, 0) == [0, 1, 2]
    assert draw_images(0, 3, 0) == []


def test_every_image_has_the_same_chance() -> None:
    hits = [0] * 10
    for seed in range(1000):
        for index in draw_images(3, 10, seed):
            hits[index] += 1
    assert all(240 < count < 360 for count in hits)  # 300 each, four standard deviations


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="examples is -2"):
        draw_images(-2, 10, 0)


def test_an_image_that_has_gone_is_named(written: Any, tmp_path: Any) -> None:
    samples = open_split(str(written.data), "val")
    found = predict({"network": written.net}, samples, [32], workers=0)
    (tmp_path / "val" / "a").mkdir(parents=True)
    (tmp_path / "val" / "a" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"0\.png can't be decoded"):
        list(encoded_views(found, open_split(str(tmp_path), "val"), [0]))


def test_a_name_is_the_file_in_its_folder(written: Any) -> None:
    assert short_name(open_split(str(written.data), "val"), 7) == "b<i>/1.png"

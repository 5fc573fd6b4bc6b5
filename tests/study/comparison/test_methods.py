"""Methods: what their names stand for, in which order they come, what is refused."""

from typing import Any

import pytest

from rsconvert.errors import ConfigError
from rsconvert.study.comparison.methods import choose_methods

SIDES = (32, 24, 16)


def test_a_subset_is_trained_in_parallel_from_the_largest_on() -> None:
    (method,) = choose_methods([], SIDES, subsets=[(16, 32)])
    assert (method.name, method.title, method.trained(SIDES)) == ("parallel-32+16", "32+16", (32, 16))
    assert method.distill == "none"


@pytest.mark.parametrize("crop_area", [(0.08, 1.0), "0.08,1"])
def test_another_crop_area_comes_beside_with_a_baseline_of_its_own(crop_area: Any) -> None:
    methods = choose_methods(["inets", "rsnet"], SIDES, crop_area=crop_area)
    assert [m.name for m in methods] == ["inets", "rsnet", "inets-crop-0.08-1", "rsnet-crop-0.08-1"]
    assert [m.baseline for m in methods] == ["inets", "inets", "inets-crop-0.08-1", "inets-crop-0.08-1"]
    assert (methods[3].distill, methods[3].crop_area) == ("full", (0.08, 1.0))
    assert (methods[1].distill, methods[1].crop_area) == ("full", None)
    assert [m.label for m in methods[1::2]] == ["RS-Net", "RS-Net, crops 0.08-1"]


def test_what_is_made_without_crops_comes_once_and_fixres_after_its_i_nets() -> None:
    methods = choose_methods(["fixres", "source", "inets", "heads"], SIDES, crop_area=(0.08, 1.0))
    ending = "-crop-0.08-1"
    assert [m.name for m in methods] == ["source", "inets", "heads", f"inets{ending}", "fixres", f"fixres{ending}"]
    assert [m.own_size for m in methods] == [False, False, True, False, True, True]
    assert not any(m.learns_alpha for m in methods)
    assert [m.trained(SIDES) for m in methods[:3]] == [(32,), SIDES, SIDES]


@pytest.mark.parametrize(
    ("names", "options", "told"),
    [
        (["rsnets"], {}, "method 'rsnets' is unknown; near ones are rsnet, inets"),
        (["xyzzy"], {}, "known are inets, parallel, rsnet, shared-bn"),
        ([], {}, "methods is empty"),
        (["rsnet", "inets", "rsnet"], {}, "rsnet comes twice"),
        ([], {"subsets": [(32, 20)]}, "subset 32+20 has 20, which the network does not switch to; 32, 24, 16 are"),
        ([], {"subsets": [(32, "x")]}, "subset 32[+]x has x"),
        ([], {"subsets": [(32,)]}, "subset 32 has 1 resolutions; from 2 to 2 different ones"),
        ([], {"subsets": [(32, 32)]}, "from 2 to 2 different ones"),
        ([], {"subsets": [SIDES]}, "For all of them name the method parallel"),
        ([], {"subsets": [(32, 16), (16, 32)]}, "parallel-32[+]16 comes twice"),
        (["fixres", "rsnet"], {}, "fixres starts from a finished I-Net; add inets to the methods"),
        (["heads", "source"], {"crop_area": (0.08, 1.0)}, "crop_area has no effect, because none of the methods"),
        (["rsnet"], {"crop_area": (1.0, 0.5)}, "crop_area is"),
        (["rsnet"], {"crop_area": "0.5"}, "crop_area is"),
        (["rsnet"], {"crop_area": "large"}, "crop_area is 'large'; a list of numbers"),
    ],
)
def test_what_can_not_be_compared_is_told(names: list[str], options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told.replace("+20 ", "[+]20 ")):
        choose_methods(names, SIDES, **options)

"""Methods: what each name stands for, what is refused."""

from typing import Any

import pytest
from rsconvert.study.comparison.methods import KNOWN, choose_methods

from rsconvert.errors import ConfigError

SIDES = (32, 24, 16)


@pytest.mark.parametrize(
    ("name", "settings", "apart", "private"),
    [
        ("inets", {"distill": "none"}, True, True),
        ("parallel", {"distill": "none"}, False, True),
        ("rsnet", {"distill": "full"}, False, True),
        ("shared-bn", {"distill": "none"}, False, False),
        ("vanilla", {"distill": "vanilla"}, False, True),
        ("top-down", {"distill": "top-down"}, False, True),
        ("largest", {"distill": "largest"}, False, True),
        ("per-view", {"crop": "per-view"}, False, True),
        ("one-size", {"crop": "per-view", "view_sizes": (32, 32, 32)}, False, True),
    ],
)
def test_a_name_stands_for_a_way_to_train(name: str, settings: dict[str, Any], apart: bool, private: bool) -> None:
    (method,) = choose_methods([name], SIDES)
    assert (method.settings, method.apart, method.private) == (settings, apart, private)
    assert method.trained(SIDES) == ((32,) if name == "one-size" else SIDES)
    assert set(KNOWN) >= {name}


def test_a_subset_is_trained_in_parallel_from_the_largest_on() -> None:
    (method,) = choose_methods([], SIDES, subsets=[(16, 32)])
    assert (method.name, method.title, method.trained(SIDES)) == ("parallel-32+16", "32+16", (32, 16))
    assert method.settings == {"distill": "none"}


@pytest.mark.parametrize("crop_area", [(0.08, 1.0), "0.08,1"])
def test_another_crop_area_comes_beside_with_a_baseline_of_its_own(crop_area: Any) -> None:
    methods = choose_methods(["inets", "rsnet"], SIDES, crop_area=crop_area)
    assert [m.name for m in methods] == ["inets", "rsnet", "inets-crop-0.08-1", "rsnet-crop-0.08-1"]
    assert [m.baseline for m in methods] == ["inets", "inets", "inets-crop-0.08-1", "inets-crop-0.08-1"]
    assert methods[3].settings == {"distill": "full", "crop_area": (0.08, 1.0)}
    assert methods[1].settings == {"distill": "full"}
    assert [m.label for m in methods[1::2]] == ["RS-Net", "RS-Net, crops 0.08-1"]


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
        ([], {"subsets": [SIDES]}, "or name the method parallel for all"),
        ([], {"subsets": [(32, 16), (16, 32)]}, "parallel-32[+]16 comes twice"),
        (["rsnet"], {"crop_area": (1.0, 0.5)}, "crop_area is"),
        (["rsnet"], {"crop_area": "0.5"}, "crop_area is"),
        (["rsnet"], {"crop_area": "large"}, "crop_area is 'large'; a list of numbers"),
    ],
)
def test_what_can_not_be_compared_is_told(names: list[str], options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told.replace("+20 ", "[+]20 ")):
        choose_methods(names, SIDES, **options)

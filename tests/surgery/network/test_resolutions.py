"""The stages of a cascade: increasing resolutions with a threshold for each but the last."""

from typing import Any

import pytest

from rsconvert.errors import ConfigError, ResolutionError
from rsconvert.surgery import check_stages


def test_stages_come_back_in_their_order() -> None:
    assert check_stages([96, 160, 224], [0, 1.0]) == (96, 160, 224)


@pytest.mark.parametrize("stages", [[96], [160, 96], [96, 96], [], [96, "x"], [0, 96]])
def test_stages_that_do_not_increase_are_refused(stages: list[Any]) -> None:
    with pytest.raises(ResolutionError):
        check_stages(stages, [0.5])


@pytest.mark.parametrize("thresholds", [[], [0.5, 0.5], [1.5], [-0.1], ["0.5"], [True], [float("nan")]])
def test_a_threshold_is_a_share(thresholds: list[Any]) -> None:
    with pytest.raises(ConfigError, match="1 numbers from 0 to 1 are needed"):
        check_stages([96, 160], thresholds)

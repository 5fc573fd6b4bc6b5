"""The survey: what works as it is, what is built again, which arguments are tried, and that they stay the same."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rsconvert.errors import ConfigError, ResolutionError, UnsupportedModelError
from rsconvert.models import Source
from rsconvert.surgery.survey import Survey, arguments_of, survey, working_resolutions


class Sized(nn.Module):
    """Takes one size only: its classifier reads every pixel."""

    def __init__(self, side: int, factor: float = 1.0) -> None:
        super().__init__()
        self.side, self.factor = side, factor
        self.conv, self.bn = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.bn(self.conv(x)).view(-1, 4, self.side**2).mean(2)


def test_a_model_that_takes_all_sizes_is_tried_as_it_is(tiny: Callable[[], nn.Module]) -> None:
    found = survey(tiny(), Source(), (64, 32))
    assert (list(found.trials), found.refused, found.built, found.way, found.tables) == ([64, 32], {}, {}, None, ())
    assert [trial.calls for trial in found.trials.values()] == [{"bn1": 1, "bn2": 1}] * 2
    assert [image.position for image in found.images] == [0]
    assert found.seconds > 0


@pytest.mark.parametrize("private", [True, False])
def test_each_resolution_has_its_own_values_if_they_are_private(private: bool, tiny: Callable[[], nn.Module]) -> None:
    found = survey(tiny(), Source(), (64, 32), private=private)
    one, other = (found.values[r]["bn1.weight"] for r in (64, 32))
    assert torch.equal(one, other) is not private


def test_a_resolution_that_fails_has_its_reason_and_no_images_are_sought() -> None:
    found = survey(Sized(64), Source(), (64, 32))
    assert list(found.refused) == [32]
    assert found.refused[32].startswith("Sized fails at test_survey.py:")
    assert found.images == ()


def test_a_builder_makes_the_model_for_what_it_refuses() -> None:
    found = survey(Sized(64), Source(), (64, 32), build=Sized)
    assert (found.refused, found.way, list(found.built)) == ({}, "build", [64, 32])
    assert [built.side for built in found.built.values()] == [64, 32]


def test_a_builder_that_fails_for_one_resolution_refuses_that_one() -> None:
    def build(resolution: int) -> nn.Module:
        if resolution == 32:
            raise ResolutionError("32 is odd")
        return Sized(resolution)

    found = survey(Sized(64), Source(), (64, 48, 32), build=build)
    assert found.refused == {32: "32 is odd"}
    assert list(found.built) == [64, 48]


def test_a_builder_of_another_model_works_nowhere() -> None:
    found = survey(Sized(64), Source(), (64, 32), build=lambda _: nn.Sequential(nn.BatchNorm2d(3)))
    assert list(found.refused) == [64, 32]
    assert len(set(found.refused.values())) == 1


def test_a_builder_of_another_arithmetic_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="Sized built again for 64 by build computes something else"):
        survey(Sized(64), Source(), (64, 32), build=lambda resolution: Sized(resolution, 2.0))


def test_an_example_is_drawn_once_and_never_overwritten(tiny: Callable[[], nn.Module]) -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = tiny()

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x.mul_(2))

    drawn = []

    def example(resolution: int) -> tuple[Tensor]:
        drawn.append(resolution)
        return (torch.rand(1, 3, resolution, resolution),)

    found = survey(InPlace(), Source(), (64, 32), example=example)
    assert drawn == [64, 32]
    assert torch.equal(found.example(64)[0], found.example(64)[0])
    assert found.example(64)[0].max() <= 1


@pytest.mark.parametrize("wrong", [torch.ones(1, 3, 64, 64), [1], None])
def test_an_example_that_is_no_tuple_of_arguments_is_refused(wrong: Any, tiny: Callable[[], nn.Module]) -> None:
    with pytest.raises(ConfigError, match=rf"^example returned {type(wrong).__name__} for 64; a tuple"):
        survey(tiny(), Source(), (64, 32), example=lambda _: wrong)


def test_an_image_that_no_example_shows_is_refused(tiny: Callable[[], nn.Module]) -> None:
    with pytest.raises(ConfigError, match="image is 3"):
        survey(tiny(), Source(), (64, 32), image=3)


def test_working_resolutions_are_proposed_without_data() -> None:
    model = Sized(64)
    assert working_resolutions(Survey(arguments_of(model)), model, (32, 64, 96, 64)) == [64]
    built = Survey(arguments_of(model), "build", Sized)
    assert working_resolutions(built, model, (32, 64, 96)) == [96, 64, 32]


def test_arguments_are_those_that_forward_demands() -> None:
    class Two(Sized):
        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return super().forward(first - second)

    given = arguments_of(Two(32))(32)
    assert [tuple(x.shape) for x in given] == [(1, 3, 32, 32)] * 2

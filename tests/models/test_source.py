"""Source: noted on a model, copied with it, absent elsewhere."""

import copy
import dataclasses

import pytest
from torch import nn

from rsconvert.data import Preprocessing
from rsconvert.models import Source, set_source, source_of
from rsconvert.surgery import make_switchable


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

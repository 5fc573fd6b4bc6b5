"""A network to calibrate."""

from collections.abc import Callable

import pytest

from rsconvert.surgery import SwitchableModel


@pytest.fixture
def net(make_net: Callable[..., SwitchableModel]) -> SwitchableModel:
    return make_net()

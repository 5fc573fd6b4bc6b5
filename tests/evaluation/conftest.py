"""A small network."""

import pytest
import torch

import rsconvert
from rsconvert.surgery import SwitchableModel

RESOLUTIONS = (64, 48, 32)


@pytest.fixture
def net() -> SwitchableModel:
    torch.manual_seed(0)
    return rsconvert.make_switchable(rsconvert.create_model("test_efficientnet", num_classes=5), RESOLUTIONS).eval()

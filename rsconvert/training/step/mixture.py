"""Mixture: a network between the one that training started from and the one that it made."""

import copy
import re

import torch

from rsconvert.surgery import SwitchableModel

__all__ = ["Mixture"]

_AT = re.compile(r"\.at\.\d+(?=\.)")  # of a private tensor's name


class Mixture:
    """Holds ``share`` · start + (1 - share) · trained, of parameters and statistics (WiSE-FT, Wortsman et al. 2022).

    A mixture keeps what the start knew where training on few images would forget it. Alpha, and a classifier that is
    new, are the trained ones: their start knows nothing.

    Args:
        net: as training starts.
        share: from 0 to below 1.
    """

    def __init__(self, net: SwitchableModel, share: float) -> None:
        self.net, self._share = copy.deepcopy(net), share
        unknown = {"rsconvert.alpha", *net.source.new_classifier}
        start = {name: value for name, value in net.state_dict().items() if value.is_floating_point()}
        self._start = {name: v.clone() for name, v in start.items() if _AT.sub("", name) not in unknown}

    @torch.no_grad()
    def update(self, trained: SwitchableModel) -> None:
        """Take what training made of the network so far."""
        values = trained.state_dict()
        for name, value in self.net.state_dict().items():
            value.copy_(values[name])
            if name in self._start:
                value.lerp_(self._start[name], self._share)

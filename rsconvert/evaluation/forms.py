"""Forms: the ways to run one path that are measured beside each other."""

import copy
import difflib
from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from rsconvert.errors import ConfigError
from rsconvert.surgery import SwitchableModel, fold_batchnorm

__all__ = ["FORMS", "check_forms", "paths_in_form"]

FORMS = ("plain", "channels_last", "compiled", "folded")
"""As it is; with the channels innermost in memory; by torch.compile; with BatchNorms folded into convolutions."""


def check_forms(forms: Sequence[str]) -> tuple[str, ...]:
    """Return the forms if each is known and comes once.

    Raises:
        ConfigError: one is unknown or repeated, or there is none.
    """
    known = f"{', '.join(FORMS)} are accepted"
    if not forms:
        raise ConfigError(f"forms is empty; {known}. Name one.")
    for form in forms:
        if form not in FORMS:
            near = difflib.get_close_matches(str(form), FORMS, n=1)
            raise ConfigError(f"form is {form!r}; {known}. {f'Did you mean {near[0]}?' if near else 'Choose one.'}")
        if list(forms).count(form) > 1:
            raise ConfigError(f"forms has {form} twice: {','.join(forms)}; each is measured once. Remove the repeat.")
    return tuple(forms)


def paths_in_form(net: SwitchableModel, form: str, resolutions: Sequence[int]) -> dict[int, nn.Module]:
    """Return the path of each resolution in a form; ``net`` is left as it is.

    A compiled path is compiled when it first runs, for each size of input.
    """
    if form == "channels_last":
        wide = copy.deepcopy(net).to(memory_format=torch.channels_last)
        return {r: wide.at(r) for r in resolutions}
    return {r: _formed(net.at(r), form, r) for r in resolutions}


def _formed(path: nn.Module, form: str, resolution: int) -> nn.Module:
    if form == "compiled":
        return cast(nn.Module, torch.compile(path, dynamic=False))
    if form == "folded":
        return fold_batchnorm(path, resolution)[0]
    return path

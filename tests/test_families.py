"""One small member of each of many families: every path is exact on batches, a step of it is a step of the source.

The sweep over all architectures, ``benchmarks/sweep.py``, runs the same checks on the rest.
"""

import copy

import pytest
import torch

from rsconvert import create_model, make_switchable
from rsconvert.compatibility.exactness import check_training, exact_in_batches
from rsconvert.surgery import fill_zeros, write

SMALL = (64, 32)
# Builders' own arguments that make some of them thin.
THIN = {
    "botnet26t_256": {"width_factor": 0.25},
    "densenet121": {"block_config": (2, 2, 2, 2), "growth_rate": 8},
    "resnest14d": {"stem_width": 8, "base_width": 16},
}
FAMILIES = {
    "botnet26t_256": (256,),
    "cs3darknet_focus_s": SMALL,
    "densenet121": SMALL,
    "dla46_c": SMALL,
    "efficientvit_b0": SMALL,
    "ese_vovnet19b_slim_dw": SMALL,
    "fasternet_t0": SMALL,
    "fastvit_t8": SMALL,
    "ghostnet_050": SMALL,
    "hardcorenas_a": SMALL,
    "hgnetv2_b0": SMALL,
    "hrnet_w18_small": SMALL,
    "mobilenetv3_small_050": SMALL,
    "mobilevit_xxs": SMALL,
    "regnety_002": SMALL,
    "repghostnet_050": SMALL,
    "repvgg_a0": SMALL,
    "resnest14d": SMALL,
    "resnet10t": SMALL,
    "rexnetr_100": SMALL,
    "starnet_s1": SMALL,
    "test_efficientnet": SMALL,
    "torchvision/lraspp_mobilenet_v3_large": SMALL,
    "torchvision/mnasnet0_5": SMALL,
    "torchvision/shufflenet_v2_x0_5": SMALL,
    "xcit_nano_12_p16_224": SMALL,
}


@pytest.mark.filterwarnings("ignore")  # of the libraries' own builders
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_exact_and_trains_as_its_source(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, model_kwargs=THIN.get(name, {}))
    write(model, fill_zeros(model))
    net = make_switchable(model, FAMILIES[name])
    assert net.report is not None
    assert net.report.unseen == ()
    assert exact_in_batches(net, lambda _: copy.deepcopy(model)) == dict.fromkeys(FAMILIES[name], True)
    check = check_training(model, net, net.resolutions[-1])
    assert check.same, check.words


def test_the_families_are_distinct() -> None:
    from rsconvert.compatibility.check import family_of

    assert len({family_of(name) for name in FAMILIES}) == len(FAMILIES) >= 25

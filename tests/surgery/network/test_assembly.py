"""Networks out of plain models: the swap without a proof, the values of other models, another classifier."""

import pytest
import torch
from torch import nn

from rsconvert.errors import ConfigError, UnsupportedModelError
from rsconvert.models import create_model
from rsconvert.surgery import SwitchableModel, make_switchable
from rsconvert.surgery.network.assembly import assemble, regroup, with_classifier

RESOLUTIONS = (64, 48, 32)


@pytest.fixture
def net(tiny, write_all) -> SwitchableModel:
    return write_all(assemble(tiny(), RESOLUTIONS)).eval()


def test_a_network_is_made_without_a_proof(net, tiny, image) -> None:
    assert (net.report, net.resolutions) == (None, RESOLUTIONS)
    assert [name for name, _ in net.switchable_bns()] == ["bn1", "bn2"]
    plain = tiny().eval()
    plain.load_state_dict(net.at(48).state_dict())
    assert torch.equal(net(image(48)), plain(image(48)))


def test_a_bare_batchnorm_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"^the model is a BatchNorm2d itself; .* Put it into an"):
        assemble(nn.BatchNorm2d(3), RESOLUTIONS)


def test_paths_are_regrouped_with_their_values_and_settings(net, image) -> None:
    plain = {resolution: net.extract(resolution) for resolution in (48, 32)}
    plain[32].bn1.momentum = 0.3
    plain[32].bn2.train().bias.requires_grad_(False)
    small = regroup(net, plain)
    assert small.resolutions == (48, 32)
    assert (small.at(32).bn1.momentum, small.at(48).bn1.momentum) == (0.3, 0.1)
    assert [small.at(r).bn2.bias.requires_grad for r in (48, 32)] == [True, False]
    assert [small.at(r).bn2.training for r in (48, 32)] == [False, True]
    assert all(torch.equal(small.eval()(image(r)), net.eval()(image(r))) for r in (48, 32))
    shared = {tensor.data_ptr() for tensor in net.state_dict().values()}
    assert not any(tensor.data_ptr() in shared for tensor in small.state_dict().values())


def test_a_restructured_network_stays_one(net) -> None:
    net.fc = nn.Linear(6, 2)
    assert net.restructured
    assert regroup(net, {resolution: net.extract(resolution) for resolution in RESOLUTIONS}).restructured


def test_another_classifier_is_zero_and_leaves_the_network() -> None:
    net = make_switchable(create_model("test_efficientnet", num_classes=4), (48, 32)).eval()
    net.alpha.data.fill_(2.0)
    new = with_classifier(net, 7)
    assert not new.at(32).classifier.weight.any()
    assert (new.source.num_classes, net.source.num_classes) == (7, 4)
    assert new.source.new_classifier == ("classifier.weight", "classifier.bias")
    assert new.alpha.tolist() == [2.0, 2.0]
    x = torch.rand(1, 3, 32, 32)
    assert (net(x).shape, new(x).shape) == ((1, 4), (1, 7))
    with pytest.raises(ConfigError, match="-1"):
        with_classifier(net, -1)

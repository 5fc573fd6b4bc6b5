"""A cascade equals its paths composed by hand; only undecided images go up."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rsconvert
from rsconvert.errors import ConfigError, ResolutionError, UnsupportedModelError
from rsconvert.runtime import Cascade
from rsconvert.surgery import Measured, SwitchableModel, make_switchable

STAGES, THRESHOLDS = (24, 40, 48), (0.5, 0.9)


@pytest.fixture
def net(tiny: type[nn.Module]) -> SwitchableModel:
    """A network of 48, 32 and 24 whose sets differ, in eval mode."""
    torch.manual_seed(0)
    net = make_switchable(tiny(), (48, 32, 24)).eval()
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point() and "var" not in name:
            tensor.add_(0.3 * torch.randn_like(tensor))
    net.at(48).fc.weight.data *= 3
    return net


@pytest.fixture
def images() -> Tensor:
    return torch.randn(12, 3, 48, 48, generator=torch.Generator().manual_seed(1)).cumsum(0)


def composed(net: SwitchableModel, views: list[Tensor]) -> tuple[Tensor, list[int]]:
    """Every path on every image; then one image after the other, by hand."""
    with torch.no_grad():
        every = [net.at(r)(view) for r, view in zip(STAGES, views, strict=True)]
    rows, answered = [], []
    for n in range(len(views[0])):
        sure = [bool(every[i][n].softmax(0).max() >= limit) for i, limit in enumerate(THRESHOLDS)]
        stage = 0 if sure[0] else 1 if sure[1] else 2
        rows.append(every[stage][n])
        answered.append(STAGES[stage])
    return torch.stack(rows), answered


def shrunk(images: Tensor) -> list[Tensor]:
    return [F.interpolate(images, (r, r), mode="bilinear", antialias=True) for r in STAGES[:2]] + [images]


def test_it_equals_its_paths_composed_by_hand(net: SwitchableModel, images: Tensor) -> None:
    logits, answered = Cascade(net, STAGES, THRESHOLDS)(images)
    expected, stages = composed(net, shrunk(images))
    assert set(stages) == set(STAGES)  # all of them answer some
    assert answered.tolist() == stages
    torch.testing.assert_close(logits, expected)
    assert not logits.requires_grad


def test_views_of_their_own_are_taken_as_they_are(net: SwitchableModel, images: Tensor) -> None:
    views = [view.flip(3) for view in shrunk(images)]
    logits, answered = Cascade(net, STAGES, THRESHOLDS)(views)
    expected, stages = composed(net, views)
    assert answered.tolist() == stages
    torch.testing.assert_close(logits, expected)


def test_larger_images_are_resized_for_all_stages(net: SwitchableModel) -> None:
    images = torch.randn(6, 3, 60, 80, generator=torch.Generator().manual_seed(2)).cumsum(0)
    ready = Cascade(net, (24, 48), (1.0,))
    seen = []
    net.at(48).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    ready(images)
    assert seen[0].shape[-2:] == (42, 56)  # √(42 · 56) = 48
    assert torch.equal(seen[0], F.interpolate(images, (42, 56), mode="bilinear", antialias=True))


def test_only_undecided_images_go_up(net: SwitchableModel, images: Tensor) -> None:
    counts: dict[int, int] = {}
    ready = Cascade(net, (24, 32, 48), THRESHOLDS)
    for r in ready.stages:
        net.at(r).register_forward_pre_hook(lambda _, args, r=r: counts.update({r: len(args[0])}))
    _, answered = ready(images)
    below = [int((answered == r).sum()) for r in ready.stages]
    assert 0 < below[0] < 12
    assert counts == {24: 12, 32: 12 - below[0], 48: 12 - below[0] - below[1]}


@pytest.mark.parametrize(("limit", "answers"), [(0.0, 24), (1.0, 48)])
def test_all_or_none_are_sure(net: SwitchableModel, images: Tensor, limit: float, answers: int) -> None:
    calls = []
    net.at(48).register_forward_pre_hook(lambda *_: calls.append(1))
    _, answered = Cascade(net, (24, 48), (limit,))(images)
    assert set(answered.tolist()) == {answers}
    assert len(calls) == (answers == 48)


def test_no_images_give_no_answers(net: SwitchableModel) -> None:
    logits, answered = Cascade(net, STAGES, THRESHOLDS)(torch.zeros(0, 3, 48, 48))
    assert (logits.shape, answered.shape) == ((0, 5), (0,))


def test_logits_that_are_no_numbers_go_up_and_stay(net: SwitchableModel, images: Tensor) -> None:
    images[3] = torch.nan
    logits, answered = Cascade(net, (24, 48), (0.0,))(images)
    assert answered.tolist() == [48 if n == 3 else 24 for n in range(12)]
    assert logits.isnan().any(1).tolist() == [n == 3 for n in range(12)]


def test_confidence_may_be_counted_among_some_outputs(net: SwitchableModel, images: Tensor) -> None:
    logits, answered = Cascade(net, (24, 48), (0.6,), outputs=[1, 3])(images)
    assert logits.shape == (12, 5)
    with torch.no_grad():
        small = net.at(24)(shrunk(images)[0])[:, [1, 3]].softmax(1).amax(1)
    assert (answered == 24).tolist() == (small >= 0.6).tolist()
    assert 0 < (answered == 24).sum() < 12


def test_the_stored_one_runs_by_one_call(net: SwitchableModel, images: Tensor) -> None:
    with pytest.raises(ConfigError, match="rsconvert cascade CHECKPOINT --data DIR"):
        rsconvert.cascade(net, images)
    record = {"stages": list(STAGES), "thresholds": list(THRESHOLDS), "outputs": [0, 2, 4]}
    net.measured = Measured(cascade=record)
    logits, answered = rsconvert.cascade(net, images)
    expected = Cascade(net, STAGES, THRESHOLDS, [0, 2, 4])(images)
    assert torch.equal(logits, expected.logits)
    assert torch.equal(answered, expected.resolution)


def test_sixteen_bits_work(net: SwitchableModel, images: Tensor) -> None:
    logits, _ = Cascade(net.to(torch.bfloat16), STAGES, THRESHOLDS)(images.to(torch.bfloat16))
    assert logits.dtype == torch.float32


def test_what_does_not_fit_is_refused(net: SwitchableModel, images: Tensor, tiny: type[nn.Module]) -> None:
    ready = Cascade(net, (24, 48), (0.5,))
    with pytest.raises(ResolutionError, match="at least 48 pixels"):
        ready(images[..., :40, :40])
    with pytest.raises(ResolutionError, match=r"batches are 1 of 12 images.*\(24, 48\)"):
        ready([images])
    with pytest.raises(ResolutionError, match="the same images"):
        ready([images[:2], images])
    net.train()
    with pytest.raises(ConfigError, match=r"net\.eval\(\)"):
        ready(images)
    net.eval()
    maps = make_switchable(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), (48, 24)).eval()
    with pytest.raises(UnsupportedModelError, match="logits"):
        Cascade(maps, (24, 48), (0.5,))(images)

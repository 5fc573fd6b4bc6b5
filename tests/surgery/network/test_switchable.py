"""SwitchableModel: names, live paths, locality, interpolation, dispatch, and what survives a copy."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import timm
import torch
from torch import nn

from rsconvert.errors import ResolutionError, UnsupportedModelError
from rsconvert.surgery import SwitchableBN, SwitchableModel, make_switchable

RESOLUTIONS = (64, 48, 32)
TENSORS = ("weight", "bias", "running_mean", "running_var")


@pytest.fixture
def net(tiny, write_all) -> SwitchableModel:
    """A network of three different sets, in eval mode."""
    return write_all(make_switchable(tiny(), RESOLUTIONS)).eval()


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def bn_bytes(net: SwitchableModel, resolution: int) -> list[bytes]:
    sets = (bn.bn_set(resolution) for _, bn in net.switchable_bns())
    return [tensor.detach().numpy().tobytes() for bn in sets for tensor in (*bn.parameters(), *bn.buffers())]


def shares_everything(net: SwitchableModel) -> bool:
    registered = {id(tensor) for tensor in net.state_dict(keep_vars=True).values()}
    paths = (net.at(r).state_dict(keep_vars=True).values() for r in net.resolutions)
    return all(id(tensor) in registered for path in paths for tensor in path)


def test_the_keys_are_those_of_the_file(net, tiny) -> None:
    own = set(tiny().state_dict())
    private = {key for key in own if ".running" in key or key.startswith("bn")}
    others = {f"{k.split('.')[0]}.at.{r}.{k.split('.')[1]}" for k in private for r in (48, 32)}
    assert set(net.state_dict()) == own | others | {"rsconvert.alpha"}


def test_nothing_is_registered_twice(net, tiny) -> None:
    names = [name for name, _ in net.named_parameters(remove_duplicate=False)]
    assert len(names) == len(set(names)) == len(list(net.parameters()))
    plain, private = sum(p.numel() for p in tiny().parameters()), 2 * (8 + 6)
    assert sum(p.numel() for p in net.parameters()) == plain + 2 * private + 3


def test_alpha_starts_at_ones(net) -> None:
    assert torch.equal(net.alpha, torch.ones(3))
    assert net.alpha.requires_grad
    assert dict(net.named_parameters())["rsconvert.alpha"] is net.alpha


def test_a_path_is_the_source_in_class_and_keys(net, tiny) -> None:
    for resolution in RESOLUTIONS:
        path = net.at(resolution)
        assert type(path) is tiny
        assert list(path.state_dict()) == list(tiny().state_dict())
        assert type(path.bn1) is nn.BatchNorm2d
        assert net.at(resolution) is path
        assert path.forward_features(torch.zeros(1, 3, 32, 32)).shape[1] == 6
    assert net.native == 64


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net,
        nn.Module.half,
        nn.Module.double,
        lambda net: net.to(memory_format=torch.channels_last),
        lambda net: net.load_state_dict(snapshot(net)),
        lambda net: net.load_state_dict(snapshot(net), assign=True),
        lambda net: net.at(48).load_state_dict(snapshot(net.at(32))),
        lambda net: net.at(48).load_state_dict(snapshot(net.at(32)), assign=True),
        lambda net: net.at(64).double(),
        lambda net: net.requires_grad_(False),
    ],
)
def test_a_path_stays_live(change, net) -> None:
    change(net)
    assert shares_everything(net)
    with torch.no_grad():
        net.at(48).bn1.running_mean.fill_(7)
        net.conv1.weight.fill_(3)
        net.bn2.at["32"].bias.fill_(2)
    assert (net.state_dict()["bn1.at.48.running_mean"] == 7).all()
    assert all((net.at(r).conv1.weight == 3).all() for r in RESOLUTIONS)
    assert (net.at(32).bn2.bias == 2).all()


def test_a_loaded_state_reaches_every_path(net, tiny, image) -> None:
    other = make_switchable(tiny(), RESOLUTIONS).eval()
    for assign in (False, True):
        other.load_state_dict(net.state_dict(), assign=assign)
        assert all(torch.equal(other.at(r)(image(r)), net.at(r)(image(r))) for r in RESOLUTIONS)


def test_train_and_eval_follow(net) -> None:
    for mode in (True, False):
        assert net.train(mode) is net
        assert all(m.training is mode for r in RESOLUTIONS for m in net.at(r).modules())
        assert all(one.training is mode for _, bn in net.switchable_bns() for one in bn.sets)


def test_the_source_s_own_train_runs(tiny) -> None:
    class Frozen(tiny):
        def train(self, mode: bool = True) -> nn.Module:
            super().train(mode)
            self.bn1.eval()
            return self

    net = make_switchable(Frozen(), RESOLUTIONS).train()
    assert [(net.at(r).bn1.training, net.at(r).bn2.training) for r in RESOLUTIONS] == [(False, True)] * 3


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_training_a_path_leaves_the_other_sets_bytes(resolution: int, net, image) -> None:
    before = {r: bn_bytes(net, r) for r in RESOLUTIONS}
    shared = net.conv1.weight.clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net.train().at(resolution)(image(resolution)).square().sum().backward()
    optimizer.step()
    assert {r for r in RESOLUTIONS if bn_bytes(net, r) != before[r]} == {resolution}
    assert not torch.equal(net.conv1.weight, shared)


def test_views_meet_their_sets_and_move_them_as_independent_copies_would(net, image) -> None:
    copies = [net.extract(r).train() for r in RESOLUTIONS]
    views = [image(r, batch=4) for r in RESOLUTIONS]
    outputs = net.train()(views=views)
    for resolution, view, output, plain in zip(RESOLUTIONS, views, outputs, copies, strict=True):
        assert torch.equal(output, plain(view))
        state = plain.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in net.at(resolution).state_dict().items())
        assert state["bn1.num_batches_tracked"] == 1


def test_views_go_by_position_whatever_their_size(net, image) -> None:
    outputs = net(views=[image(40)] * 3)
    assert all(torch.equal(out, net.at(r)(image(40))) for r, out in zip(RESOLUTIONS, outputs, strict=True))


def test_a_module_without_private_tensors_is_one_on_every_path(net, image) -> None:
    seen = []
    net.at(48).conv1.register_forward_hook(lambda *_: seen.append("conv1"))
    net.at(48).drop.p = 0.5
    for resolution in (64, 48, 40, 32):
        net(image(resolution))
    assert seen == ["conv1"] * 4
    assert net.at(64).conv1 is net.at(32).conv1 is net.conv1
    assert net.at(64).drop.p == net.at(40).drop.p == net.drop.p == 0.5


def test_a_hook_on_a_set_stays_there(net, image) -> None:
    seen = []
    net.at(48).bn1.register_forward_hook(lambda *_: seen.append(48))
    for resolution in (64, 48, 32):
        net(image(resolution))
    assert seen == [48]


def test_a_wrong_number_of_views_is_refused(net, image) -> None:
    with pytest.raises(ResolutionError, match=r"views has 2 tensors; 3 and no other argument are needed"):
        net(views=[image(64), image(48)])
    with pytest.raises(ResolutionError, match="no other argument"):
        net(image(64), views=[image(r) for r in RESOLUTIONS])


@pytest.mark.parametrize(("resolution", "upper", "lower", "share"), [(56, 64, 48, 0.5), (36, 48, 32, 0.25)])
def test_between_two_resolutions_the_tensors_are_interpolated(
    resolution, upper, lower, share, net, tiny, image
) -> None:
    path = net.at(resolution)
    state, high, low = path.state_dict(), net.at(upper).state_dict(), net.at(lower).state_dict()
    for key in (f"{bn}.{name}" for bn in ("bn1", "bn2") for name in TENSORS):
        expected = share * high[key].numpy().astype(np.float64) + (1 - share) * low[key].numpy()
        np.testing.assert_allclose(state[key].numpy(), expected, rtol=1e-6)
    plain = tiny().eval()
    plain.load_state_dict(state)
    assert torch.equal(net(image(resolution)), plain(image(resolution)))
    assert path.conv1.weight is net.conv1.weight


@pytest.mark.parametrize(("resolution", "nearest"), [(100, 64), (16, 32)])
def test_beyond_the_ends_the_nearest_set_serves(resolution: int, nearest: int, net, image) -> None:
    assert torch.equal(net(image(resolution)), net.at(nearest)(image(resolution)))


def test_equal_sets_interpolate_to_equal_bits(tiny, write, image) -> None:
    model = write(tiny(), 64).eval()
    net = make_switchable(model, (64, 32))
    assert all(torch.equal(net(image(r)), model(image(r))) for r in range(32, 65, 3))


def test_an_interpolated_path_is_a_frozen_snapshot(net, image) -> None:
    path = net.at(40)
    before = path(image(40))
    with torch.no_grad():
        net.at(48).bn1.weight.zero_()
    assert torch.equal(path(image(40)), before)
    assert not any(p.requires_grad for p in path.bn1.parameters())
    assert net.train().at(40).training is False
    with pytest.raises(ResolutionError, match=r"interpolated path is in train mode.*net\.extract"):
        path.train()(image(40))
    assert net.train()(image(48)).requires_grad  # and it alone refuses


@pytest.mark.parametrize("resolution", [0, -1, 40.5, True, "64"])
def test_at_and_extract_refuse_what_is_no_resolution(resolution, net) -> None:
    for ask in (net.at, net.extract):
        with pytest.raises(ResolutionError, match="positive whole numbers"):
            ask(resolution)


@pytest.mark.parametrize(
    ("height", "width", "resolution"), [(64, 64, 64), (32, 72, 48), (47, 49, 48), (16, 64, 32), (50, 62, 56)]
)
def test_an_oblong_input_counts_by_its_area(height: int, width: int, resolution: int, net, image) -> None:
    assert resolution == round((height * width) ** 0.5)
    assert torch.equal(net(image(height, width)), net.at(resolution)(image(height, width)))


def test_an_untrained_size_is_refused_in_train_mode(net, image) -> None:
    with pytest.raises(ResolutionError, match=r"size is 40, .*trained are \(64, 48, 32\).*eval\(\) to interpolate"):
        net.train()(image(40))
    assert net(image(48)).requires_grad


@pytest.mark.parametrize("argument", [torch.zeros(3, 4), [torch.zeros(1, 3, 64, 64)], "image"])
def test_an_input_without_a_size_is_refused(argument, net) -> None:
    with pytest.raises(ResolutionError, match=r"images \(N, 3, H, W\)|no tensor.*net\.at\(resolution\).*image="):
        net(argument)


def test_the_source_s_own_arguments_pass(tiny, image) -> None:
    class Masked(tiny):
        def forward(self, x, scale=None, *, shift=0.0):
            return super().forward(x) * (1 if scale is None else scale) + shift

    net = make_switchable(Masked(), RESOLUTIONS).eval()
    plain = net.at(48)(image(48))
    assert torch.equal(net(image(48), 2.0, shift=1.0), plain * 2 + 1)
    assert torch.equal(net(x=image(48)), plain)


def test_eight_threads_at_mixed_sizes_get_what_one_gets(net, image) -> None:
    sizes = [64, 40, 48, 56, 32, 20] * 8
    with torch.no_grad():
        expected = {size: net(image(size)) for size in set(sizes)}

        def run(size: int) -> bool:
            with torch.no_grad():
                return torch.equal(net(image(size)), expected[size])

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(run, sizes))


@pytest.mark.parametrize("again", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_computes_the_same_and_is_its_own(again, write_all, image) -> None:
    net = write_all(make_switchable(timm.create_model("resnet10t"), RESOLUTIONS)).eval()
    twin = again(net)
    assert shares_everything(twin)
    assert all(torch.equal(twin(image(r)), net(image(r))) for r in (64, 48, 40, 32))
    assert (twin.report, twin.source, twin.resolutions) == (net.report, net.source, net.resolutions)
    before = {r: net(image(r)) for r in RESOLUTIONS}
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert all(torch.equal(net(image(r)), before[r]) for r in RESOLUTIONS)
    assert not torch.equal(twin(image(48)), before[48])


def test_checkpointed_gradients_are_those_without(image) -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        net = make_switchable(timm.create_model("resnet10t"), (64, 32)).train()
        nn.init.normal_(net.at(64).layer1[0].bn2.weight)
        for resolution in net.resolutions:
            net.at(resolution).set_grad_checkpointing(checkpointing)
        sum(out.square().sum() for out in net(views=[image(64), image(32)])).backward()
        gradients.append({n: p.grad for n, p in net.named_parameters() if n != "rsconvert.alpha"})
    assert all(torch.equal(gradients[1][name], grad) for name, grad in gradients[0].items())
    assert any("at.32" in name and grad.any() for name, grad in gradients[1].items())


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_distributed_data_parallel_takes_views(process_group, net, image) -> None:
    twin = copy.deepcopy(net).train()
    parallel = nn.parallel.DistributedDataParallel(net.train())
    views = [image(r) for r in RESOLUTIONS]
    for module in (parallel, twin):
        outputs = module(views=views)
        (torch.stack(outputs) * net.alpha.view(-1, 1, 1)).square().sum().backward()
    for (name, one), other in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert name == "rsconvert.alpha" or torch.allclose(one.grad, other.grad)


@pytest.mark.parametrize("resolution", [64, 48])
def test_a_path_compiles(resolution: int, net, image) -> None:
    compiled = torch.compile(net.at(resolution), backend="eager")
    assert torch.equal(compiled(image(resolution)), net.at(resolution)(image(resolution)))


@pytest.mark.parametrize("resolution", [64, 32, 40])
def test_an_extract_is_independent_and_trainable(resolution: int, net, tiny, image) -> None:
    before = snapshot(net)
    plain = net.extract(resolution)
    assert type(plain) is tiny
    assert torch.equal(plain(image(resolution)), net(image(resolution)))
    assert all(p.requires_grad for p in plain.parameters())
    plain.train()(image(resolution)).sum().backward()
    torch.optim.SGD(plain.parameters(), lr=1.0).step()
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_fusing_an_extract_leaves_the_network(image) -> None:
    net = make_switchable(timm.create_model("repvgg_a0", num_classes=3), (64, 32)).eval()
    before = snapshot(net)
    plain = net.extract(32)
    expected = plain(image(32))
    for module in plain.modules():
        if hasattr(module, "reparameterize"):
            module.reparameterize()
    torch.testing.assert_close(plain(image(32)), expected, rtol=1e-3, atol=1e-4)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(p.requires_grad for p in net.parameters())


def test_the_skeleton_holds_the_layers_over_the_same_tensors(net, tiny) -> None:
    skeleton = net.skeleton()
    assert type(skeleton) is tiny
    assert isinstance(skeleton.bn1, SwitchableBN)
    assert skeleton.bn1.native.weight is net.at(64).bn1.weight
    assert [name for name, _ in net.switchable_bns()] == ["bn1", "bn2"]


def test_a_module_with_a_set_is_not_replaced(net) -> None:
    old = net.bn1
    with pytest.raises(UnsupportedModelError, match="bn1 is set on a switchable network, and holds tensors of each"):
        net.bn1 = nn.Identity()
    assert net.bn1 is old

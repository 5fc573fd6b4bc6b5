"""Private tensors beside the BatchNorm modules: functional BatchNorms, and tables that follow the resolution."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rsconvert
from rsconvert.checkpoint import subset
from rsconvert.errors import CheckpointError, ConfigError, ResolutionError, UnsupportedModelError
from rsconvert.surgery import assemble, make_switchable
from rsconvert.surgery.trial import tensors

RESOLUTIONS = (64, 48, 32)


class Functional(nn.Module):
    """A convolution and a BatchNorm by hand, whose tensors live in one module."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.scale, self.shift = nn.Parameter(torch.ones(4)), nn.Parameter(torch.zeros(4))
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("var", torch.ones(4))

    def forward(self, x):
        x = F.conv2d(x, self.kernel)
        return F.batch_norm(x, self.mean, self.var, self.scale, self.shift, self.training)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn, self.fc = Functional(), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.bn(self.stem(x).relu()).mean((2, 3)))


class Table(nn.Module):
    """Adds one learnt number per position: it takes one size alone."""

    def __init__(self, size: int) -> None:
        super().__init__()
        side = size // 8
        self.conv, self.bn = nn.Conv2d(3, 4, 8, stride=8), nn.BatchNorm2d(4)
        self.pos_embed = nn.Parameter(torch.randn(1, side * side, 4))
        self.register_buffer("order", torch.arange(side * side), persistent=False)

    def forward(self, x):
        tokens = self.bn(self.conv(x)).flatten(2).transpose(1, 2)
        return (tokens + self.pos_embed)[:, self.order].mean(1)


FUNCTIONAL = ["stem.mean", "stem.scale", "stem.shift", "stem.var"]


@pytest.fixture
def switched(image) -> rsconvert.SwitchableModel:
    """Each set of the functional BatchNorm has a scale of its own."""
    net = make_switchable(Net(), RESOLUTIONS).eval()
    with torch.no_grad():
        for resolution in RESOLUTIONS:
            net.at(resolution).stem.scale.fill_(resolution)
    return net


def test_the_tensors_of_f_batch_norm_become_private(switched, image) -> None:
    assert sorted(switched.other_private_tensors()) == FUNCTIONAL
    assert type(switched.at(48)) is Net
    assert type(switched.at(48).stem) is Functional
    keys = switched.state_dict().keys()
    assert {f"stem.at.{r}.{key}" for r in (48, 32) for key in ("scale", "shift", "mean", "var")} <= keys
    assert not any("kernel" in key and ".at." in key for key in keys)
    assert list(switched.at(48).state_dict()) == list(Net().state_dict())
    for resolution in RESOLUTIONS:
        plain = Net().eval()
        plain.load_state_dict({k: v for k, v in switched.state_dict().items() if k in plain.state_dict()})
        plain.bn.load_state_dict(switched.at(resolution).bn.state_dict())
        plain.stem.scale.data.fill_(resolution)
        assert torch.equal(plain(image(resolution)), switched(image(resolution)))


def test_the_report_names_a_functional_batchnorm_and_its_way() -> None:
    report = make_switchable(Net(), RESOLUTIONS).report
    found = {record.name: (record.kind, record.found, record.calls, record.channels) for record in report.batchnorms}
    assert found == {"bn": ("BatchNorm2d", "graph", 1, 4), "stem.mean": ("F.batch_norm", "graph", 1, 4)}
    assert report.unseen == ()


def test_a_model_of_functional_batchnorms_alone_converts() -> None:
    net = make_switchable(nn.Sequential(Functional()), RESOLUTIONS)
    assert net.report.exact == dict.fromkeys(RESOLUTIONS, True)
    assert [record.name for record in net.report.batchnorms] == ["0.mean"]


def test_one_set_for_all_has_nothing_private(image) -> None:
    net = make_switchable(Net(), RESOLUTIONS, private=False)
    assert net.other_private_tensors() == []
    assert net.state_dict().keys() == {*Net().state_dict(), "rsconvert.alpha"}


def test_training_moves_the_active_set_alone(switched, image) -> None:
    before = {key: value.clone() for key, value in switched.state_dict().items()}
    switched.train()
    switched(image(48)).square().sum().backward()
    moved = {key for key, value in switched.state_dict().items() if not torch.equal(before[key], value)}
    assert moved == {
        "stem.at.48.mean",
        "stem.at.48.var",
        *(f"bn.at.48.{key}" for key in ("running_mean", "running_var", "num_batches_tracked")),
    }
    assert switched.get_parameter("stem.at.48.scale").grad.any()
    assert switched.get_parameter("stem.at.32.scale").grad is None


def test_between_two_sizes_the_tensors_are_interpolated(switched) -> None:
    assert switched.at(40).stem.scale.tolist() == [40.0] * 4
    assert switched.at(100).stem.scale.tolist() == [64.0] * 4
    assert switched.at(40).stem.kernel is switched.stem.kernel


def test_paths_follow_a_change_of_dtype(switched, image) -> None:
    switched.double()
    for resolution in RESOLUTIONS:
        assert {t.dtype for t in tensors(switched.at(resolution)).values() if t.is_floating_point()} == {torch.float64}
        assert switched(image(resolution).double()).dtype == torch.float64
    assert switched.at(48).stem.mean is switched.get_buffer("stem.at.48.mean")


def test_paths_follow_assigned_tensors(switched, image) -> None:
    state = {key: value.clone() for key, value in switched.state_dict().items()}
    state["stem.at.48.scale"] = torch.full((4,), 7.0)
    state["stem.kernel"] = torch.zeros(4, 3, 3, 3)
    switched.load_state_dict(state, assign=True)
    assert switched.at(48).stem.scale.tolist() == [7.0] * 4
    assert all(not switched.at(resolution).stem.kernel.any() for resolution in RESOLUTIONS)


def test_a_deep_copy_is_independent_and_whole(switched, image) -> None:
    other = copy.deepcopy(switched)
    with torch.no_grad():
        other.get_parameter("stem.at.48.scale").fill_(5)
        other.stem.kernel.zero_()
    assert other.at(48).stem.scale.tolist() == [5.0] * 4
    assert not other.at(48).stem.kernel.any()
    assert switched.at(48).stem.scale.tolist() == [48.0] * 4
    assert switched.at(48).stem.kernel.any()


def test_a_file_and_a_subset_keep_them(switched, image, tmp_path) -> None:
    file = tmp_path / "net.safetensors"
    rsconvert.save(switched, file)
    again = rsconvert.load(file, model=Net()).eval()
    small = subset(switched, (48, 32)).eval()
    for resolution in RESOLUTIONS:
        wanted = switched(image(resolution))
        assert torch.equal(again(image(resolution)), wanted)
        assert torch.equal(rsconvert.load(file, model=Net(), resolution=resolution).eval()(image(resolution)), wanted)
        assert resolution == 64 or torch.equal(small(image(resolution)), wanted)


def test_an_owner_with_a_child_of_that_name_is_refused() -> None:
    class Taken(Functional):
        at = 3

    with pytest.raises(UnsupportedModelError, match="0 has an attribute at, which is the name of its private sets"):
        make_switchable(nn.Sequential(Taken()), RESOLUTIONS)


@pytest.fixture
def tables() -> rsconvert.SwitchableModel:
    return make_switchable(Table(64), RESOLUTIONS, build=Table).eval()


def test_a_model_built_again_has_a_table_for_each_resolution(tables, image) -> None:
    assert tables.report.exact == dict.fromkeys(RESOLUTIONS, True)
    assert (tables.report.built_with, tables.report.tables) == ("build", ("pos_embed",))
    shapes = {r: tuple(tables.at(r).pos_embed.shape) for r in RESOLUTIONS}
    assert shapes == {64: (1, 64, 4), 48: (1, 36, 4), 32: (1, 16, 4)}
    assert tuple(tables.state_dict()["at.32.pos_embed"].shape) == (1, 16, 4)
    assert "at.32.order" not in tables.state_dict()
    assert tables.at(32).conv.weight is tables.at(64).conv.weight
    assert tables.at(32).order.tolist() == list(range(16))


def test_the_table_of_a_resolution_is_the_native_one_resampled() -> None:
    model = Table(64)
    nn.init.constant_(model.pos_embed, 3.0)
    net = make_switchable(model, RESOLUTIONS, build=Table)
    torch.testing.assert_close(net.at(32).pos_embed, torch.full((1, 16, 4), 3.0))
    assert torch.equal(net.at(64).pos_embed, model.pos_embed)
    assert net.at(64).pos_embed is not model.pos_embed


def test_an_untrained_resolution_resamples_from_its_nearest(tables) -> None:
    with torch.no_grad():
        tables.at(48).pos_embed.fill_(1.0)
        tables.at(32).pos_embed.fill_(2.0)
    torch.testing.assert_close(tables.at(56).pos_embed[:, :0], torch.empty(1, 0, 4))
    torch.testing.assert_close(tables.at(40).pos_embed, torch.full((1, 25, 4), 1.0))
    torch.testing.assert_close(tables.at(24).pos_embed, torch.full((1, 9, 4), 2.0))
    assert tables(torch.randn(2, 3, 40, 40)).shape == (2, 4)
    with pytest.raises(ResolutionError, match=r"resolution 44 does not work \(RuntimeError: .*\(64, 48, 32\)"):
        make_switchable(Awkward(64), RESOLUTIONS, build=Awkward).eval()(torch.randn(2, 3, 44, 44))


class Awkward(Table):
    """It makes more tokens than it plans for, unless the size is a multiple of 8."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.more = -size % 8

    def forward(self, x):
        return super().forward(F.pad(x, (0, self.more, 0, self.more)))


def test_without_a_builder_the_resolutions_are_refused() -> None:
    with pytest.raises(ResolutionError, match=r"Table does not work at 48, 32: .*pos_embed.*; .* it works at 64\."):
        make_switchable(Table(64), RESOLUTIONS)


def test_a_builder_of_another_model_is_told() -> None:
    with pytest.raises(ResolutionError, match=r"Table built for another resolution has another module at .*pos_embed"):
        make_switchable(Table(64), RESOLUTIONS, build=lambda size: Net())
    with pytest.raises(ResolutionError, match=r"build returned int for 64; an nn\.Module is needed"):
        make_switchable(Table(64), RESOLUTIONS, build=lambda size: 1)
    with pytest.raises(ConfigError, match="build is int; a function of the resolution is needed"):
        make_switchable(Table(64), RESOLUTIONS, build=3)


def test_a_table_of_another_name_is_told_with_the_names_that_are_known() -> None:
    class Named(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.bn, self.pos = nn.BatchNorm2d(3), nn.Parameter(torch.randn(1, 3, size, size))

        def forward(self, x):
            return self.bn(x) + self.pos

    with pytest.raises(ResolutionError, match=r"has the shape \(1, 3, 48, 48\) at pos; .* rename the table") as error:
        make_switchable(Named(64), RESOLUTIONS, build=Named)
    assert "attention_biases" in str(error.value)
    with pytest.raises(ResolutionError, match=r"it works at 64\. Choose among these, or pass build="):
        make_switchable(Named(64), RESOLUTIONS)


def test_a_builder_that_fails_is_told() -> None:
    def build(size: int) -> nn.Module:
        if size == 32:
            raise ValueError("too small")
        return Table(size)

    with pytest.raises(ResolutionError, match=r"resolution 32 can't be built \(ValueError: too small\)"):
        make_switchable(Table(64), RESOLUTIONS, build=build)


def test_a_file_with_tables_needs_the_builder(tables, image, tmp_path) -> None:
    file = tmp_path / "net.safetensors"
    with torch.no_grad():
        for resolution in RESOLUTIONS:
            tables.at(resolution).pos_embed.add_(resolution)
    rsconvert.save(tables, file)
    with pytest.raises(
        CheckpointError, match=r"built for each resolution by build, which is unavailable; .* Pass build="
    ):
        rsconvert.load(file, model=Table(64))
    again = rsconvert.load(file, model=Table(64), build=Table).eval()
    small = subset(tables, (48, 32)).eval()
    for resolution in RESOLUTIONS:
        wanted = tables(image(resolution))
        assert torch.equal(again(image(resolution)), wanted)
        path = rsconvert.load(file, model=Table(64), build=Table, resolution=resolution).eval()
        assert torch.equal(path(image(resolution)), wanted)
        assert resolution == 64 or torch.equal(small(image(resolution)), wanted)
    assert torch.equal(again(image(40)), tables(image(40)))


def test_an_index_map_of_a_function_alone_is_shared() -> None:
    net = assemble(Net(), RESOLUTIONS)
    assert net.other_private_tensors() == []


def test_untrained_sizes_work_where_one_resolution_alone_is_trained() -> None:
    model = Table(64)
    nn.init.constant_(model.pos_embed, 3.0)
    net = make_switchable(model, (64,), build=Table).eval()
    torch.testing.assert_close(net.at(32).pos_embed, torch.full((1, 16, 4), 3.0))
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 4)
    assert net.extract(32).order.tolist() == list(range(16))


class Both(Table):
    """A table and a functional BatchNorm."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.stem = Functional()

    def forward(self, x):
        return super().forward(self.stem(F.pad(x, (1, 1, 1, 1)))[:, :3])


def test_statistics_of_functions_are_interpolated_in_built_models_too() -> None:
    net = make_switchable(Both(64), (64, 32), build=Both).eval()
    with torch.no_grad():
        net.at(32).stem.mean.fill_(8.0)
        net.at(32).stem.scale.fill_(9.0)
    path = net.at(48)
    assert path.stem.mean.tolist() == [4.0] * 4
    assert path.stem.scale.tolist() == [5.0] * 4
    assert path.stem.mean is not net.at(64).stem.mean


def test_a_builder_of_another_arithmetic_is_refused() -> None:
    model = Table(64)
    model.bn.eps = 0.1
    with pytest.raises(ResolutionError, match=r"eps=1e-05.* instead of .*eps=0\.1.* at bn"):
        make_switchable(model, RESOLUTIONS, build=Table)
    model = Table(64)
    model.register_forward_hook(lambda module, args, output: output + 1)
    with pytest.raises(UnsupportedModelError, match="built again for 64 by build computes something else"):
        make_switchable(model, RESOLUTIONS, build=Table)


def test_a_builder_keeps_what_it_returned() -> None:
    kept = {size: Table(size).train() for size in (*RESOLUTIONS, 40)}
    before = {size: dict(model.named_parameters()) for size, model in kept.items()}
    net = make_switchable(Table(64), RESOLUTIONS, build=kept.__getitem__).eval()
    net(torch.randn(2, 3, 40, 40))
    for size, model in kept.items():
        assert model.training
        assert all(dict(model.named_parameters())[name] is p for name, p in before[size].items())


def test_tied_tables_stay_tied() -> None:
    class Tied(Table):
        def __init__(self, size: int) -> None:
            super().__init__(size)
            self.again = nn.Module()
            self.again.pos_embed = self.pos_embed

    net = make_switchable(Tied(64), RESOLUTIONS, build=Tied)
    for resolution in (*RESOLUTIONS, 40):
        path = net.at(resolution)
        assert path.again.pos_embed is path.pos_embed
        assert net.extract(resolution).pos_embed.shape == path.pos_embed.shape


def test_a_functional_module_under_two_names_is_read_alone_too(tmp_path, image) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = Functional()
            self.second = self.first
            self.bn = nn.BatchNorm2d(4)

        def forward(self, x):
            return self.bn(self.second(x))

    net = make_switchable(Twice(), (64, 32)).eval()
    with torch.no_grad():
        net.at(32).second.scale.fill_(3.0)
    rsconvert.save(net, tmp_path / "net.safetensors")
    alone = rsconvert.load(tmp_path / "net.safetensors", Twice(), resolution=32).eval()
    assert torch.equal(alone(image(32)), net(image(32)))


@pytest.mark.parametrize("direct", [True, False])
def test_a_batchnorm_that_runs_without_its_call_is_converted_all_the_same(direct: bool, image) -> None:
    class Direct(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x):
            x = self.conv(x)
            if direct:
                return self.bn.forward(x)
            return F.batch_norm(x, self.bn.running_mean, self.bn.running_var, self.bn.weight, self.bn.bias)

    net = make_switchable(Direct(), (64, 32))
    assert net.report is not None
    # fx can't enter BatchNorm's own forward, which branches on its input.
    assert [(r.name, r.found, r.calls) for r in net.report.batchnorms] == [("bn", "leaf" if direct else "graph", 1)]
    assert net.other_private_tensors() == []
    assert net.report.exact == {64: True, 32: True}


def test_statistics_that_no_file_holds_are_refused() -> None:
    model = Functional()
    model.register_buffer("mean", torch.zeros(4), persistent=False)
    with pytest.raises(UnsupportedModelError, match=r"0\.mean serves F\.batch_norm .* persistent=True"):
        make_switchable(nn.Sequential(model), (64, 32))


def test_an_example_that_draws_anew_is_drawn_once(image) -> None:
    with pytest.raises(ConfigError, match=r"example returned Tensor for 64; a tuple"):
        make_switchable(Net(), (64, 32), example=lambda r: torch.randn(1, 3, r, r))
    with pytest.raises(ConfigError, match="example is Tensor; a function of the resolution"):
        make_switchable(Net(), (64, 32), example=image(64))
    net = make_switchable(Net(), (64, 32), example=lambda r: (torch.randn(1, 3, r, r),))
    assert net.report is not None
    assert net.report.exact == {64: True, 32: True}


def test_a_new_classifier_reaches_what_is_built_later() -> None:
    class Classed(Table):
        def __init__(self, size: int) -> None:
            super().__init__(size)
            self.fc = nn.Linear(4, 3)

        def reset_classifier(self, num_classes: int) -> None:
            self.fc = nn.Linear(4, num_classes)

        def forward(self, x):
            return self.fc(super().forward(x))

    net = make_switchable(Classed(64), RESOLUTIONS, build=Classed).eval()
    net.reset_classifier(7)
    assert [net(torch.randn(2, 3, side, side)).shape[1] for side in (64, 40, 32)] == [7, 7, 7]
    assert net.report is None

"""Models built again for another size: the same tensors, and position tables of another shape.

Tables are compared with timm's own loaders, with layers that resample for themselves, and with closed forms.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.layers import (
    AttentionPool2d,
    RelPosBias,
    RelPosBiasTf,
    resample_abs_pos_embed_nhwc,
    resize_rel_pos_bias_table,
)
from timm.layers.bottleneck_attn import PosEmbedRel
from timm.layers.lambda_layer import LambdaLayer
from timm.models import maxxvit, tiny_vit
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_sam import get_rel_pos
from timm.models.volo import VOLO
from torch import Tensor, nn

from rsconvert.errors import ResolutionError, UnsupportedModelError
from rsconvert.models import Source, create_model, source_of
from rsconvert.surgery import make_switchable
from rsconvert.surgery.network.rebuilding import build_like, builders, fit_to, kwargs_at, rebuilt, resample_table

LEVIT = "levit_128s"
# Builders' own arguments that make networks of the same modules thin.
THIN_LEVIT = {"embed_dim": (16,) * 3, "num_heads": (2,) * 3, "key_dim": 8}
THIN_COATNET = {"depths": (1,) * 4, "embed_dim": (32,) * 4, "stem_width": (16, 16)}
THIN_VISFORMER = {"embed_dim": 48, "depth": (1,) * 3}
THIN_VIT = {"embed_dim": 16, "depth": 1, "num_heads": 1}


def test_the_arguments_of_a_resolution_extend_those_of_the_source() -> None:
    source = Source(architecture=LEVIT, model_kwargs={"in_chans": 1})
    assert kwargs_at(source, 96) == {"in_chans": 1}
    assert kwargs_at(Source(architecture=LEVIT, built_with="img_size"), 96) == {"img_size": 96}
    assert kwargs_at(Source(architecture=LEVIT, built_with="dynamic_img_size"), 96) == {"dynamic_img_size": True}
    assert kwargs_at(Source(built_with="build"), 96) == {}


def test_a_builder_of_the_caller_s_is_the_only_way() -> None:
    assert [way for way, _ in builders(Source(architecture=LEVIT), nn.Linear)] == ["build"]
    assert [way for way, _ in builders(Source(architecture=LEVIT), None)] == ["img_size", "dynamic_img_size"]
    assert list(builders(Source(), None)) == []


def test_a_source_is_rebuilt_in_the_way_that_it_notes() -> None:
    assert rebuilt(Source(architecture=LEVIT), None) is None
    build = rebuilt(Source(architecture=LEVIT, built_with="img_size", num_classes=3), None)
    assert build is not None
    assert build(64).head.linear.out_features == 3
    with pytest.raises(UnsupportedModelError, match=r"built for each resolution by build, .* Pass build=\."):
        rebuilt(Source(architecture=LEVIT, built_with="build"), None)


def test_a_built_model_holds_the_tensors_of_the_other() -> None:
    model = create_model(LEVIT)
    build = rebuilt(Source(architecture=LEVIT, built_with="img_size", num_classes=1000), None)
    assert build is not None
    built = build_like(build, model.train(), 96)
    assert built.training
    for name, parameter in built.named_parameters():
        own = model.get_parameter(name)
        assert parameter is own or (name.endswith("attention_biases") and parameter.shape != own.shape)
    assert built.get_buffer("head.bn.running_mean") is model.get_buffer("head.bn.running_mean")


def test_other_models_do_not_fit() -> None:
    with pytest.raises(UnsupportedModelError, match="Sequential built for another resolution has another module at 0"):
        fit_to(nn.Sequential(nn.ReLU()), nn.Sequential(nn.GELU()))
    with pytest.raises(UnsupportedModelError, match="has other tensors at 0"):
        fit_to(nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2, bias=False)))
    with pytest.raises(UnsupportedModelError, match=r"has the shape \(3, 2\) at 0.weight"):
        fit_to(nn.Sequential(nn.Linear(2, 3)), nn.Sequential(nn.Linear(2, 2)))


def test_a_table_of_a_known_name_and_another_kind_does_not_fit() -> None:
    def table(*shape: int) -> nn.Module:
        model = nn.Module()
        model.relative_position_bias_table = nn.Parameter(torch.zeros(shape))
        return model

    with pytest.raises(UnsupportedModelError, match=r"has the shape \(5,\) at relative_position_bias_table"):
        fit_to(table(5), table(7))


def test_a_builder_that_stumbles_names_the_resolution() -> None:
    with pytest.raises(ResolutionError, match=r"resolution 96 can't be built \(TypeError: "):
        build_like(lambda size: nn.Linear(), nn.Linear(2, 2), 96)


def test_rebuilding_leaves_the_random_generator_alone() -> None:
    model = create_model(LEVIT, model_kwargs=THIN_LEVIT)
    state = torch.get_rng_state()
    make_switchable(model, (96, 64))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("name", "thin", "way", "tables"),
    [
        ("test_resnet", {}, None, 0),
        ("coatnet_rmlp_nano_rw_224", THIN_COATNET, "img_size", 0),
        ("vit_small_resnet26d_224", THIN_VIT, "dynamic_img_size", 0),
        ("levit_128s", THIN_LEVIT, "img_size", 11),
        ("visformer_tiny", THIN_VISFORMER, "img_size", 3),
    ],
)
def test_each_class_of_the_zoo_finds_its_way(name: str, thin: dict[str, Any], way: str | None, tables: int) -> None:
    report = make_switchable(create_model(name, model_kwargs=thin), (96, 64)).report
    assert (report.built_with, len(report.tables)) == (way, tables)
    assert report.exact == {96: True, 64: True}


def test_the_path_of_a_rebuilt_model_is_what_timm_builds() -> None:
    """Independently: timm's own constructor for the size, its own loading, its own resampling."""
    net = make_switchable(create_model("vit_small_resnet26d_224", model_kwargs=THIN_VIT), (96, 64)).eval()
    own = timm.create_model("vit_small_resnet26d_224", dynamic_img_size=True, **THIN_VIT).eval()
    own.load_state_dict(net.at(64).state_dict())
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(net(x), own(x))
    assert source_of(net.at(64)).architecture == "vit_small_resnet26d_224"


NATIVE = 224
OTHERS = (160, 96)

Build = Callable[[int], nn.Module]


def small(name: str, **kwargs: object) -> Build:
    return lambda resolution: timm.create_model(name, img_size=resolution, num_classes=3, **kwargs)


# The smallest network of every class that owns a table, thinned where its builder allows.
NETWORKS: dict[str, Build] = {
    "botnet": small("botnet26t_256", width_factor=0.25),
    "clip": small("resnet50_clip", width_factor=0.25),
    "coatnet": small("coatnet_pico_rw_224", **THIN_COATNET),
    "efficientformerv2": small("efficientformerv2_s0"),
    "efficientvit_m": small("efficientvit_m0"),
    "lambda": small("lambda_resnet26rpt_256", width_factor=0.25),
    "levit": small("levit_128s", depth=(1,) * 3, **THIN_LEVIT),
    "maxvit_tf": small("maxvit_tiny_tf_224", depths=(1,) * 4, embed_dim=(32, 32, 64, 64), stem_width=16),
    "visformer": small("visformer_tiny", **THIN_VISFORMER),
    "vit_resnet": small("vit_small_resnet26d_224", **THIN_VIT),
    "volo": lambda resolution: VOLO(
        (1,) * 4, img_size=resolution, num_classes=3, embed_dims=(16, 32, 32, 32), num_heads=(1,) * 4
    ),
}


def state_of(build: Build) -> dict[str, Tensor]:
    """Return the native state, with tables that are nowhere zero or alike."""
    native = build(NATIVE).state_dict()
    return native | {key: torch.randn_like(native[key]) for key in changing(native, build(96))}


def changing(state: Mapping[str, Tensor], model: nn.Module) -> list[str]:
    return [key for key, value in model.state_dict().items() if value.shape != state[key].shape]


def resampled(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the tables of ``model``, by key, resampled from another resolution's state."""
    tables = {}
    for key in changing(state, model):
        owner, _, name = key.rpartition(".")
        table = resample_table(state[key], name, model.get_submodule(owner))
        assert table is not None, key
        tables[key] = table
    return tables


def assert_equal(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    assert got
    for key, table in got.items():
        assert table.dtype == wanted[key].dtype, key
        assert torch.equal(table, wanted[key]), key


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_loads_its_tables_and_runs(network: str) -> None:
    state = state_of(NETWORKS[network])
    for resolution in OTHERS:
        model = NETWORKS[network](resolution).eval()
        tables = resampled(state, model)
        assert tables
        model.load_state_dict(state | tables)
        with torch.no_grad():
            assert model(torch.randn(1, 3, resolution, resolution)).isfinite().all()


@pytest.mark.parametrize("network", NETWORKS)
def test_a_constant_stays_constant(network: str) -> None:
    flat = {key: torch.full_like(value, 3.0) for key, value in NETWORKS[network](NATIVE).state_dict().items()}
    for resolution in OTHERS:
        for table in resampled(flat, NETWORKS[network](resolution)).values():
            torch.testing.assert_close(table, torch.full_like(table, 3.0))


@pytest.mark.parametrize("network", NETWORKS)
def test_other_precisions_are_computed_in_float32(network: str) -> None:
    model, state = NETWORKS[network](96), state_of(NETWORKS[network])
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        rounded = {key: value.to(dtype) for key, value in state.items()}
        exact = resampled({key: value.float() for key, value in rounded.items()}, model)
        assert_equal(resampled(rounded, model), {key: table.to(dtype) for key, table in exact.items()})


@pytest.mark.parametrize("network", NETWORKS)
def test_a_table_of_the_wanted_size_is_copied(network: str) -> None:
    model = NETWORKS[network](96)
    for key in changing(NETWORKS[network](NATIVE).state_dict(), model):
        owner, _, name = key.rpartition(".")
        table = model.get_parameter(key)
        copy = resample_table(table, name, model.get_submodule(owner))
        assert torch.equal(copy, table)
        assert copy.data_ptr() != table.data_ptr()
        assert not copy.requires_grad


def test_nothing_but_the_result_is_new() -> None:
    source, target = RelPosBias((7, 7), 2), RelPosBias((3, 3), 2)
    before = [t.clone() for t in (*source.state_dict().values(), *target.state_dict().values())]
    table = resample_table(source.relative_position_bias_table, "relative_position_bias_table", target)
    assert not table.requires_grad
    after = [*source.state_dict().values(), *target.state_dict().values()]
    assert all(map(torch.equal, before, after))


@pytest.mark.parametrize("name", ["weight", "pos_embedding", "rel_pos_h", "2", "attention"])
def test_an_unknown_name_gives_none(name: str) -> None:
    owner = nn.Module()
    owner.register_parameter(name, nn.Parameter(torch.zeros(5, 4)))
    assert resample_table(torch.zeros(9, 4), name, owner) is None


# What timm itself makes of the same tables. Its grid interpolation warns where resample_table does not.
timm_warns = pytest.mark.filterwarnings("ignore::UserWarning")


@timm_warns
@pytest.mark.parametrize("resolution", OTHERS)
def test_coatnet_as_timm_loads_it(resolution: int) -> None:
    state, model = state_of(NETWORKS["coatnet"]), NETWORKS["coatnet"](resolution)
    assert_equal(resampled(state, model), maxxvit.checkpoint_filter_fn(state, model))


@pytest.mark.parametrize("resolution", OTHERS)
@pytest.mark.parametrize("network", ["efficientformerv2", "efficientvit_m", "levit"])
def test_attention_biases_as_timm_loads_those_of_tiny_vit(network: str, resolution: int) -> None:
    state, model = state_of(NETWORKS[network]), NETWORKS[network](resolution)
    assert_equal(resampled(state, model), tiny_vit.checkpoint_filter_fn(state, model))


@timm_warns
@pytest.mark.parametrize("side", [3, 5, 9])
def test_heads_first_equals_heads_last(side: int) -> None:
    """One table in the two layouts of maxvit, by a kind of loader each."""
    table = torch.randn(13, 13, 3)
    name, window = "relative_position_bias_table", (side, side)
    first = resample_table(table.permute(2, 0, 1), name, RelPosBiasTf(window, 3))
    last = resample_table(table.flatten(0, 1), name, RelPosBias(window, 3))
    wanted = resize_rel_pos_bias_table(table.flatten(0, 1), window, last.shape)
    assert torch.equal(last, wanted)
    assert torch.equal(first.flatten(1).T, wanted)


@timm_warns
@pytest.mark.parametrize("side", [4, 6, 10])
def test_lambda_as_a_relative_position_bias(side: int) -> None:
    table = torch.randn(15, 15, 16)
    got = resample_table(table, "pos_emb", LambdaLayer(32, feat_size=side, r=None, dim_head=16))
    heads_first = table.permute(2, 0, 1)
    wanted = resize_rel_pos_bias_table(heads_first, (side, side), (16, 2 * side - 1, 2 * side - 1))
    assert torch.equal(got, wanted.reshape(16, 2 * side - 1, 2 * side - 1).permute(1, 2, 0))


@pytest.mark.parametrize("side", [3, 5, 9])
@pytest.mark.parametrize("name", ["height_rel", "width_rel"])
def test_botnet_as_the_decomposed_positions_of_sam(name: str, side: int) -> None:
    table = torch.randn(13, 8)
    got = resample_table(table, name, PosEmbedRel((side, side), 8, 1.0))
    assert torch.equal(got[torch.arange(side)[:, None] - torch.arange(side) + side - 1], get_rel_pos(side, side, table))


def test_one_axis_is_linear_interpolation_between_pixel_centres() -> None:
    table = torch.randn(13, 4)
    got = resample_table(table, "height_rel", PosEmbedRel((3, 3), 4, 1.0))
    places = (np.arange(5) + 0.5) * 13 / 5 - 0.5
    wanted = np.stack([np.interp(places, np.arange(13), column) for column in table.numpy().T], axis=1)
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-6)


@pytest.mark.parametrize("side", [3, 9])
@pytest.mark.parametrize("layer", ["coatnet", "maxvit_tf", "lambda", "botnet"])
def test_no_offset_stays_no_offset(layer: str, side: int) -> None:
    """The middle of a table over offsets is what a position thinks of itself."""
    owner, name, shape = {
        "coatnet": (RelPosBias((side, side), 2), "relative_position_bias_table", (169, 2)),
        "maxvit_tf": (RelPosBiasTf((side, side), 2), "relative_position_bias_table", (2, 13, 13)),
        "lambda": (LambdaLayer(32, feat_size=side, r=None, dim_head=2), "pos_emb", (13, 13, 2)),
        "botnet": (PosEmbedRel((side, side), 2, 1.0), "width_rel", (13, 2)),
    }[layer]
    table = torch.randn(shape)
    got = resample_table(table, name, owner)
    if layer == "maxvit_tf":
        table, got = table.permute(1, 2, 0), got.permute(1, 2, 0)
    middles = [t.reshape(-1, 2)[t.numel() // 4] for t in (table, got)]
    torch.testing.assert_close(*middles)


@pytest.mark.parametrize("resolution", OTHERS)
def test_grids_of_channels_last_and_first(resolution: int) -> None:
    state, volo = state_of(NETWORKS["volo"]), NETWORKS["volo"](resolution)
    wanted = resample_abs_pos_embed_nhwc(state["pos_embed"], (resolution // 16,) * 2)
    assert_equal(resampled(state, volo), {"pos_embed": wanted})
    state, visformer = state_of(NETWORKS["visformer"]), NETWORKS["visformer"](resolution)
    got = resampled(state, visformer)
    assert sorted(got) == ["pos_embed1", "pos_embed2", "pos_embed3"]
    for key, table in got.items():
        wanted = resample_abs_pos_embed_nhwc(state[key].movedim(1, 3), table.shape[2:])
        assert torch.equal(table.movedim(1, 3), wanted)


@pytest.mark.parametrize("side", [3, 5, 9])
def test_attention_pooling_as_it_resamples_for_itself(side: int) -> None:
    source, target = AttentionPool2d(64, feat_size=7).eval(), AttentionPool2d(64, feat_size=side).eval()
    table = resample_table(source.pos_embed, "pos_embed", target)
    target.load_state_dict(source.state_dict() | {"pos_embed": table})
    x = torch.randn(2, 64, side, side)
    assert torch.equal(target(x), source(x))


@pytest.mark.parametrize(
    "tokens",
    [
        {},
        {"class_token": False, "global_pool": "avg"},
        {"reg_tokens": 4},
        {"reg_tokens": 5, "no_embed_class": True},
    ],
    ids=["class", "none", "registers", "registers_apart"],
)
def test_a_vision_transformer_as_it_resamples_for_itself(tokens: dict[str, object]) -> None:
    def build(resolution: int, **kwargs: object) -> nn.Module:
        size = {"img_size": resolution, "embed_dim": 16, "depth": 1, "num_heads": 1, "num_classes": 3}
        return VisionTransformer(**size, **tokens, **kwargs).eval()

    source = build(64, dynamic_img_size=True)
    for resolution in (32, 96):
        target = build(resolution)
        table = resample_table(source.pos_embed, "pos_embed", target)
        target.load_state_dict(source.state_dict() | {"pos_embed": table})
        x = torch.randn(2, 3, resolution, resolution)
        assert torch.equal(target(x), source(x))


def test_an_owner_that_tells_nothing_has_a_square_grid_behind_its_prefix() -> None:
    owner = nn.Module()
    owner.pos_embed = nn.Parameter(torch.zeros(1, 1 + 9, 4))
    table = torch.randn(1, 1 + 49, 4)
    got = resample_table(table, "pos_embed", owner)
    assert torch.equal(got[:, 0], table[:, 0])
    wanted = resample_abs_pos_embed_nhwc(table[:, 1:].reshape(1, 7, 7, 4), (3, 3))
    assert torch.equal(got[:, 1:], wanted.reshape(1, 9, 4))


def test_a_table_lies_in_memory_as_one_that_was_built() -> None:
    """A transposed view would round otherwise than the same table out of a file."""
    owner = nn.Module()
    owner.height_rel = nn.Parameter(torch.zeros(9, 4))
    table = resample_table(torch.randn(13, 4), "height_rel", owner)
    assert table is not None
    assert table.is_contiguous()

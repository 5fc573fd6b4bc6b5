"""Position tables: against timm's own loaders, layers that resample for themselves, and closed forms."""

from collections.abc import Callable, Mapping

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

from rsconvert.surgery.network.position_tables import resample_table

NATIVE = 224
OTHERS = (160, 96)

Build = Callable[[int], nn.Module]


def small(name: str, **kwargs: object) -> Build:
    return lambda resolution: timm.create_model(name, img_size=resolution, num_classes=3, **kwargs)


# The smallest network of every class that owns a table, thinned where its builder allows.
NETWORKS: dict[str, Build] = {
    "botnet": small("botnet26t_256", width_factor=0.25),
    "clip": small("resnet50_clip", width_factor=0.25),
    "coatnet": small("coatnet_pico_rw_224", depths=(1,) * 4, embed_dim=(32,) * 4, stem_width=(16, 16)),
    "efficientformerv2": small("efficientformerv2_s0"),
    "efficientvit_m": small("efficientvit_m0"),
    "lambda": small("lambda_resnet26rpt_256", width_factor=0.25),
    "levit": small("levit_128s", embed_dim=(16,) * 3, num_heads=(2,) * 3, depth=(1,) * 3, key_dim=8),
    "maxvit_tf": small("maxvit_tiny_tf_224", depths=(1,) * 4, embed_dim=(32, 32, 64, 64), stem_width=16),
    "visformer": small("visformer_tiny", embed_dim=48, depth=(1,) * 3),
    "vit_resnet": small("vit_small_resnet26d_224", embed_dim=16, depth=1, num_heads=1),
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

"""Models built again for another size: the same tensors, another shape of their tables."""

import pytest
import timm
import torch
from torch import nn

from rsconvert.errors import ResolutionError, UnsupportedModelError
from rsconvert.models import Source, create_model, source_of
from rsconvert.surgery import make_switchable
from rsconvert.surgery.network.rebuilding import build_like, builders, fit_to, kwargs_at, rebuilt

LEVIT = "levit_128s"


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
    model = create_model(LEVIT)
    state = torch.get_rng_state()
    make_switchable(model, (96, 64))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("name", "way", "tables"),
    [
        ("test_resnet", None, 0),
        ("coatnet_rmlp_nano_rw_224", "img_size", 0),
        ("vit_small_resnet26d_224", "dynamic_img_size", 0),
        ("levit_128s", "img_size", 11),
        ("visformer_tiny", "img_size", 3),
    ],
)
def test_each_class_of_the_zoo_finds_its_way(name: str, way: str | None, tables: int) -> None:
    report = make_switchable(create_model(name), (96, 64)).report
    assert (report.built_with, len(report.tables)) == (way, tables)
    assert report.exact == {96: True, 64: True}


def test_the_path_of_a_rebuilt_model_is_what_timm_builds() -> None:
    """Independently: timm's own constructor for the size, its own loading, its own resampling."""
    net = make_switchable(create_model("vit_small_resnet26d_224"), (96, 64)).eval()
    own = timm.create_model("vit_small_resnet26d_224", dynamic_img_size=True).eval()
    own.load_state_dict(net.at(64).state_dict())
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(net(x), own(x))
    assert source_of(net.at(64)).architecture == "vit_small_resnet26d_224"

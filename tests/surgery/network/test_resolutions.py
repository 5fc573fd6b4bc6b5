"""Resolutions: lists of them, and the image among the arguments: the path is chosen rightly or not at all."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rsconvert
from rsconvert.errors import ConfigError, ResolutionError
from rsconvert.models import ImageArgument
from rsconvert.surgery import check_resolutions, check_stages, examine, make_switchable, to_graph
from rsconvert.surgery.network.resolutions import default_images, find_images
from rsconvert.surgery.network.switchable import SwitchableModel

RESOLUTIONS = (64, 48, 32)
Inputs = Callable[[int], Any]


class Net(nn.Module):
    """A convolution and a BatchNorm; subclasses take their image in another way."""

    def __init__(self, channels: int = 3, dimensions: int = 2) -> None:
        super().__init__()
        convolution, norm = {2: (nn.Conv2d, nn.BatchNorm2d), 3: (nn.Conv3d, nn.BatchNorm3d)}[dimensions]
        self.conv, self.bn = convolution(channels, 4, 3, padding=1), norm(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).flatten(2).mean(2)


class Keyword(Net):
    def forward(self, *, pixel_values: Tensor, scale: float = 1.0) -> Tensor:
        return super().forward(pixel_values) * scale


class Optional(Net):
    """As networks of transformers: every argument may be missing."""

    def forward(self, input_ids: Tensor | None = None, pixel_values: Tensor | None = None) -> Tensor:
        assert input_ids is None
        assert pixel_values is not None
        return super().forward(pixel_values)


class Points(Net):
    def forward(self, points: Tensor, image: Tensor) -> Tensor:
        return super().forward(image) + points.mean()


class Pair(Net):
    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return super().forward(first - second)


class Last(Net):
    """Images (N, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2))


class Either(Net):
    """Images (N, C, H, W) or (N, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.shape[1] == 3 else x.permute(0, 3, 1, 2))


class Batch(Net):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return super().forward(batch["image"])


def images(resolution: int) -> Tensor:
    return torch.rand(2, 3, resolution, resolution)


def told(net: SwitchableModel) -> list[str]:
    assert net.report is not None
    return [warning for warning in net.report.warnings if "net(x) refuses" in warning]


def check_paths(net: SwitchableModel, write_all, inputs: Inputs) -> None:
    """Each trained size runs its own path, by position or by keyword as it is given."""
    write_all(net.eval())
    for resolution in RESOLUTIONS:
        given = inputs(resolution)
        args, kwargs = ((), given) if isinstance(given, dict) else (given, {})
        outputs = {r: net.at(r)(*args, **kwargs) for r in RESOLUTIONS}
        assert torch.equal(net(*args, **kwargs), outputs[resolution])
        assert not any(torch.equal(outputs[r], outputs[resolution]) for r in RESOLUTIONS if r != resolution)


CERTAIN: list[tuple[Callable[[], nn.Module], dict[str, Any], Inputs]] = [
    (Net, {}, lambda r: (images(r),)),
    (Net, {}, lambda r: {"x": images(r)}),
    (Keyword, {}, lambda r: {"pixel_values": images(r), "scale": 2.0}),
    (Optional, {"image": "pixel_values"}, lambda r: {"pixel_values": images(r)}),
    (Optional, {"image": 1}, lambda r: (None, images(r))),
    (
        Points,
        {"example": lambda r: (torch.rand(1, 40, 3), torch.rand(1, 3, r, r))},
        lambda r: (torch.rand(2, 48, 3), images(r)),
    ),
    (
        Points,
        {"example": lambda r: {"points": torch.rand(1, 9, 3), "image": torch.rand(1, 3, r, r)}, "image": "image"},
        lambda r: {"image": images(r), "points": torch.rand(2, 48, 3)},
    ),
    (Points, {"image": 1}, lambda r: (torch.rand(2, 3, 16, 16), images(r))),
    (Last, {"example": lambda r: (torch.rand(1, r, r, 3),)}, lambda r: (images(r).permute(0, 2, 3, 1),)),
    (Batch, {"example": lambda r: ({"image": torch.rand(1, 3, r, r)},)}, lambda r: ({"image": images(r)},)),
    (Batch, {"image": "batch.image"}, lambda r: {"batch": {"image": images(r)}}),
    (
        lambda: Net(1, 3),
        {"example": lambda r: (torch.rand(1, 1, r, r, 8),)},
        lambda r: (torch.rand(1, 1, r, r, 20),),
    ),
]


@pytest.mark.parametrize(("model", "options", "inputs"), CERTAIN)
def test_the_path_is_that_of_the_image(model, options, inputs, write_all, tmp_path) -> None:
    net = make_switchable(model(), RESOLUTIONS, **options)
    assert told(net) == []
    check_paths(net, write_all, inputs)
    rsconvert.save(net, tmp_path / "net.safetensors")
    again = rsconvert.load(tmp_path / "net.safetensors", model=model())
    assert again.source.images == net.source.images
    check_paths(again, lambda same: same, inputs)


def test_an_oblong_image_counts_by_its_area_in_any_layout() -> None:
    net = make_switchable(Last(), RESOLUTIONS, example=lambda r: (torch.rand(1, r, r, 3),)).eval()
    x = torch.rand(2, 32, 72, 3)
    assert torch.equal(net(x), net.at(48)(x))


@pytest.mark.parametrize(
    ("model", "options", "inputs", "message"),
    [
        (Either, {}, (torch.rand(2, 48, 48, 3),), r"^x is of \(2, 48, 48, 3\); images \(N, 3, H, W\) are needed"),
        (
            Last,
            {"example": lambda r: (torch.rand(1, r, r, 3),)},
            (torch.rand(2, 3, 32, 48),),
            r"images \(N, H, W, 3\) are needed",
        ),
        (Net, {}, (torch.rand(3, 48, 48),), r"^x is of \(3, 48, 48\); images"),
        (Net, {}, (), "the input holds no tensor"),
        (
            Pair,
            {},
            (torch.rand(2, 3, 48, 48), torch.rand(2, 3, 32, 32)),
            "differ in size: first 48, second 32",
        ),
        (Points, {}, (torch.rand(2, 48, 3), torch.rand(2, 3, 32, 32)), r"^points is of \(2, 48, 3\)"),
    ],
)
def test_what_may_be_another_path_is_refused_in_one_line(model, options, inputs, message: str) -> None:
    net = make_switchable(model(), RESOLUTIONS, **options).eval()
    with pytest.raises(ResolutionError, match=message) as error:
        net(*inputs)
    assert "net.at(resolution)" in str(error.value)
    assert "image=" in str(error.value)
    assert "\n" not in str(error.value)


def test_two_images_of_one_size_are_certain_and_the_report_says_when_they_are_not(write_all) -> None:
    net = make_switchable(Pair(), RESOLUTIONS)
    (warning,) = told(net)
    assert warning.startswith("forward takes several images (first, second)")
    check_paths(net, write_all, lambda r: (images(r), images(r)))
    assert told(make_switchable(Pair(), RESOLUTIONS, image="second")) == []


def test_a_volume_is_told_by_an_example_or_has_equal_sides(write_all) -> None:
    net = make_switchable(Net(1, 3), (32, 24)).eval()
    (warning,) = told(net)
    assert "may be a clip or a volume" in warning
    assert torch.equal(net(cube := torch.rand(1, 1, 24, 24, 24)), net.at(24)(cube))
    for shape in ((1, 1, 16, 24, 24), (1, 1, 32, 32, 8)):
        with pytest.raises(ResolutionError, match=r"images \(N, 1, H, W, D\) of equal sides"):
            net(torch.rand(shape))
        assert net.at(24)(torch.rand(shape)).shape == (1, 4)
    cubes = make_switchable(Net(1, 3), (32, 24), example=lambda r: (torch.rand(1, 1, r, r, r),)).eval()
    assert torch.equal(cubes(cube), cubes.at(24)(cube))
    with pytest.raises(ResolutionError, match="of equal sides"):
        cubes(torch.rand(1, 1, 24, 24, 16))


def test_without_an_image_net_refuses_and_a_path_runs(tmp_path) -> None:
    """An example twice as wide as its resolution does not count as it."""
    net = make_switchable(Net(), RESOLUTIONS, example=lambda r: (torch.rand(1, 3, r, 2 * r),)).eval()
    assert told(net) == [warning for warning in net.report.warnings if warning.startswith("no argument of forward")]
    rsconvert.save(net, tmp_path / "net.safetensors")
    for one in (net, rsconvert.load(tmp_path / "net.safetensors", model=Net()).eval()):
        assert one.source.images == ()
        with pytest.raises(ResolutionError, match=r"net\.at\(resolution\)"):
            one(torch.rand(1, 3, 48, 48))
        assert one.at(48)(torch.rand(1, 3, 48, 48)).shape == (1, 4)


def test_views_stand_where_the_image_stands() -> None:
    views = [images(r) for r in RESOLUTIONS]
    for model, options, name in (
        (Keyword(), {}, "pixel_values"),
        (Optional(), {"image": "pixel_values"}, "pixel_values"),
        (Batch(), {"image": "batch.image"}, "batch"),
    ):
        net = make_switchable(model, RESOLUTIONS, **options).train()
        given = [{name: {"image": view} if name == "batch" else view} for view in views]
        wanted = [net.at(r)(**own) for r, own in zip(RESOLUTIONS, given, strict=True)]
        assert all(map(torch.equal, net(views=views), wanted))


@pytest.mark.parametrize("image", ["points", 0, 7])
def test_an_image_that_is_none_is_refused(image) -> None:
    example = lambda r: (torch.rand(1, 40, 3), torch.rand(1, 3, r, r))  # noqa: E731
    with pytest.raises(ConfigError, match=rf"^image is {image!r}; .* here: image\. Name one of them"):
        make_switchable(Points(), RESOLUTIONS, example=example, image=image)


def test_an_image_of_another_name_is_refused_before_any_work() -> None:
    with pytest.raises(ConfigError, match=r"^image is 'picture'; forward takes pixel_values, scale\. Name one of them"):
        examine(Keyword(), RESOLUTIONS, image="picture")


@pytest.mark.parametrize("image", [True, -1, "", 1.5, ["x"]])
def test_an_image_is_a_name_or_a_position(image) -> None:
    with pytest.raises(ConfigError, match=r"^image is"):
        examine(Net(), RESOLUTIONS, image=image)


def test_an_old_file_chooses_by_the_signature() -> None:
    assert default_images(Net()) == (ImageArgument(name="x"),)
    assert default_images(Keyword())[0].label == "pixel_values"
    assert default_images(Net(1, 3))[0].axes == (-3, -2, -1)
    video = rsconvert.create_model("torchvision/mc3_18", num_classes=3)
    assert default_images(video) == (ImageArgument(name="x", ndim=5),)


def test_without_known_channels_the_last_axis_must_not_look_like_them() -> None:
    net = make_switchable(Net(), RESOLUTIONS).eval()
    net.source = replace(net.source, images=None)
    with pytest.raises(ResolutionError, match=r"images \(N, C, H, W\)"):
        net(torch.rand(1, 48, 48, 3))
    assert torch.equal(net(x := torch.rand(1, 3, 32, 72)), net.at(48)(x))


def test_a_single_resolution_shows_the_axes_that_equal_it() -> None:
    (found,) = find_images(Last(), {48: (torch.rand(1, 48, 48, 3),)})
    assert (found.axes, found.channels, found.layout) == ((-3, -2), (-1, 3), "(N, H, W, 3)")


def test_a_graph_reads_the_size_of_the_image_alone() -> None:
    net = make_switchable(Keyword(), RESOLUTIONS).eval()
    x = images(48)
    assert torch.allclose(to_graph(net)(pixel_values=x), net(pixel_values=x), atol=1e-5)
    last = make_switchable(Last(), RESOLUTIONS, example=lambda r: (torch.rand(1, r, r, 3),))
    with pytest.raises(rsconvert.errors.UnsupportedModelError, match=r"takes x \(N, H, W, 3\)"):
        to_graph(last)


def test_check_resolutions_sorts() -> None:
    assert check_resolutions([96, 224, 160]) == (224, 160, 96)


@pytest.mark.parametrize("given", [np.array([96, 224]), [np.int64(96), np.uint8(224)], (r for r in (96, 224))])
def test_numbers_of_numpy_become_plain(given) -> None:
    checked = check_resolutions(given)
    assert checked == (224, 96)
    assert {type(r) for r in checked} == {int}


@pytest.mark.parametrize("given", [48, np.int64(48), None])
def test_what_is_no_list_is_refused(given) -> None:
    with pytest.raises(ResolutionError, match=r"^resolutions is .*48|None.*; a list of numbers of pixels is needed\."):
        check_resolutions(given)


def test_stages_come_back_in_their_order() -> None:
    assert check_stages([96, 160, 224], [0, 1.0]) == (96, 160, 224)


@pytest.mark.parametrize("stages", [[96], [160, 96], [96, 96], [], [96, "x"], [0, 96]])
def test_stages_that_do_not_increase_are_refused(stages: list[Any]) -> None:
    with pytest.raises(ResolutionError):
        check_stages(stages, [0.5])


@pytest.mark.parametrize("thresholds", [[], [0.5, 0.5], [1.5], [-0.1], ["0.5"], [True], [float("nan")]])
def test_a_threshold_is_a_share(thresholds: list[Any]) -> None:
    with pytest.raises(ConfigError, match="1 numbers from 0 to 1 are needed"):
        check_stages([96, 160], thresholds)

"""verify_export: which sizes are compared, on which images, that a wrong export is found; what counts as agreement."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import rsconvert
from rsconvert.errors import CheckpointError, ConfigError, DataError, ResolutionError, UnsupportedModelError
from rsconvert.export import Agreement, Export, Verification, verify_export
from rsconvert.export.verification import compare
from rsconvert.surgery import SwitchableModel, scrambled, write

RESOLUTIONS = (64, 48, 32)
X = torch.zeros(2, 3, 4, 4)
EXPECTED = torch.tensor([[1.0, 2.0, -4.0], [10.0, 0.0, 0.0]])


@pytest.fixture
def net(tiny) -> SwitchableModel:
    torch.manual_seed(0)
    net = rsconvert.make_switchable(tiny(), RESOLUTIONS)
    for resolution in RESOLUTIONS:
        write(net.at(resolution), scrambled(net.at(resolution), resolution))
    return net


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 255, (7, 80, 90, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def recorded(run: Callable[[Tensor], Tensor], shapes: list[tuple[int, ...]]) -> Callable[[Tensor], Tensor]:
    def call(x: Tensor) -> Tensor:
        shapes.append(tuple(x.shape))
        return run(x)

    return call


def test_every_size_is_compared_in_two_batches(net: SwitchableModel) -> None:
    shapes: list[tuple[int, ...]] = []
    result = verify_export(Export(recorded(net, shapes)), net)
    assert result.passed
    assert result.difference == 0
    assert list(result.sizes) == ["64", "56", "48", "40", "32", "64x32"]
    assert {row.images for row in result.sizes.values()} == {6}
    assert shapes[:2] == [(1, 3, 64, 64), (5, 3, 64, 64)]
    assert shapes[-1] == (5, 3, 64, 32)
    assert net.training  # the mode that it had


@pytest.mark.parametrize(
    ("export", "asked", "sizes"),
    [
        (Export(nn.Identity()), (50, 40), ["50", "40", "50x40"]),
        (Export(nn.Identity(), "side", "side"), (50, 40), ["50", "40"]),
        (Export(nn.Identity(), 40, 40), None, ["40"]),
        (Export(nn.Identity(), 40, 40), (40,), ["40"]),
        (Export(nn.Identity(), 40, 48), None, ["40x48"]),
        (Export(nn.Identity(), plain=True), (40,), ["40"]),
        # With branches: theirs, and one that none serves.
        (Export(nn.Identity(), branches=(64, 56, 48, 40, 32)), None, ["64", "60", "56", "48", "40", "32", "64x32"]),
        (Export(nn.Identity(), branches=(50,)), None, ["64", "56", "50", "48", "40", "32", "64x32"]),
        (
            Export(nn.Identity(), branches=(99, 56, 48, 40, 32)),
            None,
            ["99", "64", "60", "56", "48", "40", "32", "99x32"],
        ),
        (Export(nn.Identity(), branches=(64, 56, 48, 40, 32)), (50,), ["50"]),
    ],
)
def test_the_sizes_are_those_that_both_take(net, export: Export, asked, sizes: list[str]) -> None:
    result = verify_export(export, net, asked)
    assert list(result.sizes) == sizes
    assert {row.images for row in result.sizes.values()} == {6}


def test_a_size_that_has_a_branch_must_work_in_the_network(net: SwitchableModel) -> None:
    with pytest.raises(ResolutionError, match="resolution 2 does not work in the network"):
        verify_export(Export(net, branches=(2,)), net)


@pytest.mark.parametrize("wrong", [64, 48, 32])
def test_a_wrong_set_is_found_at_its_resolution(net: SwitchableModel, wrong: int) -> None:
    other = {64: 48, 48: 32, 32: 48}[wrong]

    def mixed_up(x: Tensor) -> Tensor:
        return net.at(other)(x) if x.shape[-1] == wrong else net(x)

    result = verify_export(Export(mixed_up, "side", "side"), net)
    assert not result.passed
    assert [size for size, row in result.sizes.items() if row.difference > 1e-4] == [str(wrong)]


def test_an_export_that_snaps_to_the_nearest_set_is_found(net: SwitchableModel) -> None:
    def snapped(x: Tensor) -> Tensor:
        return net.at(min(RESOLUTIONS, key=lambda r: abs(r - x.shape[-1])))(x)

    wrong = [size for size, row in verify_export(Export(snapped), net).sizes.items() if row.difference > 1e-4]
    assert wrong == ["56", "40", "64x32"]


def test_a_fixed_batch_is_kept(net: SwitchableModel, photos: Path) -> None:
    shapes: list[tuple[int, ...]] = []
    result = verify_export(Export(recorded(net, shapes), 48, 48, batch=3), net, data=photos)
    assert set(shapes) == {(3, 3, 48, 48)}
    assert result.sizes["48"].images == 3 + 6  # of seven photos, two batches of three


def test_real_images_are_shown_as_the_network_sees_them(net: SwitchableModel, photos: Path) -> None:
    seen: list[Tensor] = []

    def run(x: Tensor) -> Tensor:
        seen.append(x)
        return net(x)

    result = verify_export(Export(run), net, data=photos, images=6)
    assert result.passed
    assert result.sizes["56"].images == 6 + 6
    assert result.sizes["64x32"].images == 6
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (net.source.preprocessing.mean, net.source.preprocessing.std))
    bytes_ = (seen[-1] * std + mean) * 255
    assert len(seen[-1]) == 1
    assert torch.allclose(bytes_, bytes_.round(), atol=1e-3)
    again = verify_export(Export(run), net, data=photos, images=6)
    assert again == result


def test_a_size_that_nobody_named_may_be_refused_by_the_network(tiny) -> None:
    class Picky(tiny):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[-1] % 16 or x.shape[-2] != x.shape[-1]:
                raise ValueError("a multiple of 16 is needed")
            out: Tensor = super().forward(x)
            return out

    net = rsconvert.make_switchable(Picky(), RESOLUTIONS).eval()
    assert list(verify_export(Export(net), net).sizes) == ["64", "48", "32"]
    for export, asked in ((Export(net), (40,)), (Export(net, 40, 40), None)):
        with pytest.raises(ResolutionError, match=r"^resolution 40 does not work .*\(a multiple of 16 is needed\)"):
            verify_export(export, net, asked)


def test_bad_settings_are_one_line(net: SwitchableModel, tmp_path: Path) -> None:
    with pytest.raises(ResolutionError, match="resolution 32 is not that of the export, which is bound to 48"):
        verify_export(Export(net, 48, 48), net, (48, 32))
    with pytest.raises(ResolutionError, match="one resolution is needed"):
        verify_export(Export(net, plain=True), net)
    with pytest.raises(ConfigError, match=r"tolerance is 0\.0"):
        verify_export(Export(net), net, tolerance=0.0)
    with pytest.raises(ConfigError, match="images 0"):
        verify_export(Export(net), net, images=0)
    with pytest.raises(DataError, match="the data holds 0 images"):
        verify_export(Export(net), net, data=tmp_path)


def test_a_network_of_several_outputs_is_refused(tiny) -> None:
    class Two(tiny):  # type: ignore[misc]
        def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
            return {"out": super().forward(x)}

    net = rsconvert.make_switchable(Two(), RESOLUTIONS)
    with pytest.raises(UnsupportedModelError, match="the network gives a dict; one tensor"):
        verify_export(Export(net), net)


def test_a_doubtful_image_meets_its_path_in_double_precision(net: SwitchableModel) -> None:
    def rounded(x: Tensor) -> Tensor:
        return net(x) * (1 + 2e-4)

    def precise(x: Tensor) -> Tensor:
        return net.extract(round((x.shape[-2] * x.shape[-1]) ** 0.5)).double()(x.double())

    off = verify_export(Export(rounded), net)
    assert not off.passed  # twice the tolerance away in double precision too
    assert off.sizes["64x32"].float64 == 6
    assert 1.9e-4 < off.difference < 2.1e-4
    assert verify_export(Export(precise), net, tolerance=2e-8).passed


def compared(change: list[list[float]], tolerance: float = 1e-4, expected: torch.Tensor = EXPECTED) -> Agreement:
    return compare(lambda _: expected + torch.tensor(change), X, expected, tolerance)


def test_the_difference_is_relative_to_each_image_and_the_largest_counts() -> None:
    row = compared([[0, 0.5, 0], [1.0, 0, 0]])
    assert (row.difference, row.images, row.clear, row.agreeing) == (0.125, 2, 2, 2)
    assert compared([[0, 0, 0], [0, 0, 0]]) == Agreement(0.0, 2, 2, 2)


def test_another_class_counts_unless_the_best_two_are_close() -> None:
    assert (compared([[1.5, 0, 0], [0, 0, 0]])).agreeing == 1
    close = torch.tensor([[4.0, 4.0001, 0.0], [1.0, 0.0, 0.0]])
    row = compared([[0.0002, 0, 0], [0, 0, 0]], expected=close)
    assert (row.clear, row.agreeing) == (1, 1)
    assert row.difference < 1e-4


def test_dense_logits_count_every_position() -> None:
    expected = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    row = compare(lambda _: expected.flip(1), X, expected, 1e-4)
    assert row.clear == 40
    assert row.agreeing < 40
    assert compare(lambda _: expected.clone(), X, expected, 1e-4).agreeing == 40


def test_logits_of_zeros_agree_with_themselves_alone() -> None:
    zeros = torch.zeros(2, 3)
    assert compare(lambda _: zeros, X, zeros, 1e-4) == Agreement(0.0, 2, 0, 0)
    assert compare(lambda _: zeros + 1e-3, X, zeros, 1e-4).difference == math.inf


def test_one_output_has_no_classes() -> None:
    assert compare(lambda _: torch.ones(2, 1), X, torch.ones(2, 1), 1e-4) == Agreement(0.0, 2)


def test_what_is_no_number_has_another_shape_or_fails_never_passes() -> None:
    assert compared([[math.nan, 0, 0], [0, 0, 0]]).difference == math.inf
    other = compare(lambda _: EXPECTED[:1], X, EXPECTED, 1e-4)
    assert (other.difference, other.failure) == (math.inf, "it gives (1, 3), not (2, 3)")
    failed = compare(lambda _: EXPECTED.view(5), X, EXPECTED, 1e-4)
    assert failed.failure is not None
    assert failed.failure.startswith("it fails: shape '[5]' is invalid")


def test_rows_add_up() -> None:
    both = Agreement(0.1, 2, 2, 1, 2) + Agreement(0.3, 1, 1, 1, failure="why")
    assert both == Agreement(0.3, 3, 3, 2, 2, "why")


def test_what_rounding_may_explain_is_compared_in_double_precision() -> None:
    asked: list[torch.Tensor] = []

    def exact(x: torch.Tensor) -> torch.Tensor:
        asked.append(x)
        return EXPECTED[1:].double() + 2e-3

    got = EXPECTED + torch.tensor([[0.0, 0, 0], [2e-3, 2e-3, 2e-3]])
    row = compare(lambda _: got, X, EXPECTED, 1e-4, exact)
    assert torch.equal(asked[0], X[1:])
    assert row.difference < 1e-6
    assert (row.float64, row.images) == (1, 2)
    assert "1 compared in float64" in str(Verification(1e-4, {"64": row}))


def test_what_is_really_wrong_or_has_no_double_stays_wrong() -> None:
    def exact(x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("rounding can't explain it")

    assert compare(lambda _: EXPECTED + 1.0, X, EXPECTED, 1e-4, exact).difference > 0.1
    row = compare(lambda _: EXPECTED + 2e-3, X, EXPECTED, 1e-4, lambda x: None)
    assert (row.difference > 1e-4, row.float64) == (True, 0)
    off = compare(lambda _: EXPECTED + 2e-3, X, EXPECTED, 1e-4, lambda x: EXPECTED.double()[: len(x)])
    assert off.difference > 1e-4


@pytest.mark.parametrize(
    ("row", "passed"),
    [
        (Agreement(1e-4, 5, 5, 5), True),
        (Agreement(1.1e-4, 5, 5, 5), False),
        (Agreement(0.0, 5, 5, 4), False),
        (Agreement(math.inf, 5, failure="it fails: why"), False),
    ],
)
def test_the_verdict(row: Agreement, passed: bool) -> None:
    result = Verification(1e-4, {"64": Agreement(0.0, 5, 5, 5), "48": row})
    assert result.passed is passed
    assert result.to_dict()["passed"] is passed
    assert "Infinity" not in json.dumps(result.to_dict())
    if passed:
        assert result.check("x.onnx") is None
        assert str(result).endswith("agrees: largest relative difference 1.0e-04; up to 0.0001 is accepted")
    else:
        with pytest.raises(CheckpointError, match=r"^x\.onnx disagrees with the network at 48 \(48: "):
            result.check("x.onnx")
        assert "disagrees" in str(result)


def test_the_tolerance_is_that_of_the_precision(net: SwitchableModel) -> None:
    def rounded(x: Tensor) -> Tensor:
        return net(x).half().float()

    assert verify_export(Export(rounded, precision="float16"), net).tolerance == 1e-2
    assert verify_export(Export(rounded, precision="float16"), net).passed
    assert not verify_export(Export(rounded), net).passed
    assert not verify_export(Export(rounded, precision="float16"), net, tolerance=1e-6).passed

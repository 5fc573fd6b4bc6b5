"""A name becomes a network: where values come from, what overrides them, and what is said of it."""

from pathlib import Path
from typing import Any

import pytest

import rsconvert
from rsconvert.errors import ConfigError, ResolutionError
from rsconvert.evaluation import multiply_adds
from rsconvert.export.target import image_facts
from rsconvert.surgery import ConversionReport
from rsconvert.wrapping import conversion_of, refusal, wrap

NAME = "test_efficientnet"


def test_a_conversion_counts_and_costs() -> None:
    net = wrap(NAME, (48, 32), pretrained=False, num_classes=3, preprocessing={"mean": (0.5, 0.5, 0.5), "std": None})
    assert net.source.preprocessing.mean == (0.5, 0.5, 0.5)
    found = conversion_of(net)
    facts = found.to_dict()
    assert facts["batchnorms"] == facts["converted"] == sum(1 for _ in net.switchable_bns())
    assert facts["resolutions"] == {
        str(r): {"exact": True, "multiply_adds": multiply_adds(net.at(r), r)} for r in (48, 32)
    }
    assert (facts["parameters_before"], facts["refused"], facts["weights"]) == (net.report.parameters_before, [], None)
    assert "mean: 0.5, 0.5, 0.5" in str(found).splitlines()


def test_a_table_gives_each_resolution_its_crop(tmp_path: Path) -> None:
    """Those of 48 and 40 lie on the line from 64 to 32; what untrained ones get lies on it too."""
    net = wrap(NAME, (32, 64, 40, 48), pretrained=False, preprocessing={"crop_pct": {32: 0.8, 64: 1.0}})
    assert net.source.preprocessing.crop_pct == pytest.approx((1.0, 0.9, 0.85, 0.8))
    rsconvert.save(net, tmp_path / "net.safetensors")
    again = rsconvert.load(tmp_path / "net.safetensors")
    assert again.source.preprocessing == net.source.preprocessing
    assert image_facts(again, 56)["crop_pct"] == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("table", "found"),
    [({}, "empty"), ({64: 1.0, 50: 0.9}, "64 1, 50 0.9"), ({64: 1.0, 32: 1.2}, r"1\.0, 1\.2; choose")],
)
def test_a_table_of_other_resolutions_is_refused(table: dict[int, float], found: str) -> None:
    with pytest.raises(ConfigError, match=f"crop_pct is {found}"):
        wrap(NAME, (64, 32), pretrained=False, preprocessing={"crop_pct": table})


def test_what_does_not_work_at_a_resolution_is_reported_before_the_error() -> None:
    reports: list[ConversionReport] = []
    options: dict[str, Any] = {"pretrained": False, "on_refusal": reports.append}
    with pytest.raises(ResolutionError, match="48"):
        wrap("torchvision/inception_v3", (96, 48), model_kwargs={"init_weights": False}, **options)
    facts = refusal(reports[0])
    assert facts["resolutions"] == {"96": {"works": True}, "48": {"works": False}}
    assert (facts["converted"], facts["refused"]) == (0, [48])


@pytest.mark.parametrize("given", [{"pretrained": True}, {"weights": "x.pth"}])
def test_values_come_from_one_place(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"rsnets is r.pth, together with"):
        wrap(NAME, (48, 32), rsnets="r.pth", **given)


def test_values_are_downloaded_only_where_nothing_else_gives_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def create(name: str, *, pretrained: bool = False, **more: Any) -> Any:
        asked.append(pretrained)
        return rsconvert.create_model(name)

    monkeypatch.setattr("rsconvert.wrapping.create_model", create)
    for pretrained, wanted in ((None, [False, True]), (False, [False])):
        wrap(NAME, (48, 32), pretrained=pretrained)
        assert asked == wanted
        asked.clear()

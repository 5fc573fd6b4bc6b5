"""The table of models: what a row says of a model, totals, the file; and the one that is shipped."""

import json
import runpy
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from rsconvert.compatibility import FIVE, Row, Table, read_table, totals
from rsconvert.compatibility.check import all_names
from rsconvert.compatibility.table import write_table
from rsconvert.errors import DataError

ROOT = Path(__file__).parents[2]
PLAIN = Row(
    name="one",
    family="ones",
    parameters=100,
    batchnorms=3,
    found={"graph": 2, "tree": 1},
    resolutions=FIVE,
    batches={"224": True, "96": True},
    training={"resolution": 96, "same": True, "words": "same"},
    seconds={"create": 1.0, "convert": 0.5, "forwards": 0.25},
)
NONE = Row(name="none", family="others", parameters=7)


@pytest.mark.parametrize(
    ("row", "size_class"),
    [
        (PLAIN, "A"),
        (replace(PLAIN, built_with="img_size"), "B"),
        (replace(PLAIN, built_with="img_size", tables={"pos_embed": 2}), "C"),
        (replace(PLAIN, resolutions=(224,), refused={"96": "too small"}), "D"),
        (replace(PLAIN, resolutions=(256, 320)), "D"),
        (replace(PLAIN, resolutions=(320, *FIVE)), "A"),
        (replace(PLAIN, resolutions=FIVE[1:], different=(224,)), "failed"),
        (replace(PLAIN, resolutions=()), "failed"),
        (replace(PLAIN, error="the process died with status -9"), "failed"),
        (replace(NONE, error="it took longer than 9 s"), "failed"),
        (NONE, "none"),
    ],
)
def test_the_class_follows_from_what_was_run(row: Row, size_class: str) -> None:
    assert row.size_class == size_class


def test_totals_count_models_batchnorms_and_paths() -> None:
    short = replace(PLAIN, name="two", resolutions=(224,), refused={"96": "no"}, batches={"224": False}, unseen=("bn",))
    broken = replace(PLAIN, name="three", error="no", resolutions=(), batches={}, training={})
    stuck = replace(PLAIN, name="four", training={"resolution": 96, "same": None, "words": "no"})
    sums = totals((PLAIN, NONE, short, broken, stuck))
    assert (sums["models"], sums["with_batchnorm"], sums["converted"]) == (5, 4, 3)
    assert sums["classes"] == {"A": 2, "B": 0, "C": 0, "D": 1, "failed": 1, "none": 1}
    assert (sums["batchnorms"], sums["found"]) == (12, {"graph": 8, "leaf": 0, "tree": 4})
    assert (sums["unseen"], sums["refused"], sums["paths"]) == (1, 1, {"exact": 11, "different": 0})
    assert sums["batches"] == {"models": 3, "exact": 2}
    assert sums["training"] == {"same": 2, "different": 0, "impossible": 1}
    assert sums["seconds"] == {"create": 4.0, "convert": 2.0, "forwards": 1.0, "batches": 0.0, "training": 0.0}


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    table = Table({"timm": "1"}, "sweep", "an abacus", 12.5, (NONE, PLAIN))
    write_table(table, tmp_path / "table.json")
    assert read_table(tmp_path / "table.json") == table
    assert len((tmp_path / "table.json").read_text().splitlines()) == 4


@pytest.mark.parametrize("text", ["", "[]", '{"rows": [{"name": "x"}]}', '{"rows": 1}', "\udcff"])
def test_a_broken_table_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(DataError, match=r"broken\.json"):
        read_table(path)


def test_the_shipped_table_holds_every_model_of_its_versions() -> None:
    table = read_table()
    assert set(table.versions) == {"rsconvert", "timm", "torchvision", "torch"}
    names = [row.name for row in table.rows]
    assert names == sorted(set(names))
    if all(version(name) == table.versions[name] for name in ("timm", "torchvision")):
        assert names == sorted(all_names())


def test_the_shipped_table_claims_nothing_that_was_not_run() -> None:
    for row in read_table().rows:
        if row.size_class == "none":
            assert row == Row(name=row.name, family=row.family, parameters=row.parameters)
            continue
        assert row.unseen == ()
        assert sum(row.found.values()) == row.batchnorms
        assert {"create", "convert", "forwards", "training"} <= row.seconds.keys()
        assert set(row.resolutions) | set(map(int, row.refused)) >= set(FIVE)
        assert set(map(int, row.refused)).isdisjoint(row.resolutions)
        assert row.training["same"] is not False
        assert all(row.batches.values())


def test_each_family_with_batchnorm_was_compared_on_batches() -> None:
    rows = [row for row in read_table().rows if row.batchnorms]
    assert {row.family for row in rows} == {row.family for row in rows if row.batches}


def test_the_page_of_models_is_what_the_table_tells() -> None:
    make = runpy.run_path(str(ROOT / "docs" / "make_models.py"))["models_page"]
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert page == make(read_table()), "run python docs/make_models.py"


def test_the_page_tells_what_fails() -> None:
    make = runpy.run_path(str(ROOT / "docs" / "make_models.py"))["models_page"]
    refused = replace(PLAIN, name="two", resolutions=(224,), refused={"128": "no", "96": "no", "160": "odd"})
    stuck = replace(PLAIN, name="four", training={"resolution": 96, "same": None, "words": "too small"})
    broken = replace(PLAIN, name="three", error="it took longer than 9 s")
    page = make(Table({"timm": "1"}, "sweep", "an abacus", 60.0, (PLAIN, NONE, refused, broken, stuck)))
    assert "| converted | 3 of 4 |" in page
    assert "- **two** works at 224\n  - 128, 96: `no`\n  - 160: `odd`" in page
    assert "**three** was not converted: it took longer than 9 s" in page
    assert "- **four** at 96: the source can't: too small" in page


def test_the_rows_are_plain_json() -> None:
    assert Row.from_dict(json.loads(json.dumps(PLAIN.to_dict()))) == PLAIN

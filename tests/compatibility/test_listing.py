"""Rows chosen and shown: the table's own, with their totals; a name that is unknown gives near ones."""

import pytest

from rsconvert.compatibility import Row, details, list_models, read_table, totals
from rsconvert.errors import UnsupportedModelError


def test_rows_are_those_of_the_table() -> None:
    rows = tuple(row for row in read_table().rows if row.name.startswith("resnet1") and row.size_class == "A")
    listing = list_models("resnet1*", "A")
    assert listing.rows == rows
    assert listing.to_dict()["totals"] == totals(rows)
    lines = str(listing).splitlines()
    assert lines[0].split() == ["model", "class", "parameters", "(M)", "BatchNorms", "resolutions"]
    assert [line.split()[0] for line in lines[1:-2]] == [row.name for row in rows]
    assert lines[1].split()[:4] == [rows[0].name, "A", f"{rows[0].parameters / 1e6:.1f}", str(rows[0].batchnorms)]
    assert lines[-1].startswith(f"{len(rows)} models, {len(rows)} of them at all five resolutions; measured with ")


def test_an_unknown_name_gives_near_ones() -> None:
    with pytest.raises(UnsupportedModelError, match=r"resnet1888 is not in the table .* Did you mean .*resnet18"):
        list_models("resnet1888")


def test_details_of_a_model_without_batchnorm_are_one_line() -> None:
    facts, text = details(Row(name="plain", family="plain", parameters=2_500_000))
    assert (facts["class"], facts["name"]) == ("none", "plain")
    assert text.split() == ["plain", "none", "2.5", "M", "no", "BatchNorm"]

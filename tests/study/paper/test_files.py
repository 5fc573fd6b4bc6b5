"""What an analysis leaves: four files of one name, in a folder made for them."""

from pathlib import Path

import pytest

from rsconvert.study import ENDINGS, new_figure, write_analysis


def test_four_files_of_one_name(tmp_path: Path) -> None:
    for csv in ("a,b\n", "c,d\n"):  # the second writes over the first
        files = write_analysis(tmp_path / "new" / "x.y", new_figure(1, 1), csv=csv, markdown="| a |")
        assert [file.name for file in files] == [f"x.y{ending}" for ending in ENDINGS]
        assert sorted(files) == sorted((tmp_path / "new").iterdir())
    png, svg, data, table = files
    assert png.read_bytes().startswith(b"\x89PNG")
    assert svg.read_text().startswith("<?xml")
    assert (data.read_text(), table.read_text()) == ("c,d\n", "| a |\n")


def test_a_folder_that_is_a_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(OSError, match="x"):
        write_analysis(tmp_path / "x" / "y", new_figure(1, 1), csv="", markdown="")

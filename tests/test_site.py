"""The site: every page is in it, its links hold in the one folder, and it builds without a warning."""

import json
import re
import runpy
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

import rsconvert

ROOT = Path(__file__).parents[1]
MAKE = runpy.run_path(str(ROOT / "docs" / "make_site.py"))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    MAKE["write_pages"](folder)
    return folder / "pages"


def test_every_page_is_in_the_navigation(pages: Path) -> None:
    sections = tomllib.loads((pages.parent / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    listed = [page for section in sections for names in section.values() for page in names]
    assert sorted(listed) == sorted(page.name for page in pages.glob("*.md"))
    assert len(listed) >= len(list((ROOT / "docs").glob("*.md"))) + 3


def test_the_links_hold_in_the_one_folder(pages: Path) -> None:
    for page in pages.glob("*.md"):
        for link in re.findall(r"\]\(([^)\s#]+)[^)\s]*\)", page.read_text(encoding="utf-8")):
            target = (pages / link).resolve()
            assert "://" in link or (target.is_file() and target.is_relative_to(pages)), f"{page.name}: {link}"


def test_the_pages_stay_as_they_are(pages: Path) -> None:
    same = "checkpoint_format.md", "runtime.md"
    assert [(pages / name).read_text() for name in same] == [(ROOT / "docs" / name).read_text() for name in same]
    assert "](docs/" not in (pages / "index.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not (find_spec("zensical") and find_spec("mkdocstrings_handlers")), reason="no site generator")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    html = MAKE["build_site"](tmp_path)
    reference = (html / "api.html").read_text(encoding="utf-8")
    assert [name for name in rsconvert.__all__ if f".{name}" not in reference] == []
    assert [name for name in ("Cascade", "ViewCollator", "PredictionList") if f".{name}" not in reference] == []
    assert re.findall(r"<p>(?:Args|Returns|Raises):", reference) == []
    assert "interpolation" in json.dumps(json.loads((html / "search.json").read_text(encoding="utf-8")))
    assert re.search(r'href="https?://fonts', reference) is None

"""Build a site with search out of the README, the pages, the changelog and the docstrings.

pip install '.[docs]' && python docs/make_site.py [FOLDER]     # build/site/html/index.html
"""

import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import rsconvert

__all__ = ["build_site", "write_pages"]

_ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(#[^)\s]*)?(?=\))")
_MENTION = re.compile(r"rsconvert(?:\.[a-z]+)+\.[A-Za-z]\w+(?=\W)")
_IMPORT = re.compile(r"from (rsconvert\.[\w.]+) import ([\w, ]+)")
_RESULTS = {
    ("rsconvert.evaluation", "Benchmark"),
    ("rsconvert.evaluation", "Evaluation"),
    ("rsconvert.export", "Exported"),
    ("rsconvert.export", "Verification"),
    ("rsconvert.runtime", "Prediction"),
    ("rsconvert.runtime", "PredictionList"),
    ("rsconvert.surgery", "ConversionReport"),
    ("rsconvert.training", "FinetuneResult"),
}
_NAMES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}


def build_site(folder: Path) -> Path:
    """Write the pages into ``folder`` and build them, a warning is an error; return the folder of the HTML files."""
    write_pages(folder)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    subprocess.run(command, cwd=folder, env=environment, check=True)
    return folder / "html"


def write_pages(folder: Path) -> None:
    """Write configuration and pages; a link to a file that is no page leads to a copy of the file."""
    shutil.rmtree(folder / "pages", ignore_errors=True)
    no_page = shutil.ignore_patterns("make_*", "site_*", "*.toml", "__pycache__")
    shutil.copytree(_ROOT / "docs", folder / "pages", ignore=no_page)
    shutil.copy(_ROOT / "docs" / "zensical.toml", folder)
    for source in [*_ROOT.glob("*.md"), *(_ROOT / "docs").glob("*.md")]:
        page = folder / "pages" / _NAMES.get(source.name, source.name)
        page.write_text(_linked(source, folder / "pages"), encoding="utf-8")
    (folder / "pages" / "api.md").write_text(_reference(), encoding="utf-8")


def _linked(source: Path, pages: Path) -> str:
    """Return the text of a page whose links hold in the folder of all pages."""

    def place(link: re.Match[str]) -> str:
        target = Path(os.path.relpath(source.parent / link[1], _ROOT))
        if target.parts[0] == "docs":
            return f"{Path(*target.parts[1:])}{link[2] or ''}"
        if str(target) in _NAMES:
            return f"{_NAMES[str(target)]}{link[2] or ''}"
        copy = pages / "files" / target
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_ROOT / target, copy)
        return f"files/{target}"

    return _LINK.sub(place, source.read_text(encoding="utf-8"))


def _reference() -> str:
    """Return the page of all public names, each where it is defined, and of those of parts that the pages use."""
    told = "The names of `import rsconvert`, then those of its parts that the pages use and that functions return."
    lines = ["# Python reference", "", told, ""]
    own = [("rsconvert", name) for name in sorted(rsconvert.__all__, key=str.lower)]
    for part, name in [*own, *sorted({*_RESULTS, *_mentioned()})]:
        found = getattr(importlib.import_module(part), name)
        lines += [f"::: {found.__module__}.{name}", ""]
    return "\n".join(lines)


def _mentioned() -> Iterator[tuple[str, str]]:
    """Yield the names of parts that the pages and the examples mention or import, such as runtime and Cascade."""
    for source in (_ROOT / "README.md", *(_ROOT / "docs").glob("*.md"), *(_ROOT / "docs" / "examples").glob("*.py")):
        text = source.read_text(encoding="utf-8")
        found = [match.rpartition(".")[::2] for match in _MENTION.findall(text)]
        found += [(part, name.strip()) for part, names in _IMPORT.findall(text) for name in names.split(",")]
        yield from ((part, name) for part, name in found if callable(getattr(importlib.import_module(part), name)))


if __name__ == "__main__":
    print(build_site(Path(sys.argv[1] if len(sys.argv) > 1 else _ROOT / "build" / "site").resolve()))

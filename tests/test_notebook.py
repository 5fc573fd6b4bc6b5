"""The notebook in docs/: its cells run, in a kernel of Jupyter where one is installed; it is kept without outputs."""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def cells() -> list[str]:
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


def test_it_is_kept_without_outputs() -> None:
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in found if "outputs" in cell)


MISSING = [name for name in ("nbclient", "ipykernel") if importlib.util.find_spec(name) is None]


@pytest.mark.skipif(not MISSING, reason="a kernel runs them")
def test_its_cells_run(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for cell in cells():
        exec(cell, names)
    assert capsys.readouterr().err.count("loss per view ") == 2
    assert names["net"].resolutions == (64, 48, 32)


@pytest.mark.skipif(bool(MISSING), reason="nbclient or ipykernel is not installed")
def test_a_kernel_shows_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output]
    html = [output["data"]["text/html"] for output in shown if "text/html" in output["data"]]
    assert len(html) == 4  # of the report, the epochs, the evaluation and the prediction
    assert "BatchNorms converted" in html[0]
    assert all("<table>" in text for text in html[1:])
    assert "<td>48</td>" in html[3]

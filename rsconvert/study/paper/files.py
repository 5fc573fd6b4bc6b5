"""What an analysis leaves in a folder: its figure, the data of the figure, its table."""

from pathlib import Path

from matplotlib.figure import Figure

from rsconvert.study.paper.style import save_figure

__all__ = ["ENDINGS", "write_analysis"]

ENDINGS = (".png", ".svg", ".csv", ".md")


def write_analysis(stem: str | Path, figure: Figure, *, csv: str, markdown: str) -> list[Path]:
    """Write ``stem.png`` and ``.svg``, the data as ``.csv``, the table as ``.md``, over what stands there.

    Raises:
        OSError: the folder can't be made or written.
    """
    files = [Path(f"{stem}{ending}") for ending in ENDINGS]
    png, svg, data, table = files
    png.parent.mkdir(parents=True, exist_ok=True)
    for path in (png, svg):
        save_figure(figure, path)
    data.write_text(csv, encoding="utf-8")
    table.write_text(markdown + "\n", encoding="utf-8")
    return files

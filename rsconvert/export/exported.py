"""What an exporter writes, in one shape for all formats: the files, and the facts of images that lie in them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsconvert.evaluation import crop_shares
from rsconvert.export.verification import Verification
from rsconvert.surgery import FoldReport, SwitchableModel

__all__ = ["Exported", "image_facts"]


@dataclass(frozen=True)
class Exported:
    """What was written; an export of one file or folder is a path to it.

    ``files`` maps each file or folder to its resolution, None if it holds all. ``folding`` and ``verification`` report
    on those files whose BatchNorms were folded on request, and that were compared with the network. ``weights`` is a
    further file, from which the others read theirs.
    """

    files: Mapping[Path, int | None]
    folding: Mapping[Path, FoldReport] = field(default_factory=dict)
    verification: Mapping[Path, Verification] = field(default_factory=dict)
    weights: Path | None = None

    def __fspath__(self) -> str:
        (path,) = self.files
        return str(path)

    def __str__(self) -> str:
        lines = [(self.verification.get(path), f"wrote {path}", self.folding.get(path)) for path in self.files]
        found = [str(part) for line in lines for part in line if part is not None]
        return "\n".join([*found, *([f"wrote {self.weights}, which these files read"] if self.weights else [])])


def image_facts(net: SwitchableModel, resolution: int) -> dict[str, Any]:
    """Return the preprocessing of one resolution and what is known of the classes, as JSON has it."""
    source = net.source
    return {
        "architecture": source.architecture,
        "num_classes": source.num_classes,
        "resolution": resolution,
        **vars(source.preprocessing),
        "crop_pct": crop_shares(source.preprocessing, net.resolutions, [resolution])[0],
        "class_names": source.class_names,
    }

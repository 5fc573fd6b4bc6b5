"""A folder for a model hub: the switchable file, the native network for others, and a model card."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsconvert.checkpoint import save, sync
from rsconvert.evaluation import Evaluation
from rsconvert.export.card import model_card
from rsconvert.export.folder import check_folder, replacing_folder
from rsconvert.export.stock import export_torchvision, stock_library, write_timm
from rsconvert.surgery import SwitchableModel

__all__ = ["SWITCHABLE", "export_hub"]

SWITCHABLE = "rsconvert.safetensors"
_FILES = {"README.md", "config.json", "model.safetensors", SWITCHABLE}


def export_hub(
    net: SwitchableModel,
    folder: str | Path,
    *,
    results: Evaluation | Mapping[str, Any] | None = None,
    licence: str | None = None,
    force: bool = False,
) -> Path:
    """Write a folder fit for upload to a model hub.

    It holds ``README.md``, the model card; the native network as ``model.safetensors``, with ``config.json`` for
    stock timm, which opens the folder strictly, or as the state_dict of torchvision; and the switchable file as
    ``rsconvert.safetensors``.

    Args:
        results: of ``evaluate``, or the object that ``rsconvert evaluate --json`` printed, for the card's table.
        licence: of the source weights; None takes what timm tells of weights that were downloaded.
        force: replace an earlier export; a folder that holds anything else is never replaced.
    Raises:
        UnsupportedModelError: the network has no name of a library, or gives features.
        ConfigError: the results are of another network, or the licence is no line of text.
        CheckpointError: the folder exists, holds other files, or can't be written.
    """
    folder, native = Path(folder), net.resolutions[0]
    library = stock_library(net)
    check_folder(folder, _FILES, force)
    with replacing_folder(folder) as part:
        card = model_card(net, results, licence)
        if library == "timm":
            write_timm(net, native, part)
        else:
            export_torchvision(net, native, part / "model.safetensors")
        save(net, part / SWITCHABLE)
        (part / "README.md").write_text(card, encoding="utf-8")
        sync(part / "README.md")
    return folder

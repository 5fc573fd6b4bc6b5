"""The names of all architectures of timm and torchvision, and the family of each."""

import timm
import torchvision

from rsconvert.models import TORCHVISION

__all__ = ["all_names", "family_of"]


def all_names() -> list[str]:
    """Return every timm name and every ``torchvision/NAME``; quantized ones are the same networks over again."""
    own = [name for name in torchvision.models.list_models() if not name.startswith("quantized_")]
    return [*timm.list_models(), *(TORCHVISION + name for name in own)]


def family_of(name: str) -> str:
    """Return the library's file that defines an architecture; a name that no library lists is its own family."""
    if name.startswith(TORCHVISION):
        module = str(torchvision.models.get_model_builder(name.removeprefix(TORCHVISION)).__module__)
        return TORCHVISION + module.removeprefix("torchvision.models.").replace(".", "/")
    plain = name.partition(".")[0]
    return str(timm.models.model_entrypoint(plain).__module__).rpartition(".")[2] if timm.is_model(plain) else name

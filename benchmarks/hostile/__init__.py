"""Files that try something, each with what opens it: for benchmarks/attempts.py."""

from hostile.attempt import Attempt, MisledError, Sound
from hostile.images import IMAGES, TRUSTED_IMAGES
from hostile.names import NAMES
from hostile.onnx_files import ONNX_FILES
from hostile.pickles import PICKLES, TRUSTED_PICKLES
from hostile.programs import PROGRAMS, TRUSTED_PROGRAMS
from hostile.texts import RAW_TEXTS, TEXTS

__all__ = ["ATTEMPTS", "CONTROLS", "Attempt", "MisledError", "Sound"]

ATTEMPTS = (*PICKLES, *PROGRAMS, *ONNX_FILES, *NAMES, *IMAGES, *TEXTS)
# The same files for readers that trust them.
CONTROLS = (*TRUSTED_PICKLES, *TRUSTED_PROGRAMS, *TRUSTED_IMAGES, *RAW_TEXTS)

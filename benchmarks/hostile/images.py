"""Images: programs named as images, vast sizes, archives behind pixels."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from PIL import EpsImagePlugin, Image

from hostile.attempt import Attempt, Prepare, Reader, Sound, script
from rsconvert.data import MaskReading, read_mask

__all__ = ["IMAGES", "TRUSTED_IMAGES"]


def _png(width: int, height: int, *more: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), *more, (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _postscript(canary: Path) -> bytes:
    return f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n({canary}) (w) file closefile\nshowpage\n".encode()


def _with_archive(canary: Path) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG")
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("__main__.py", script(canary))
    return buffer.getvalue()


def _windows_metafile(canary: Path) -> bytes:
    return (
        b"\xd7\xcd\xc6\x9a\x00\x00"
        + struct.pack("<hhhhHIH", 0, 0, 64, 64, 72, 0, 0)
        + b"\x01\x00\x09\x00\x00\x03"
        + bytes(40)
    )


_CONTENTS: dict[str, Callable[[Path], bytes]] = {
    "PostScript": _postscript,
    "PostScript in a DOS frame": lambda canary: (
        struct.pack("<IIIIIIIH", 0xC6D3D0C5, 32, len(_postscript(canary)), 0, 0, 0, 0, 0xFFFF)
        + b"\0\0"
        + _postscript(canary)
    ),
    "SVG that fetches": lambda canary: b'<svg><image href="https://example.com/x.png"/></svg>',
    "SVG with an entity of another file": lambda canary: (
        b'<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/hostname">]><svg>&x;</svg>'
    ),
    "a Windows metafile": _windows_metafile,
    "PDF with JavaScript": lambda canary: b"%PDF-1.4\n1 0 obj<</OpenAction<</S/JavaScript/JS(x)>>>>endobj\n",
    "a JPEG with an archive of Python behind it": _with_archive,
    "a PNG of 10¹² pixels": lambda canary: _png(10**6, 10**6),
    "a PNG with a text of 64 MiB": lambda canary: _png(64, 64, (b"zTXt", b"exif\0\0" + zlib.compress(bytes(2**26)))),
    "ImageMagick's MVG": lambda canary: f"fill 'url(https://example.com/x\"|touch {canary}\")'\n".encode(),
    "Python": lambda canary: script(canary).encode(),
}


def _photo(content: Callable[[Path], bytes]) -> Prepare:
    def prepare(sound: Sound, folder: Path, canary: Path) -> Reader:
        (folder / "photo.jpg").write_bytes(content(canary))
        return lambda: sound.net.preprocess(str(folder / "photo.jpg"), 48)

    return prepare


def _mask(content: Callable[[Path], bytes]) -> Prepare:
    def prepare(sound: Sound, folder: Path, canary: Path) -> Reader:
        reading: Any = MaskReading(classes=5)
        return partial(read_mask, content(canary), "mask.png", reading)

    return prepare


IMAGES = (
    *(Attempt("image", name, _photo(content)) for name, content in _CONTENTS.items()),
    *(Attempt("image", f"a mask: {name}", _mask(content)) for name, content in _CONTENTS.items()),
)


def _trusted(sound: Sound, folder: Path, canary: Path) -> Reader:
    EpsImagePlugin.gs_binary = None  # of an earlier file: whether Ghostscript is there
    return lambda: Image.open(io.BytesIO(_postscript(canary))).load()


TRUSTED_IMAGES = (Attempt("image", "PostScript", _trusted),)

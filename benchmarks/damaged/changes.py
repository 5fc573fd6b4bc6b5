"""Random changes of files, in their bytes or in what these mean; each takes the bytes of a sound one."""

import copy
import io
import json
import re
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

__all__ = ["Change", "in_body", "in_bytes", "in_facts", "in_header", "in_json", "in_records", "in_words"]

Change = Callable[[bytes, Random], bytes]

VALUES = (
    *(-1, 0, 1, 2, 2**31, 10**12, 1e308, -1e308, 1e-308, 0.5, float("nan"), float("inf"), None, True, False),
    *("", "x" * 300, "\ud800", "a\nb", "\x1b[2J", "1", "nan", "../x", "a.py:b", "hf-hub:a/b", "torch.os.system"),
    *([], {}, [[]], [0], ["x"], [None], {"x": 1}, {"as_int": 2**40}, [10**9], [48, 31], [48] * 3, {"depths": [10**9]}),
    *(
        "resnet50",
        "torchvision/resnet18",
        "smp/unet:resnet18",
        "segmentation",
        "1/32",
        "2/2",
        "4/4",
        "F16",
        "I64",
        "aten",
    ),
)
_PIECES = (b"\x00", b"\xff", b"9" * 20, b"[" * 2000, b'"', b"}", b"\\ud800", b"F16", b"F64", b"I64", b"NaN", b"-1")


def in_bytes(data: bytes, rng: Random) -> bytes:
    """Change one to three places, most of them near the beginning: cut, insert, remove, replace."""
    for _ in range(rng.randint(1, 3)):
        place = min(rng.randrange(len(data) + 1), rng.randrange(len(data) + 1) if rng.random() < 0.3 else 8000)
        piece = rng.choice([*_PIECES, bytes([rng.randrange(256)]), rng.randbytes(8)])
        kind = rng.randrange(5)
        if kind == 0:
            data = data[:place]
        elif kind == 1:
            data = data[:place] + piece + data[place:]
        elif kind == 2:
            data = data[:place] + data[place + rng.randint(1, 50) :]
        else:
            data = data[:place] + piece + data[place + len(piece) :]
        data = data or b"\x00"
    return data


def _value(rng: Random) -> Any:
    return copy.deepcopy(rng.choice(VALUES))


def _other(held: Any, rng: Random) -> None:
    """Change one value at any depth of JSON, drop it, or give it another name."""
    inside, key, place = held, None, held
    while isinstance(place, (dict, list)) and place and (key is None or rng.random() < 0.8):
        inside, key = place, rng.choice([*place] if isinstance(place, dict) else range(len(place)))
        place = inside[key]
    if key is None:
        return
    kind = rng.random()
    if kind < 0.1:
        del inside[key]
    elif kind < 0.2 and isinstance(inside, dict):
        inside[str(_value(rng))[:400]] = inside.pop(key)
    elif kind < 0.5 and type(place) in (int, float):
        inside[key] = rng.choice([place + 1, place - 1, 2 * place, place / 2, -place, float(place)])
    else:
        inside[key] = _value(rng)


def in_json(data: bytes, rng: Random) -> bytes:
    """Change one to three values of a JSON file."""
    held = json.loads(data)
    for _ in range(rng.randint(1, 3)):
        _other(held, rng)
    return json.dumps(held).encode()


def _header(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _with_header(header: dict[str, Any], body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def in_header(data: bytes, rng: Random) -> bytes:
    """Change an entry of a safetensors header: a dtype, a shape, an offset, a name."""
    header, body = _header(data)
    name = rng.choice([name for name in header if name != "__metadata__"])
    if rng.random() < 0.3:
        header[rng.choice(["x", name + "x", "1.0", "-1", "999999999999"])] = header.pop(name)
    else:
        entry = header[name]
        entry[rng.choice([*entry])] = rng.choice([*VALUES, "F16", "BF16", "I64", "U8", [2**40], [0, 4], [1, 4]])
    return _with_header(header, body)


def in_body(data: bytes, rng: Random) -> bytes:
    """Change values of a safetensors file: random bytes in one to three places behind its header."""
    header, body = _header(data)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(max(1, len(body) - 8))
        body = body[:place] + rng.randbytes(8) + body[place + 8 :]
    return _with_header(header, body)


def in_facts(data: bytes, rng: Random) -> bytes:
    """Change facts in the metadata of a switchable file, at any depth, and at times its header or a value too."""
    if rng.random() < 0.2:
        data = in_header(data, rng)
    header, body = _header(data)
    if rng.random() < 0.2:
        place = rng.randrange(len(body))
        body = body[:place] + rng.randbytes(4) + body[place + 4 :] if place + 4 <= len(body) else body
    facts = json.loads(header["__metadata__"]["rsconvert"])
    for _ in range(rng.randint(1, 2)):
        if rng.random() < 0.5:
            facts[rng.choice([*facts])] = _value(rng)
        else:
            _other(facts, rng)
    header["__metadata__"]["rsconvert"] = json.dumps(facts)
    return _with_header(header, body)


def in_records(*names: str) -> Change:
    """Return a change of records of an archive whose names end so, in JSON or bytes, with the right checksums."""

    def change(data: bytes, rng: Random) -> bytes:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            records = {name: archive.read(name) for name in archive.namelist()}
        chosen = rng.choice([name for name in records if name.endswith(names)])
        records[chosen] = (in_json if chosen.endswith(".json") else in_bytes)(records[chosen], rng)
        written = io.BytesIO()
        with zipfile.ZipFile(written, "w") as archive:
            for name, content in records.items():
                archive.writestr(name, content)
        return written.getvalue()

    return change


def in_words(data: bytes, rng: Random) -> bytes:
    """Change one to three numbers or words of a text."""
    text = data.decode()
    for _ in range(rng.randint(1, 3)):
        found = rng.choice([*re.finditer(r"[\w.+-]+", text)] or [re.match("", text)])
        other = rng.choice([*map(str, VALUES), "1,2", "=1+1", '"', "[1]", "1e999"])
        text = text[: found.start()] + other + text[found.end() :]
    return text.encode(errors="surrogatepass")

"""Texts of files that would move a terminal's cursor, be markup of a page, or a formula of a spreadsheet."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner
from PIL import Image

import rsconvert
from hostile.attempt import Attempt, MisledError, Prepare, Reader, Sound, with_facts
from rsconvert.checkpoint import describe, inspection_text
from rsconvert.cli import main
from rsconvert.export.hub import model_card
from rsconvert.study import write_report
from rsconvert.text import Table

__all__ = ["RAW_TEXTS", "TEXTS"]

_TERMINAL = {
    "colours": "\x1b[31;8mred",
    "a screen wiped": "\x1b[2J\x1b[H",
    "a title and a clipboard": "\x1b]0;title\x07\x1b]52;c;YQ==\x07",
    "the line again": "sound\rbroken",
    "one-byte controls": "\x9b2J",
    "the direction turned": "\u202egnp.exe",
    "a line of its own": "x\nError: all is well",
    "nothing seen": "a\u200b\u2066b\x00\x08c",
}
_MARKUP = {
    "a script": "<script>alert(1)</script>",
    "an event": "<img src=x onerror=alert(1)>",
    "the end of an attribute": "\" onmouseover='alert(1)' x=\"",
    "the end of the title": "</title></style></script><script>alert(1)</script>",
    "a link of JavaScript": "[x](javascript:alert(1))",
    "a frame": "<iframe srcdoc='<script>alert(1)</script>'>",
    "a template": "{{ 7 * 7 }}%{% for x in y %}",
    "a cell's end": "a | b | <b>",
}
_FORMULAS = {
    "= of a command": "=cmd|' /C calc'!A0",
    "@": "@SUM(1+1)*cmd|' /C calc'!A0",
    "+": "+cmd|' /C calc'!A0",
    "-": "-cmd|' /C calc'!A0",
    "a tab before =": "\t=1+1",
    "quotes and commas": '","=1+1',
    "a line break before =": "a\n=1+1",
}
_COST = {"resolution": 48, "form": "plain", "batch_size": 1, "amp": "off", "multiply_adds": 1, "latency_ms": 1.0}


def _check_terminal(text: str) -> None:
    if any(not line.isprintable() for line in text.split("\n")) or "\nError: all" in text:
        raise MisledError(f"the terminal gets {text[:60]!r}")


class _Page(HTMLParser):
    """Collects what a page must not hold."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script" and dict(attrs).get("type") != "application/json"
        strange = tag in ("iframe", "object", "embed", "base", "form", "b-")
        for name, value in attrs:
            remote = name in ("src", "href", "srcdoc") and not (value or "").startswith(("#", "data:image"))
            strange |= name.startswith("on") or remote
        if strange or self.scripts > 1:
            self.wrong.append(tag)


def _check_page(text: str) -> None:
    page = _Page()
    page.feed(text)
    if page.wrong or re.search(r"\b49\d?%", text):
        raise MisledError(f"the page holds {page.wrong or 'a template that ran'}")


def _check_markdown(text: str) -> None:
    outside = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    if found := re.search(r"<\w|\]\(javascript", outside):
        raise MisledError(f"the Markdown holds {outside[found.start() :][:30]!r}")


def _check_table(text: str, columns: int = 1) -> None:
    _check_markdown(text)
    for line in text.splitlines():
        if len(re.findall(r"(?<!\\)\|", line)) != columns + 1:
            raise MisledError(f"a cell ends early: {line!r}")


def _check_csv(text: str, rows: int | None = None) -> None:
    found = list(csv.reader(io.StringIO(text)))
    for cell in (cell for row in found for cell in row):
        if re.match(r"\s*[=@+-]", cell) and not re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", cell):
            raise MisledError(f"a formula: {cell!r}")
    if len({len(row) for row in found}) > 1:
        raise MisledError(f"rows of several lengths: {found}")


def _facts(text: str) -> dict[str, Any]:
    """Return facts of a switchable file with a text wherever one may stand."""
    return {
        "class_names": [f"{i}{text}" for i in range(5)],
        "source": text,
        "training": {text: text, "data": [text], "epochs": {"of": text}},
        "costs": {text: [{**_COST, "form": text}]},
        "cascade": {"stages": [32, 48], "thresholds": [0.5], text: text},
        text: text,
    }


def _classes(text: str) -> dict[str, Any]:
    return {"class_names": [f"{text}{i}" for i in range(5)]}


def _inspected(text: str) -> Prepare:
    def prepare(sound: Sound, folder: Path, canary: Path) -> Reader:
        path = with_facts(sound, folder / "net.safetensors", **_facts(text))
        return lambda: _check_terminal(inspection_text(describe(path)))

    return prepare


def _command(text: str, words: Callable[[Path], list[str]], facts: Callable[[str], dict[str, Any]]) -> Prepare:
    """What a command prints, on both of its streams."""

    def prepare(sound: Sound, folder: Path, canary: Path) -> Reader:
        with_facts(sound, folder / "net.safetensors", **facts(text))
        _photos(folder / "photos", _safe(text))

        def read() -> None:
            done = CliRunner().invoke(main, words(folder))
            _check_terminal(done.stdout)
            _check_terminal(re.sub(r"\r(\w+: +\d+%[^\r\n]*| *)(?=\r|\n|$)", "", done.stderr))  # bars of progress

        return read

    return prepare


def _safe(text: str) -> str:
    return text.replace("/", "∕").replace("\0", "") or "x"


def _photos(folder: Path, text: str) -> None:
    for number, name in enumerate((f"a{text}", f"b{text}")):
        place = folder / "val" / name
        place.mkdir(parents=True)
        Image.new("RGB", (48, 48), (90 * number,) * 3).save(place / f"{text[:40]}.png")


def _of_folders(text: str) -> dict[str, Any]:
    return {"class_names": [f"{letter}{_safe(text)}" for letter in "abcde"]}


def _predicting(folder: Path) -> list[str]:
    return ["predict", f"{folder}/net.safetensors", f"{folder}/photos", "--workers", "0"]


def _evaluating(folder: Path) -> list[str]:
    words = ["evaluate", f"{folder}/net.safetensors", "--data", f"{folder}/photos", "--per-class", "--workers", "0"]
    return [*words, "--baseline", f"{folder}/net.safetensors"]


def _broken(text: str) -> dict[str, Any]:
    return {"model_kwargs": {text: text}, "images": [{"name": text, "keys": [text], "ndim": 9}]}


def _unbuildable(text: str) -> dict[str, Any]:
    return {"model_kwargs": {text: text}}


def _page(text: str) -> Prepare:
    def prepare(sound: Sound, folder: Path, canary: Path) -> Reader:
        run = folder / "run"
        run.mkdir()
        with_facts(sound, run / "best.safetensors", **_facts(text))
        header = io.StringIO()
        csv.writer(header).writerows([["epoch", "loss", f"score_{text}", f"top1_{text}"], [1, 2.0, 0.5, 50.0]])
        (run / "summary.csv").write_text(header.getvalue(), newline="")
        _photos(folder / "photos", _safe(text))

        def read() -> None:
            net, out = rsconvert.load(run), folder / "page.html"
            options: dict[str, Any] = {"class_map": None, "workers": 0, "device": "cpu"}
            mapped = folder / "map.json"
            mapped.write_text(json.dumps({f"{c}{_safe(text)}": i for i, c in enumerate("ab")}))
            options["class_map"] = mapped
            write_report(net, folder / "photos", out, [48], baselines={text: net}, origin=run, command=text, **options)
            _check_page(out.read_text())

        return read

    return prepare


def _card(text: str) -> Prepare:
    def prepare(sound: Sound, folder: Path, canary: Path) -> Reader:
        path = with_facts(sound, folder / "net.safetensors", **_facts(text), license=text)
        return lambda: _check_markdown(model_card(rsconvert.load(path)).split("\n---\n", 1)[1])

    return prepare


def _markdown(text: str) -> Prepare:
    return lambda sound, folder, canary: lambda: _check_table(Table((text,), [(text,)]).as_markdown())


def _predicted_csv(text: str) -> Prepare:
    def prepare(sound: Sound, folder: Path, canary: Path) -> Reader:
        with_facts(sound, folder / "net.safetensors", **_classes(text))
        _photos(folder / "photos", _safe(text))
        return lambda: _check_csv(rsconvert.predict(folder / "net.safetensors", folder / "photos", workers=0).as_csv())

    return prepare


def _raw(text: str, check: Callable[[str], object], form: str = "{}") -> Prepare:
    def read() -> None:
        click.echo(form.format(text), file=io.StringIO())
        check(form.format(text))

    return lambda sound, folder, canary: read


def _attempts() -> Iterator[Attempt]:
    for name, text in _TERMINAL.items():
        yield Attempt("terminal", f"inspect: {name}", _inspected(text))
        yield Attempt(
            "terminal", f"an error: {name}", _command(text, lambda f: ["inspect", f"{f}/net.safetensors"], _broken)
        )
        yield Attempt("terminal", f"predict: {name}", _command(text, _predicting, _classes))
    for name in ("colours", "a line of its own"):
        yield Attempt("terminal", f"evaluate: {name}", _command(_TERMINAL[name], _evaluating, _of_folders))
        yield Attempt(
            "terminal", f"an error of a builder: {name}", _command(_TERMINAL[name], _predicting, _unbuildable)
        )
    for part, names in enumerate((list(_MARKUP)[:4], list(_MARKUP)[4:])):
        text = "".join(_MARKUP[name] for name in names)
        yield Attempt("page", f"report: every kind of markup, in every place, part {part + 1}", _page(text))
    for name, text in _MARKUP.items():
        yield Attempt("page", f"a table of Markdown: {name}", _markdown(text))
        yield Attempt("page", f"a model card: {name}", _card(text))
    for name, text in _FORMULAS.items():
        yield Attempt("spreadsheet", f"predict -o .csv: {name}", _predicted_csv(text))


TEXTS = (*_attempts(),)
RAW_TEXTS = (
    *(Attempt("terminal", name, _raw(text, _check_terminal)) for name, text in _TERMINAL.items()),
    Attempt("page", "a script", _raw(_MARKUP["a script"] * 2, _check_page)),
    Attempt("page", "an event", _raw(_MARKUP["an event"], _check_page)),
    Attempt("page", "a cell's end", _raw(_MARKUP["a cell's end"], _check_table, "| {} |")),
    *(
        Attempt("spreadsheet", name, _raw(text, _check_csv, "{}"))
        for name, text in _FORMULAS.items()
        if "q" not in name
    ),
)

"""What a file holds, as lines that can be read: none long, costs as tables, long lists shortened."""

from rsconvert.checkpoint import inspection_text

ROW = {"form": "plain", "batch_size": 1, "multiply_adds": 9_135_872, "amp": "off"}
FACTS = {
    "architecture": "resnet50",
    "resolutions": [224, 96],
    "crop_pct": [0.95, 0.875],
    "class_names": [f"class {i}" for i in range(1000)],
    "aliases": {f"a{i}": f"b{i}" for i in range(100)},
    "training": {"epochs": 3, "lr": 0.01, "views": "all", "distill": "full", "note": "word " * 100},
    "costs": {
        "cpu; one": [{**ROW, "resolution": r, "latency_ms": ms, "top1": None} for r, ms in ((224, 3.98765), (96, 1.0))],
        "cuda; two": [{**ROW, "resolution": 224, "latency_ms": 0.5, "top1": 71.25}],
    },
    "importance_scores": {"224": 0.75, "96": 0.25},
    "bytes": 1_234_567,
    "bytes_by_part": {"native_batchnorm": 234_567, "float": 1_000_000},
    "images": [{"position": 0, "name": "x", "ndim": 4, "axes": [-2, -1], "channels": [-3, 3]}],
    "private": True,
}


def test_no_line_is_long() -> None:
    assert max(map(len, inspection_text(FACTS).splitlines())) <= 110


def test_long_values_are_shortened() -> None:
    lines = inspection_text(FACTS).splitlines()
    assert lines[0] == "architecture: resnet50"
    assert (
        "class_names: class 0, class 1, class 2, class 3, class 4, class 5, class 6, class 7, … (1,000 in all)" in lines
    )
    assert "aliases: 100, the first of them" in lines
    assert "  a7: b7" in lines
    assert "  a8: b8" not in lines
    assert lines[lines.index("training:") + 2] == "  lr: 0.01"
    assert "bytes: 1,234,567" in lines


def test_no_fact_is_left_as_code() -> None:
    lines = inspection_text(FACTS).splitlines()
    assert {"images: x (N, 3, H, W)", "private: yes"} <= {*lines}
    table = [line.rsplit(maxsplit=1) for line in lines[lines.index("") + 1 :][:3]]
    sizes = [["part", "bytes"], ["BatchNorms of the native resolution", "234,567"], ["other tensors", "1,000,000"]]
    assert [[word.strip() for word in row] for row in table] == sizes


def test_what_differs_by_resolution_is_a_table() -> None:
    _, _, table, *_ = inspection_text(FACTS).split("\n\n")
    assert [line.split() for line in table.splitlines()[1:]] == [["224", "0.95", "0.7500"], ["96", "0.875", "0.2500"]]


def test_costs_are_a_table_for_each_machine() -> None:
    *_, first, second = inspection_text(FACTS).split("\n\n")
    machine, title, row, _ = first.splitlines()
    assert machine == "costs on cpu; one"
    assert "median (ms)" in title
    assert "top-1" not in title
    assert row.split() == ["plain", "224", "1", "9.1", "3.99", "off"]
    assert "top-1 (%)" in second.splitlines()[1]
    assert second.splitlines()[2].split() == ["plain", "224", "1", "9.1", "0.50", "71.25", "off"]


def test_names_out_of_a_file_move_no_cursor() -> None:
    facts = {"a\x1b[31m": 1, "training": {"b\x1b[31m": 2}, "costs": {"c\x1b[31m": [{**ROW, "resolution": 96}]}}
    text = inspection_text(facts | {"aliases": {f"d{i}\x1b[31m": "e" for i in range(5)}})
    assert text.replace("\n", "").isprintable()
    assert all(f"{name}\\x1b[31m" in text for name in ("a", "b", "c", "d4"))

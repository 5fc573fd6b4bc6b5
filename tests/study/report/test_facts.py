"""What the page shows: figures by hand, files, the machine, names for classes."""

import os
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import rsconvert
from rsconvert.data import open_split
from rsconvert.errors import CheckpointError, ConfigError, DataError
from rsconvert.evaluation import Predictions, predict, summarize
from rsconvert.evaluation.subject import Answers
from rsconvert.quantization import quantize_
from rsconvert.study.report.facts import (
    answer_facts,
    draw_images,
    draw_mistakes,
    drawn_facts,
    encoded_views,
    file_facts,
    made_facts,
    network_facts,
    read_class_names,
    short_name,
)

CLASSES = ("n01", "n02")


def predictions(targets: list[int], answers: dict[Any, list[int]], classes: tuple[str, ...] | None) -> Predictions:
    def said(best: list[int]) -> Answers:
        given: Tensor = torch.tensor(best)
        return Answers(given, torch.full((len(best),), 0.5), given == torch.tensor(targets))

    subject: Any = SimpleNamespace(costs=dict.fromkeys(answers, 7), interpolated=lambda size: size == 48)
    own = {size: said(best) for size, best in answers.items()}
    return Predictions(torch.tensor(targets), classes, {"network": subject}, {"network": own})


def facts_of(found: Predictions, labels: list[str] | None = None) -> dict[str, Any]:
    return answer_facts(found, summarize(found), labels)


def test_complementarity_and_confusion_by_hand() -> None:
    found = predictions([0, 0, 1, 1], {32: [0, 1, 1, 0], 64: [0, 0, 0, 1]}, ("a", "b"))
    facts = facts_of(found)
    assert facts["sizes"] == ["64", "32"]
    # 64 is right on 0, 1, 3; 32 on 0, 2.
    assert facts["complementarity"] == [[0, 50], [25, 0]]
    assert facts["any_path"] == 100
    assert facts["confusion"] == {"64": [[2, 0], [1, 1]], "32": [[1, 1], [1, 1]]}
    assert facts["mistakes"] is None
    assert facts["classes"] == ["a", "b"]


def test_many_classes_give_the_most_frequent_mistakes() -> None:
    targets = [*range(30), 5, 5, 7]
    answers = [*range(30), 6, 6, 8]
    facts = facts_of(predictions(targets, {64: answers}, tuple(map(str, range(30)))))
    assert facts["confusion"] is None
    assert facts["mistakes"] == {"64": [(5, 6, 2), (7, 8, 1)]}
    assert facts["class_images"] == [1, 1, 1, 1, 1, 3, 1, 2, *[1] * 22]


def test_classes_without_names_are_counted() -> None:
    assert facts_of(predictions([0, 1], {32: [0, 4]}, None))["classes"] == ["0", "1", "2", "3", "4"]


def test_labels_stand_for_names() -> None:
    assert facts_of(predictions([0, 1], {32: [0, 1]}, ("n1", "n2")), ["x", "y"])["classes"] == ["x", "y"]


def test_drawn_images_keep_their_answers() -> None:
    found = predictions([0, 1, 1], {64: [0, 1, 0], None: [1, 1, 1]}, ("a", "b"))
    (row,) = drawn_facts(found, [2], ["c"])
    assert row == {"index": 2, "name": "c", "target": 1, "answers": {"network": {"64": [0, 0.5], "ensemble": [1, 0.5]}}}


def test_parameters_are_counted_without_alpha(written: Any) -> None:
    facts = network_facts(written.net)
    private = sum(p.numel() for _, bn in written.net.switchable_bns() for p in bn.bn_set(32).parameters())
    assert facts["parameters"] == facts["plain_parameters"] + private
    assert facts["importance"] == {"48": pytest.approx(0.5), "32": pytest.approx(0.5)}
    assert facts["resolutions"] == [48, 32]


def test_few_bits_are_counted(make_net: Any) -> None:
    net = make_net()
    assert network_facts(net)["quantized"] == {}
    layers = quantize_(net, "2/32").layers
    assert network_facts(net)["quantized"] == {"2/32": len(layers)}


def test_private_classifiers_are_named_with_their_cost(make_net: Any) -> None:
    """6 inputs and 3 classes: 21 numbers, twice."""
    facts = network_facts(make_net(private=("bn", "head")))
    assert (facts["heads"], facts["head_parameters"]) == (["fc"], 42)
    facts = network_facts(make_net())
    assert (facts["heads"], facts["head_parameters"]) == ([], 0)


def test_a_page_knows_when_and_by_what_it_was_made() -> None:
    made = made_facts("rsconvert report x", torch.device("cpu"))
    assert made["command"] == "rsconvert report x"
    assert made["versions"]["rsconvert"] == rsconvert.__version__
    assert made["versions"]["torch"] == torch.__version__
    age = datetime.now(UTC) - datetime.strptime(made["date"], "%Y-%m-%d %H:%M UTC").replace(tzinfo=UTC)
    assert -1 < age.total_seconds() < 120
    assert f"torch threads: {torch.get_num_threads()}" in made["machine"]


def test_a_file_tells_its_size_and_date(tmp_path: Path) -> None:
    file = tmp_path / "best.safetensors"
    file.write_bytes(b"12345")
    os.utime(file, (0, 86400 * 365))
    expected = {"name": str(file), "bytes": 5, "date": "1971-01-01 00:00 UTC"}
    assert file_facts(file) == expected
    assert file_facts(tmp_path) == expected
    with pytest.raises(CheckpointError, match="nowhere can't be read"):
        file_facts(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "text",
    [
        "n02\tgolf ball\nn01\ttench, Tinca tinca\n",
        "n01 tench, Tinca tinca\n\nn02   golf ball\nn03 other",
        '{"n01": "tench, Tinca tinca", "n02": "golf ball"}',
        "\ufeffn02\tgolf ball\r\nn01\t tench, Tinca tinca ",
    ],
)
def test_labels_come_in_the_order_of_the_classes(tmp_path: Path, text: str) -> None:
    (tmp_path / "names").write_text(text, encoding="utf-8")
    assert read_class_names(tmp_path / "names", CLASSES) == ("tench, Tinca tinca", "golf ball")


def test_a_class_may_have_blanks_before_a_tab(tmp_path: Path) -> None:
    (tmp_path / "names").write_text("golf ball\tBall\n")
    assert read_class_names(tmp_path / "names", ["golf ball"]) == ("Ball",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("n01\ttench", "lack 'n02'"),
        ("n01", "line 1 is 'n01'"),
        ("{", "can't be read"),
        ("[" * 5 + "1", "line 1 is"),
        ("{" + '"a": {' * 5, "can't be read"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "names").write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        read_class_names(tmp_path / "names", CLASSES)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_missing_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't be read"):
        read_class_names(tmp_path / "nowhere", CLASSES)
    with pytest.raises(DataError, match="need classes with names"):
        read_class_names(tmp_path / "nowhere", None)


def test_images_are_drawn_once_each_by_the_seed_alone() -> None:
    drawn = draw_images(24, 1500, 0)
    assert drawn == sorted(set(drawn)) == draw_images(24, 1500, 0)
    assert len(drawn) == 24
    assert set(drawn) < set(range(1500))
    assert drawn != draw_images(24, 1500, 1)
    assert draw_images(24, 3, 0) == [0, 1, 2]
    assert draw_images(0, 3, 0) == []


def test_every_image_has_the_same_chance() -> None:
    hits = [0] * 10
    for seed in range(1000):
        for index in draw_images(3, 10, seed):
            hits[index] += 1
    assert all(240 < count < 360 for count in hits)  # 300 each, four standard deviations


def test_further_images_are_wrong_at_some_size() -> None:
    found = predictions([0] * 6, {32: [0, 1, 0, 1, 0, 1], 64: [0, 0, 1, 1, 0, 0]}, None)
    assert draw_mistakes(found, [3], 9, 0) == [1, 2, 5]
    assert {tuple(draw_mistakes(found, [], 1, seed)) for seed in range(20)} == {(1,), (2,), (3,), (5,)}
    assert draw_mistakes(found, [1, 2, 3, 5], 1, 0) == []


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="examples is -2"):
        draw_images(-2, 10, 0)


def test_an_image_that_has_gone_is_named(written: Any, tmp_path: Any) -> None:
    samples = open_split(str(written.data), "val")
    found = predict({"network": written.net}, samples, [32], workers=0)
    (tmp_path / "val" / "a").mkdir(parents=True)
    (tmp_path / "val" / "a" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"0\.png can't be decoded"):
        list(encoded_views(found, open_split(str(tmp_path), "val"), [0]))


def test_a_name_is_the_file_in_its_folder(written: Any) -> None:
    assert short_name(open_split(str(written.data), "val"), 7) == "b<i>/1.png"

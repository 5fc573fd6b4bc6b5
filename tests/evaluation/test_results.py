"""Results of an evaluation become plain data and a table."""

import json
from dataclasses import replace

from rsconvert.evaluation import Accuracy, Evaluation

RESULT = Evaluation(
    10, {32: Accuracy(50.0, 90.0, 2_500_000), 28: Accuracy(40.0, 80.0, 900, True)}, Accuracy(60.0, 95.0)
)


def test_a_result_becomes_plain_data() -> None:
    assert json.loads(json.dumps(RESULT.to_dict())) == {
        "count": 10,
        "resolutions": {
            "32": {"top1": 50.0, "top5": 90.0, "multiply_adds": 2_500_000, "interpolated": False},
            "28": {"top1": 40.0, "top5": 80.0, "multiply_adds": 900, "interpolated": True},
        },
        "ensemble": {"top1": 60.0, "top5": 95.0},
    }
    assert replace(RESULT, ensemble=None).to_dict()["ensemble"] is None
    assert RESULT.mean_top1 == 45.0


def test_a_result_becomes_a_table() -> None:
    assert [line.split() for line in str(RESULT).splitlines()] == [
        [
            "resolution",
            "top-1",
            "(%)",
            "95",
            "%",
            "top-5",
            "(%)",
            "calibration",
            "error",
            "(%)",
            "multiply-adds",
            "(M)",
        ],
        ["32", "50.00", "90.00", "2.5"],
        ["28", "40.00", "80.00", "0.0", "interpolated"],
        ["ensemble", "60.00", "95.00"],
        ["10", "images"],
    ]

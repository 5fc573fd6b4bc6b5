"""What the loss refuses, in whose words."""

import pytest
import torch

from rsconvert.errors import ConfigError
from rsconvert.training.loss import mred_loss


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "ful"}, r"mode is 'ful'; full, vanilla, top-down, largest, none are accepted"),
        ({"alpha": torch.ones(3)}, r"alpha is torch.float32 of shape \(3,\); 2 logits need floats of shape \(2,\)"),
        ({"alpha": torch.ones(2).long()}, r"alpha is torch.int64"),
        ({"logits": []}, r"logits is empty"),
        ({"logits": [torch.ones(4, 3), torch.ones(4, 2)]}, r"logits have the shapes \[\(4, 3\), \(4, 2\)\]"),
        ({"logits": torch.ones(2, 4)}, r"logits have the shape \(4,\); \(N, C\) and \(N, C, H, W\)"),
        ({"logits": torch.ones(2, 0, 3)}, r"logits have the shape \(0, 3\); .* not empty"),
        ({"logits": torch.ones(2, 4, 3).long()}, r"logits have the dtypes \[torch.int64"),
        ({"target": torch.zeros(5).long()}, r"target is torch.int64 of shape \(5,\); integer classes of shape \(4,\)"),
        ({"target": torch.zeros(4)}, r"target is torch.float32 of shape \(4,\); .* probabilities of shape \(4, 3\)"),
        ({"target": torch.zeros(4, 3).long()}, r"target is torch.int64 of shape \(4, 3\)"),
        ({"target": torch.zeros(4).bool()}, r"target is torch.bool"),
        ({"class_weights": torch.ones(2)}, r"class_weights is .* shape \(2,\); 3 classes need floats of shape \(3,\)"),
        ({"label_smoothing": 1.5}, r"label_smoothing is 1.5; 0 to 1 is accepted"),
        ({"target": None}, r"target is None; without labels a teacher is needed"),
        ({"target": None, "teacher": torch.ones(4, 3), "label_smoothing": 0.1}, r"label_smoothing .* have no effect"),
        ({"target": None, "teacher": torch.ones(4, 3), "class_weights": torch.ones(3)}, r"class_weights have no eff"),
        ({"teacher": torch.ones(4, 3), "mode": "largest"}, r"teacher has no effect in mode largest; full and vanilla"),
        ({"teacher": torch.ones(4, 2)}, r"teacher is .* of shape \(4, 2\); float logits of shape \(4, 3\)"),
        ({"teacher": torch.ones(4, 3).long()}, r"teacher is torch.int64"),
    ],
)
def test_errors_say_what_is_accepted(change: dict[str, object], message: str) -> None:
    arguments = {"logits": torch.ones(2, 4, 3), "target": torch.zeros(4).long(), "alpha": torch.ones(2)}
    with pytest.raises(ConfigError, match=message) as caught:
        mred_loss(**(arguments | change))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)

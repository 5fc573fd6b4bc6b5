"""A network under test: its paths, crops and logits, and what is read off them."""

import pytest
import torch
from torch import Tensor, nn

from rsconvert.errors import DataError, UnsupportedModelError
from rsconvert.evaluation.subject import Answers, Subject, check_logits
from rsconvert.surgery import make_switchable


class Rows(nn.Module):
    """Logits that tell the size of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        sides = torch.tensor([*x.shape[-2:], 0.0])
        return sides + 0 * self.bn(x).mean((2, 3))


def views(*sizes: tuple[int, int]) -> list[Tensor]:
    return [torch.zeros(2, 3, *size, dtype=torch.uint8) for size in sizes]


def test_a_switchable_network_has_a_path_per_size_and_an_ensemble() -> None:
    net = make_switchable(Rows(), (32, 16))
    subject = Subject(net, (32, (24, 26), 16))
    assert subject.sizes == (32, (24, 26), 16, None)
    assert [subject.interpolated(size) for size in (32, (24, 26), 16)] == [False, True, False]
    given = subject.logits(views((32, 32), (24, 26), (16, 16)), torch.zeros(2, dtype=torch.int64))
    assert given[(24, 26)].tolist() == [[24, 26, 0]] * 2
    assert given[None].tolist() == [[24, 24, 0]] * 2, "the mean of 32 and 16, for alpha starts alike"


def test_without_every_trained_size_there_is_no_ensemble() -> None:
    assert Subject(make_switchable(Rows(), (32, 16)), (32, 24)).sizes == (32, 24)


def test_a_plain_model_runs_as_it_is() -> None:
    model = Rows().eval()
    subject = Subject(model, (32, 8))
    assert subject.paths == {32: model, 8: model}
    assert not subject.interpolated(8)


def test_outputs_choose_columns() -> None:
    subject = Subject(Rows().eval(), (8,), outputs=(2, 0))
    assert subject.logits(views((8, 8)), torch.tensor([0, 1]))[8].tolist() == [[0, 8]] * 2
    with pytest.raises(DataError, match="a target is 2"):
        subject.logits(views((8, 8)), torch.tensor([0, 2]))


@pytest.mark.parametrize(("output", "found"), [((torch.zeros(2, 3),), "a tuple"), (torch.zeros(2), r"a shape \(2,\)")])
def test_what_is_no_logits_is_refused(output: object, found: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"output is {found}; logits"):
        check_logits(output)


def test_logits_are_at_least_float32() -> None:
    dtypes = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.float64: torch.float64}
    assert {dtype: check_logits(torch.zeros(2, 3, dtype=dtype)).dtype for dtype in dtypes} == dtypes


LOGITS = torch.tensor([[0.0, 3.0, 1.0, 1.5, 2.0, 2.5], [9.0, 0.0, 1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])


def test_answers_follow_from_logits() -> None:
    found = Answers.of(LOGITS, torch.tensor([0, 1, 5]))
    assert found.best.tolist() == [1, 0, 5]
    assert found.among_five.tolist() == [False, False, True]
    odds = LOGITS.double().exp()
    torch.testing.assert_close(found.confidence, (odds.amax(1) / odds.sum(1)).float())
    assert found.logits is None


def test_parts_join_and_an_order_is_taken() -> None:
    targets = torch.tensor([0, 1, 5])
    parts = [Answers.of(LOGITS[rows], targets[rows], keep_logits=True) for rows in (slice(1), slice(1, 3))]
    whole = Answers.joined([*parts, Answers.joined([])])
    assert whole.logits is not None
    assert torch.equal(whole.logits, LOGITS)
    turned = whole.taken(torch.tensor([2, 0]))
    assert turned.best.tolist() == [5, 1]
    assert turned.among_five.tolist() == [True, False]
    assert turned.logits is not None
    assert torch.equal(turned.logits, LOGITS[[2, 0]])
    assert len(Answers.joined([]).best) == 0


def test_masks_count_the_images_with_broken_logits() -> None:
    net = make_switchable(nn.Sequential(nn.BatchNorm2d(3)), (4,), task="segmentation").eval()
    subject = Subject(net, (4,))
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    masks = [torch.zeros(4, 4, dtype=torch.int16)] * 2
    assert subject.answers([images], masks)[4].broken == 0
    net.state_dict()["0.running_mean"][1] = float("nan")
    found = subject.answers([images], masks)
    assert (found[4].broken, found[None].broken) == (2, 2)

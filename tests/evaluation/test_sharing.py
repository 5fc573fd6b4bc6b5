"""What processes share: every image once, whole batches, the order of the data; differences are refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from rsconvert.data import Samples, Stream, share_of_batches
from rsconvert.errors import ConfigError, DataError
from rsconvert.evaluation import Answers, Processes
from rsconvert.evaluation.sharing import check_alike, joined_answers, rounds, whole_order

CPU = torch.device("cpu")


def samples(count: int) -> Samples:
    return Samples([(b"", 0)] * count, "photos", ("a",))


def answered(*others: Any) -> Callable[..., list[Any]]:
    """A meeting with processes that bring these values."""
    return lambda value=None: [value, *others]


@pytest.mark.parametrize("count", [1, 5, 6, 7, 12, 13])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_shares_hold_the_batches_of_one_process_and_each_image_once(count: int, world_size: int) -> None:
    batches = [list(range(start, min(start + 3, count))) for start in range(0, count, 3)]
    shares = [share_of_batches(count, 3, rank=rank, world_size=world_size) for rank in range(world_size)]
    for rank, share in enumerate(shares):
        own = [share[start : start + 3] for start in range(0, len(share), 3)]
        assert own == batches[rank::world_size]
        assert len(own) <= rounds(count, 3, Processes(rank, world_size, CPU))
    assert rounds(count, 3, Processes(0, world_size, CPU)) == len(batches[::world_size])
    together = torch.tensor([index for share in shares for index in share])
    assert together[whole_order(count, 3, Processes(0, world_size, CPU))].tolist() == list(range(count))


def test_answers_are_joined_in_the_order_of_the_data() -> None:
    """Five images in batches of two: the first process has 0, 1 and 4, the second 2 and 3."""
    logits = torch.eye(5) + torch.arange(5.0)[:, None]
    targets = torch.tensor([0, 1, 2, 4, 4])
    whole = Answers.of(logits, targets, keep_logits=True)
    parts = [whole.taken(torch.tensor(share)) for share in ([0, 1, 4], [2, 3])]
    for rank in (0, 1):
        processes = Processes(rank, 2, CPU)
        found = joined_answers({32: parts[0]}, whole_order(5, 2, processes), processes, answered(parts[1]))[32]
        assert torch.equal(found.best, whole.best)
        assert torch.equal(found.confidence, whole.confidence)
        assert torch.equal(found.among_five, whole.among_five)
        assert (found.logits is None) == (rank == 1), "the first process alone holds the logits"
        assert rank == 1 or torch.equal(found.logits, logits)


def test_what_processes_hold_must_be_the_same() -> None:
    pair, net = Processes(0, 2, CPU), nn.BatchNorm2d(2)
    same = {"network": "another digest"}
    with pytest.raises(DataError, match=r"see different images \(6, 7 of them\)"):
        check_alike({"network": net}, samples(6), pair, answered((7, ("a",))))
    told = iter([[(6, ("a",))] * 2, [same, same]])
    check_alike({"network": net}, samples(6), pair, lambda value: next(told))
    told = iter([[(6, ("a",))] * 2, [same, {"network": "one more"}]])
    with pytest.raises(ConfigError, match=r"^network has other values in one process than in another"):
        check_alike({"network": net}, samples(6), pair, lambda value: next(told))


def test_a_stream_is_read_by_one_process() -> None:
    stream = Stream.__new__(Stream)
    stream.label = "wds/ validation"
    with pytest.raises(DataError, match=r"^wds/ validation can only be read in order; 2 processes share images by"):
        check_alike({}, stream, Processes(0, 2, CPU), answered())
    check_alike({}, stream, Processes(0, 1, CPU), answered())

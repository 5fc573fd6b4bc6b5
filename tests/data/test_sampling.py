"""The order of an epoch: complete, without overlap between processes, to be taken up anywhere."""

from collections import Counter

from rsconvert.data.sampling import EpochSampler


def test_processes_share_an_epoch_without_overlap():
    samplers = [EpochSampler(11, seed=0, rank=rank, world_size=3) for rank in range(3)]
    keys = [list(sampler) for sampler in samplers]
    assert [len(part) for part in keys] == [len(sampler) for sampler in samplers] == [3, 3, 3]
    assert max(Counter(key for part in keys for key in part).values()) == 1
    samplers[0].skip = 2
    assert list(samplers[0]) == keys[0][2:]
    samplers[0].epoch = 7
    assert {epoch for epoch, _ in samplers[0]} == {7}

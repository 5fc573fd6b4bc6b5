"""Samples → batches: the same whatever the number of workers, complete, and honest about broken files."""

import contextlib
import gc
import multiprocessing
import random
import signal
import subprocess
import sys
import weakref
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from rsconvert.data.decoding import EncodedImage
from rsconvert.data.loading import (
    EpochSampler,
    TrainingViews,
    _start_worker,
    evaluation_loader,
    training_loader,
)
from rsconvert.data.sets import open_split
from rsconvert.data.views import Augmentation, evaluation_views
from rsconvert.errors import ConfigError, DataError, ResolutionError

RESOLUTIONS = (32, 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven noisy images of two classes; red is 30 times the sample's index everywhere."""
    base, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for index in range(7):
        path = base / "train" / ("a" if index < 4 else "b") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        pixels[..., 0] = 30 * index
        Image.fromarray(pixels).save(path)
    return base


@pytest.fixture
def samples(folder):
    return open_split(str(folder), "train")


def train(samples, **changes):
    options = {"batch_size": 3, "seed": 5, "workers": 0, **changes}
    return training_loader(samples, options.pop("resolutions", RESOLUTIONS), **options)


def states():
    _, numbers, position, *_ = np.random.get_state()
    return random.getstate(), numbers.tolist(), position, torch.get_rng_state().tolist()


def indices(loader):
    """The samples of an epoch, read off their red."""
    return [int(red) // 30 for views, _ in loader for red in views[0][:, 0, 0, 0]]


def equal(one, other):
    return len(one) == len(other) and all(
        torch.equal(t, u) and all(map(torch.equal, v, w)) for (v, t), (w, u) in zip(one, other, strict=True)
    )


def two_epochs(loader):
    epochs = []
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        epochs.append([([view.clone() for view in views], targets.clone()) for views, targets in loader])
    return epochs


def test_a_batch_holds_views_and_targets(samples):
    loader = train(samples)
    batches = list(loader)
    assert len(loader) == len(batches) == 2  # 7 images, full batches of 3
    for views, targets in batches:
        assert [tuple(view.shape) for view in views] == [(3, 3, 32, 32), (3, 3, 16, 16)]
        assert all(view.dtype == torch.uint8 for view in views)
        assert all(view.is_contiguous(memory_format=torch.channels_last) for view in views)
        assert (targets.dtype, targets.shape) == (torch.int64, (3,))
        assert targets.tolist() == [int(red >= 120) for red in views[0][:, 0, 0, 0]]


def test_batches_do_not_depend_on_workers(samples):
    alone, one, two = (two_epochs(train(samples, workers=workers)) for workers in (0, 1, 2))
    for epoch in (0, 1):
        assert equal(alone[epoch], one[epoch])
        assert equal(alone[epoch], two[epoch])


def test_epochs_and_seeds_differ_and_come_again(samples):
    loader = train(samples)
    first, second = two_epochs(loader)
    assert not equal(first, second)
    assert all(map(equal, (first, second), two_epochs(loader)))
    assert not equal(first, two_epochs(train(samples, seed=6))[0])


def test_processes_share_an_epoch_without_overlap():
    samplers = [EpochSampler(11, 2, seed=0, rank=rank, world_size=3) for rank in range(3)]
    keys = [list(sampler) for sampler in samplers]
    assert [len(part) for part in keys] == [len(sampler) for sampler in samplers] == [3, 3, 3]
    assert max(Counter(index for part in keys for _, _, index in part).values()) == 1
    assert all([batch for _, batch, _ in part] == [0, 0, 1] for part in keys)
    samplers[0].set_epoch(0, skip=2)
    assert list(samplers[0]) == keys[0][2:]
    samplers[0].set_epoch(7, skip=0)
    assert {epoch for epoch, _, _ in samplers[0]} == {7}


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_be_taken_up_in_its_middle(samples, workers):
    loader = train(samples, batch_size=2, drop_last=False, workers=workers)
    whole = two_epochs(loader)[1]
    for batches in (0, 1, 3, 4):
        loader.set_epoch(1, skip=2 * batches)
        assert len(loader) == 4
        assert equal(list(loader), whole[batches:])
    loader.set_epoch(1)
    assert equal(list(loader), whole)


def test_randomness_is_the_samples_own(samples):
    """A sample's views do not depend on what was drawn for others before."""
    views = TrainingViews(samples, RESOLUTIONS, seed=5)
    later = [views[0, 0, index] for index in (3, 1)]
    fresh = TrainingViews(samples, RESOLUTIONS, seed=5)[0, 3, 1]
    assert all(map(torch.equal, later[1][0], fresh[0]))
    assert not torch.equal(views[1, 0, 1][0][0], fresh[0][0])


SIX = (32, 28, 24, 20, 16, 12)


def drawn_in(batches):
    return [[place for place, view in enumerate(views) if view.numel()] for views, _ in batches]


@pytest.mark.parametrize(("drawn", "workers"), [(3, 0), (3, 2), (5, 0)])
def test_a_batch_has_the_first_the_last_and_others_between_of_the_same_crops(samples, drawn, workers):
    options = {"resolutions": SIX, "batch_size": 2}
    whole, some = (
        two_epochs(train(samples, **options)),
        two_epochs(train(samples, drawn=drawn, workers=workers, **options)),
    )
    for (views, targets), (cut, labels) in zip(whole[0] + whole[1], some[0] + some[1], strict=True):
        (places,) = drawn_in([(cut, labels)])
        assert (len(places), places[0], places[-1]) == (drawn, 0, 5)
        assert torch.equal(targets, labels)
        assert all(torch.equal(views[place], cut[place]) for place in places)
        assert all(cut[place].shape == (2, 3, 0, 0) for place in range(6) if place not in places)


def test_all_between_are_drawn_about_equally_often(samples):
    loader, seen = train(samples, resolutions=SIX, batch_size=1, drawn=4), Counter()
    for epoch in range(60):
        loader.set_epoch(epoch)
        seen.update(place for places in drawn_in(loader) for place in places)
    assert seen[0] == seen[5] == 60 * 7
    # 420 draws of half of the four: 210, with a deviation of 10.
    assert all(160 < seen[place] < 260 for place in (1, 2, 3, 4))


def test_a_draw_is_the_batchs_own(samples):
    """Neither workers, nor where the epoch is entered, nor the process matter; seed and epoch do."""
    options = {"resolutions": SIX, "batch_size": 1, "drawn": 3}
    first, second = map(drawn_in, two_epochs(train(samples, **options)))
    assert first != second
    assert [first, second] == list(map(drawn_in, two_epochs(train(samples, workers=2, **options))))
    loader = train(samples, workers=2, **options)
    loader.set_epoch(1, skip=3)
    assert drawn_in(loader) == second[3:]
    for rank in (0, 1):
        assert drawn_in(train(samples, rank=rank, world_size=2, **options)) == first[:3]
    assert drawn_in(train(samples, seed=6, **options)) != first


def test_neither_workers_nor_global_generators_matter_to_augmentation(samples):
    how, before = Augmentation(color_jitter=0.4, rand_augment="rand-m9-mstd0.5-inc1"), states()
    assert equal(*(list(train(samples, workers=workers, augmentation=how)) for workers in (0, 2)))
    assert states() == before


def test_an_epoch_is_a_permutation(samples):
    loader = train(samples, batch_size=2, drop_last=False)
    assert sorted(indices(loader)) == list(range(7))
    loader.set_epoch(3)
    assert sorted(indices(loader)) == list(range(7))


def test_a_resolution_may_be_given_twice(samples):
    views, _ = next(iter(train(samples, resolutions=(16, 16), augmentation=Augmentation(crop="per-view"))))
    assert not torch.equal(views[0], views[1])
    views, _ = next(iter(train(samples, resolutions=(16, 16))))
    assert torch.equal(views[0], views[1])


def test_each_sample_is_decoded_once(samples, monkeypatch):
    decoded, decode = [], EncodedImage.decode

    def counting(image, *reduction):
        decoded.append(image)
        return decode(image, *reduction)

    monkeypatch.setattr(EncodedImage, "decode", counting)
    list(train(samples, resolutions=(32, 24, 16, 8), drop_last=False))
    list(evaluation_loader(samples, (32, 24, 16, 8), batch_size=4, workers=0))
    assert len(decoded) == len(set(decoded)) == 2 * 7


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_is_in_order_and_complete(samples, workers):
    loader = evaluation_loader(samples, RESOLUTIONS, batch_size=3, workers=workers, crop_pct=(0.875, 1.0))
    batches = list(loader)
    assert [len(targets) for _, targets in batches] == [3, 3, 1]
    assert torch.cat([targets for _, targets in batches]).tolist() == [0, 0, 0, 0, 1, 1, 1]
    image, _ = samples.read(6)
    expected = evaluation_views(image, RESOLUTIONS, crop_pct=(0.875, 1.0), interpolation="bilinear")
    assert all(torch.equal(view[0], want) for view, want in zip(batches[2][0], expected, strict=True))


def test_processes_share_the_evaluation(samples):
    parts = [evaluation_loader(samples, (16,), batch_size=2, workers=0, rank=r, world_size=2) for r in (0, 1)]
    assert [indices(part) for part in parts] == [[0, 1, 4, 5], [2, 3, 6]]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_file_reaches_the_caller_in_one_line(tmp_path, workers):
    for index in range(3):
        (tmp_path / "train" / "a").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "train" / "a" / f"{index}.png")
    broken = tmp_path / "train" / "a" / "1.png"
    broken.write_bytes(broken.read_bytes()[:40])
    samples = open_split(str(tmp_path), "train")
    for loader in (
        training_loader(samples, (8,), batch_size=3, seed=0, workers=workers),
        evaluation_loader(samples, (8,), batch_size=3, workers=workers),
    ):
        with pytest.raises(DataError, match=r"a/1\.png can't be decoded") as caught:
            list(loader)
        assert type(caught.value) is DataError
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(str(broken))


def test_a_loader_that_failed_leaves_no_cycle_behind(tmp_path):
    """The garbage collector would close its queues before its workers are told to stop, which then time out."""
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "0.png").write_bytes(b"")
    loader = evaluation_loader(open_split(str(tmp_path), "train"), (8,), batch_size=1, workers=0)
    gone = weakref.ref(loader)
    gc.disable()
    try:
        with contextlib.suppress(DataError):
            list(loader)
        del loader
        assert gone() is None
    finally:
        gc.enable()


def test_fewer_images_than_a_batch_is_refused(samples):
    with pytest.raises(DataError, match=r"has 7 images, .* batch of 8; .* batch size of at most 7"):
        train(samples, batch_size=8)
    assert len(train(samples, batch_size=8, drop_last=False)) == 1
    with pytest.raises(DataError, match="has 3 images per process"):
        train(samples, batch_size=4, world_size=2)


def test_a_bad_setting_is_refused_before_any_worker_starts(samples):
    with pytest.raises(ResolutionError):
        train(samples, resolutions=())
    with pytest.raises(ConfigError, match="crop_pct has 3 numbers for 2 resolutions"):
        evaluation_loader(samples, RESOLUTIONS, batch_size=2, workers=0, crop_pct=(1, 1, 1))
    with pytest.raises(ConfigError, match="batch_size is 0, workers 0; 1 to"):
        evaluation_loader(samples, RESOLUTIONS, batch_size=0, workers=0)
    with pytest.raises(ConfigError, match="batch_size is 2147483648"):
        evaluation_loader(samples, RESOLUTIONS, batch_size=2**31, workers=0)
    with pytest.raises(ConfigError, match="workers -1"):
        train(samples, workers=-1)


def test_a_signal_at_the_end_leaves_no_worker(samples, monkeypatch):
    """torch's handler may raise anywhere in the end of the workers, when one of them was killed before."""
    others = set(multiprocessing.active_children())
    loader = evaluation_loader(samples, RESOLUTIONS, batch_size=3, workers=2)
    list(loader)

    def fail(*_, **__):
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)  # how long torch waits for a worker
    monkeypatch.setattr(type(loader._batches._iterator), "_mark_worker_as_unavailable", fail)
    loader.close()
    assert set(multiprocessing.active_children()) <= others


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_can_be_used_again_and_after_its_end(samples, workers):
    others = set(multiprocessing.active_children())
    loader = evaluation_loader(samples, RESOLUTIONS, batch_size=3, workers=workers)
    passes = [list(loader), list(loader)]
    assert len(set(multiprocessing.active_children()) - others) == workers
    loader.close()
    assert set(multiprocessing.active_children()) <= others
    passes.append(list(loader))
    assert equal(passes[0], passes[1])
    assert equal(passes[0], passes[2])


HELD = """
from PIL import Image
from rsconvert.data import Samples, evaluation_loader

class Photos(list):
    def __getitem__(self, index):
        return Image.new("RGB", (8, 8)), 0

if __name__ == "__main__":
    loader = evaluation_loader(Samples(Photos([0]), "photos", ("a",)), (8,), batch_size=1, workers=1)
    held = [loader, iter(loader)]
    held.append(held)
    next(held[1])
    print("done")
"""


def test_a_program_that_holds_a_loader_ends(tmp_path):
    (tmp_path / "held.py").write_text(HELD)
    done = subprocess.run([sys.executable, tmp_path / "held.py"], capture_output=True, text=True, timeout=60)
    assert done.stdout == "done\n", done.stderr


class _WorkerFacts(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return torch.get_num_threads(), signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_a_worker_has_one_thread_and_leaves_ctrl_c_to_the_main_process():
    facts = next(iter(DataLoader(_WorkerFacts(), num_workers=1, batch_size=None, worker_init_fn=_start_worker)))
    assert tuple(facts) == (1, True)


@pytest.mark.parametrize("error", [ConnectionResetError("reset by peer"), EOFError()])
def test_a_connection_that_breaks_is_the_death_of_a_worker(samples, error, monkeypatch):
    """Which it is, in the moment before torch sees the process gone."""

    class Breaking:
        def __iter__(self):
            raise error

    loader = train(samples)
    monkeypatch.setattr(loader, "_batches", Breaking())
    monkeypatch.setattr("rsconvert.data.loading._SECONDS_TO_DIE", 0)
    with pytest.raises(RuntimeError, match=r"DataLoader worker \(pid unknown\) exited") as caught:
        list(loader)
    assert caught.value.__cause__ is error

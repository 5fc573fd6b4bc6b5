"""WebDataset's shards, read by timm: complete, shared out, different from epoch to epoch, honest about damage."""

import gc
import io
import json
import tarfile
from collections import Counter
from contextlib import closing

import numpy as np
import pytest
import torch
from PIL import Image

from rsconvert.data.loading import evaluation_loader, training_loader
from rsconvert.data.sets import open_split, open_train_val
from rsconvert.data.streams import Stream
from rsconvert.data.views import Augmentation
from rsconvert.errors import ConfigError, DataError

pytest.importorskip("webdataset")
# webdataset leaves the shards to the garbage collector, open.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TRAIN, VAL, SHARDS = 24, 11, 4


def write(base, split, count, shards):
    """Noise whose red is 10 times the image's number; the target is the number modulo 3."""
    names, generator = [f"{split}-{shard}.tar" for shard in range(shards)], np.random.default_rng(0)
    archives = [tarfile.open(base / name, "w") for name in names]  # noqa: SIM115 - closed below
    for index in range(count):
        pixels = generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        pixels[..., 0] = 10 * index
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        for name, content in ((f"{index}.png", buffer.getvalue()), (f"{index}.cls", str(index % 3).encode())):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archives[index % shards].addfile(entry, io.BytesIO(content))
    for archive in archives:
        archive.close()
    lengths = [len(range(shard, count, shards)) for shard in range(shards)]
    return {"name": split, "num_samples": count, "filenames": names, "shard_lengths": lengths}


@pytest.fixture(autouse=True)
def collected():
    yield
    gc.collect()


@pytest.fixture
def root(tmp_path):
    splits = {"train": write(tmp_path, "train", TRAIN, SHARDS), "validation": write(tmp_path, "validation", VAL, 2)}
    (tmp_path / "_info.json").write_text(json.dumps({"splits": splits}))
    return tmp_path


@pytest.fixture
def train(root):
    return open_split("wds/", "train", root=str(root))


def loader(stream, workers=0, **options):
    return training_loader(stream, (16, 8), **{"batch_size": 4, "seed": 1, "workers": workers, **options})


def numbers(batches):
    return [int(red) // 10 for views, _ in batches for red in views[0][:, 0, 0, 0]]


def equal(one, other):
    return len(one) == len(other) and all(
        torch.equal(t, u) and all(map(torch.equal, v, w)) for (v, t), (w, u) in zip(one, other, strict=True)
    )


def test_both_splits_are_streams_that_know_their_number(root):
    train, val = open_train_val("wds/", root=str(root))
    assert isinstance(train, Stream)
    assert (len(train), len(val), train.classes, val.classes) == (TRAIN, VAL, None, None)
    with pytest.raises(DataError, match=r"can only be read in order"):
        train.read(0)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_of_training_holds_each_image_once(train, workers):
    batches = loader(train, workers)
    first = list(batches)
    assert len(first) == len(batches) == TRAIN // 4
    assert sorted(numbers(first)) == list(range(TRAIN))
    assert [tuple(view.shape) for view in first[0][0]] == [(4, 3, 16, 16), (4, 3, 8, 8)]
    assert torch.cat([targets for _, targets in first]).tolist() == [number % 3 for number in numbers(first)]
    batches.set_epoch(1)
    assert sorted(numbers(list(batches))) == list(range(TRAIN))


def test_epochs_differ_and_a_new_loader_begins_alike(train):
    batches = loader(train)
    first = list(batches)
    batches.set_epoch(1)
    assert numbers(list(batches)) != numbers(first)
    assert equal(list(loader(train)), first)
    assert numbers(list(loader(train, seed=2))) != numbers(first)


def test_views_depend_on_the_epoch_and_all_show_one_crop(train):
    (views, _), *_ = loader(train, augmentation=Augmentation(crop_area=(0.1, 0.3)))
    again, *_ = loader(train, augmentation=Augmentation(crop_area=(0.1, 0.3)))
    assert all(map(torch.equal, views, again[0]))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_part_of_an_epoch_can_be_left_out(train, workers):
    whole = list(loader(train, workers))
    batches = loader(train, workers)
    batches.set_epoch(0, skip=12)
    rest = list(batches)
    assert (len(rest), len(batches)) == (3, 6)
    assert Counter(numbers(rest)) == Counter(numbers(whole[3:]))


def drawn_in(batches):
    return [[place for place, view in enumerate(views) if view.numel()] for views, _ in batches]


def test_a_draw_of_views_depends_on_the_batchs_number_alone(train):
    def sizes(workers=0, skip=0, **options):
        six = training_loader(train, (16, 14, 12, 10, 9, 8), batch_size=2, seed=1, workers=workers, drawn=3, **options)
        six.set_epoch(0, skip)
        return drawn_in(six)

    whole = sizes()
    assert len(whole) == TRAIN // 2
    assert all((len(places), places[0], places[-1]) == (3, 0, 5) for places in whole)
    assert len({places[1] for places in whole}) > 1
    assert sizes(workers=2) == whole
    assert sizes(skip=6) == whole[3:]
    assert sorted(sizes(workers=2, skip=6)) == sorted(whole[3:])
    assert sizes(rank=1, world_size=2) == whole[: TRAIN // 4]


def test_processes_share_the_shards(train):
    parts = [numbers(list(loader(train, rank=rank, world_size=2))) for rank in (0, 1)]
    assert [len(part) for part in parts] == [TRAIN // 2] * 2
    assert sorted(parts[0] + parts[1]) == list(range(TRAIN))


@pytest.mark.parametrize(("workers", "shards"), [(0, 2), (1, 2), (2, 2), (2, 1), (2, 3)])
def test_an_evaluation_sees_each_image_once(tmp_path, workers, shards):
    (tmp_path / "_info.json").write_text(json.dumps({"splits": {"val": write(tmp_path, "val", VAL, shards)}}))
    val = open_split("wds/", "val", root=str(tmp_path))
    batches = evaluation_loader(val, (16,), batch_size=4, workers=workers)
    for _ in range(2):
        assert sorted(numbers(list(batches))) == list(range(VAL))
    assert -(-VAL // 4) <= len(batches) <= -(-VAL // 4) + max(0, workers - 1)


def test_processes_share_an_evaluation(root):
    val = open_split("wds/", "val", root=str(root))
    parts = [
        numbers(list(evaluation_loader(val, (16,), batch_size=4, workers=0, rank=rank, world_size=2)))
        for rank in (0, 1)
    ]
    assert sorted(parts[0] + parts[1]) == list(range(VAL))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_evaluation_that_lost_images_is_refused(root, workers):
    """timm's reader logs a shard that is missing, and goes on."""
    (root / "validation-1.tar").unlink()
    val = open_split("wds/", "val", root=str(root))
    with (
        closing(evaluation_loader(val, (16,), batch_size=4, workers=workers)) as batches,
        pytest.raises(DataError, match=r"^wds/ validation gave 6 of 11 images; .* Fix the shards") as caught,
    ):
        list(batches)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_the_reader_is_told_in_one_line(train, workers, monkeypatch):
    batches = loader(train, workers)

    def broken(_):
        raise OSError("the network\nis gone")

    monkeypatch.setattr("timm.data.readers.reader_wds.ReaderWds.__iter__", broken)
    with pytest.raises(DataError, match=r"^wds/ train can't be read further \(the network is gone\)\.$"):
        list(batches)


def test_a_target_that_is_no_class_is_refused(train):
    train.classes = ("a", "b")
    with pytest.raises(
        DataError, match=r"wds/ train, image \d+ of worker 0 has the target 2; a target is one of 0 to 1"
    ):
        list(loader(train))


def test_more_workers_than_shards_are_refused(train):
    with pytest.raises(ConfigError, match="workers is 3, in all 6 readers for the 4 shards"):
        loader(train, workers=3, world_size=2)


def test_unusable_settings_are_refused_at_once(train, tmp_path):
    with pytest.raises(ConfigError, match="batch_size is 0"):
        loader(train, batch_size=0)
    with pytest.raises(DataError, match=r"wds/ can't be opened, split train"):
        open_split("wds/", "train", root=str(tmp_path / "nowhere"))


def test_sixteen_bits_keep_their_high_byte(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.full((20, 24), 127 * 256 + 99, dtype=np.uint16)).save(buffer, "PNG")
    with tarfile.open(tmp_path / "val.tar", "w") as archive:
        for name, content in (("0.png", buffer.getvalue()), ("0.cls", b"0")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    split = {"name": "validation", "num_samples": 1, "filenames": ["val.tar"], "shard_lengths": [1]}
    (tmp_path / "_info.json").write_text(json.dumps({"splits": {"validation": split}}))
    stream = open_split("wds/", "val", root=str(tmp_path))
    ((views, _),) = list(evaluation_loader(stream, (16,), batch_size=1, workers=0))
    assert views[0].unique().tolist() == [127]

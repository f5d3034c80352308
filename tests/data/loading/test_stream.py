import io
import re
import tarfile
import tracemalloc
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
import webdataset as wds

from ssl_swin.data.encoded import EncodedSample, Member
from ssl_swin.data.loading.opening import open_splits
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.loading.protocol import LoaderConfig
from ssl_swin.data.loading.stream import EpochLoader, read_samples, stream_split
from ssl_swin.data.shards import streaming
from ssl_swin.data.shards.index import load_index
from ssl_swin.data.shards.indexing import build_index
from ssl_swin.data.shards.streaming import SampleReading, good_samples
from ssl_swin.errors import UserError

LEVELS = set(range(23))  # five shards, of 5 images and the last of 3


@pytest.fixture
def train_loader(shards, identify):
    def train_loader(rank: int = 0, world_size: int = 1, num_workers: int = 0, **keys: int):
        """Opens a loader of (level, label, epoch); `keys` are seed and epoch."""
        reader = stream_split(load_index(shards), "train")
        config = LoaderConfig(2, num_workers, rank, world_size)
        loader = reader.train_loader(identify, list, config, seed=keys.get("seed", 0))
        loader.current_epoch = lambda: keys.get("epoch", 0)
        return loader

    return train_loader


def levels_of(loader: EpochLoader) -> list[int]:
    return [level for batch in loader for level, *_ in batch]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(("world_size", "num_batches"), [(1, 11), (2, 5)])
def test_train_loader__equal_batches_of_exact_samples(
    train_loader, world_size, num_batches, num_workers
):
    for rank in range(world_size):
        loader = train_loader(rank, world_size, num_workers, epoch=4)
        batches = list(loader)
        assert len(batches) == len(loader) == num_batches
        assert {len(batch) for batch in batches} == {2}
        for level, label, epoch in chain(*batches):
            assert (level in LEVELS, label, epoch) == (True, level % 3, 4)


def test_train_loader__one_reader_repeats_nothing(train_loader):
    assert set(Counter(levels_of(train_loader())).values()) == {1}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_train_loader__ranks_and_workers_share_the_shards_out(train_loader, num_workers):
    for epoch in range(3):
        one, two = (levels_of(train_loader(rank, 2, num_workers, epoch=epoch)) for rank in (0, 1))
        assert not set(one) & set(two)


def test_train_loader__workers_read_other_shards(train_loader):
    for epoch in range(3):  # one worker may read eight images for its ten places
        assert len(set(levels_of(train_loader(num_workers=2, epoch=epoch)))) >= 20


@pytest.mark.parametrize("num_workers", [0, 2])
def test_train_loader__order_follows_seed_and_epoch(train_loader, num_workers):
    orders = [
        tuple(levels_of(train_loader(num_workers=num_workers, seed=seed, epoch=epoch)))
        for seed, epoch in [(0, 0), (0, 1), (0, 2), (1, 0), (0, 0)]
    ]
    assert orders[0] == orders[-1]
    assert len(set(orders)) == 4


@pytest.mark.slow
def test_train_loader__in_time_sees_every_image(train_loader):
    seen = Counter(level for e in range(12) for level in levels_of(train_loader(0, 2, 2, epoch=e)))
    assert set(seen) == LEVELS


def test_train_loader__persistent_workers_see_the_epoch_change(train_loader):
    loader = train_loader(num_workers=2)
    for epoch in (0, 1, 7):
        loader.current_epoch = lambda: epoch  # noqa: B023 (read within this turn of the loop)
        assert levels_of(loader) == levels_of(train_loader(num_workers=2, epoch=epoch))


def test_train_loader__epoch_left_early_does_not_leak_into_the_next(train_loader):
    loader = train_loader(num_workers=2)
    next(iter(loader))
    loader.current_epoch = lambda: 1
    assert levels_of(loader) == levels_of(train_loader(num_workers=2, epoch=1))


def test_epoch_loader__reads_the_epoch_at_the_first_next(train_loader):
    loader = train_loader()
    iterator = iter(loader)
    loader.current_epoch = lambda: 3
    assert next(iterator) == next(iter(train_loader(epoch=3)))


def test_train_loader__more_workers_than_shards(train_loader):
    loader = train_loader(world_size=3, num_workers=2)  # one shard for each rank, or two
    assert (len(list(loader)), loader.loader.num_workers) == (3, 1)


def test_train_loader__fewer_shards_than_ranks(train_loader):
    with pytest.raises(UserError, match=r"5 shards cannot be dealt out to 6 processes"):
        train_loader(world_size=6)


def test_train_loader__one_shard_and_an_empty_one(shards, tmp_path, identify):
    (tmp_path / "train-0.tar").write_bytes((shards / "train-000000.tar").read_bytes())
    tarfile.open(tmp_path / "train-1.tar", "w").close()
    reader = stream_split(build_index(tmp_path, progress=False), "train")
    with pytest.raises(UserError, match="1 shards cannot be dealt out to 2 processes"):
        reader.train_loader(identify, list, LoaderConfig(2, 0, 0, 2), seed=0)
    loader = reader.train_loader(identify, list, LoaderConfig(5, 2, 0, 1), seed=0)
    first = levels_of(loader)
    loader.current_epoch = lambda: 1
    second = levels_of(loader)
    assert (first != second, sorted(first)) == (True, sorted(second))


def test_train_loader__shuffles_inside_the_buffer_only(train_loader, monkeypatch):
    monkeypatch.setattr(streaming, "SHUFFLE_BUFFER", 1)
    unshuffled = levels_of(train_loader())
    monkeypatch.undo()
    assert levels_of(train_loader()) != unshuffled


@pytest.mark.parametrize("num_workers", [0, 2, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("world_size", [1, 3, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("split", ["train", pytest.param("val", marks=pytest.mark.slow)])
def test_eval_loader__every_image_once(shards, identify, split, world_size, num_workers):
    expected = {"train": LEVELS, "val": set(range(100, 107))}[split]
    seen = []
    for rank in range(world_size):
        reader = stream_split(load_index(shards), split)
        loader = reader.eval_loader(identify, list, LoaderConfig(2, num_workers, rank, world_size))
        batches = list(loader)
        assert len(batches) == len(loader)
        assert {len(batch) for batch in batches} <= {1, 2}
        seen += [sample[:2] for batch in batches for sample in batch]
    assert sorted(seen) == [(level, level % 3) for level in sorted(expected)]


def test_stream_reader__says_what_it_reads(shards):
    reader = stream_split(load_index(shards), "val")
    assert (reader.num_samples, reader.classes) == (7, ("a", "b", "c"))
    assert re.match(r"7 (val )?images streamed from 2 ", reader.summary())
    assert reader.fingerprint == load_index(shards).fingerprint


def refuse(levels: set[int], identify):
    def refuse(record: EncodedSample, epoch: int) -> tuple[int, int | None, int]:
        sample = identify(record, epoch)
        if sample[0] in levels:
            raise ValueError(f"level {sample[0]}")
        return sample

    return refuse


def test_loaders__leave_out_what_cannot_be_decoded(shards, identify):
    reader = stream_split(load_index(shards), "train")
    make_sample = refuse({3, 11}, identify)
    evaluated = reader.eval_loader(make_sample, list, LoaderConfig(2, 0, 0, 1))
    assert sorted(levels_of(evaluated)) == sorted(LEVELS - {3, 11})
    trained = reader.train_loader(make_sample, list, LoaderConfig(2, 0, 0, 1), seed=0)
    assert len(levels_of(trained)) == 22  # as many as were promised: one comes twice
    assert set(levels_of(trained)) == LEVELS - {3, 11}


def test_loaders__nothing_can_be_decoded(shards, identify):
    reader = stream_split(load_index(shards), "train")
    loader = reader.train_loader(refuse(LEVELS, identify), list, LoaderConfig(2, 0, 0, 1), seed=0)
    with pytest.raises(UserError, match=r"16 images in a row cannot be read, the last is train-"):
        list(loader)


# read_samples


def write_shard(path: Path, *samples: dict[str, object]) -> list[str]:
    with wds.TarWriter(str(path)) as writer:
        for sample in samples:
            writer.write(sample)
    return [str(path)]


def test_read_records__names_labels_and_bytes(tmp_path):
    shards = write_shard(
        tmp_path / "a.tar",
        {"__key__": "n01/x", "JPEG": b"one", "cls": 7},
        {"__key__": "y", "json": b"{}", "png": b"two"},
    )
    assert list(read_samples(shards)) == [
        EncodedSample.of_image(b"one", "jpeg", 7, "a.tar:n01/x"),
        EncodedSample(
            "a.tar:y", None, {"json": Member(b"{}", "json"), "image": Member(b"two", "png")}
        ),
    ]


def test_read_records__sample_without_an_image(tmp_path):
    shards = write_shard(tmp_path / "a.tar", {"__key__": "x", "txt": "words", "cls": 1})
    with pytest.raises(UserError, match=r"sample a\.tar:x holds no image, only: (txt|cls), "):
        list(read_samples(shards))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_read_samples__a_file_that_unpacks_to_more_than_allowed_is_never_in_memory(
    tmp_path: Path, mode: str
) -> None:
    """24 MB of zeros, of which a compressed tar holds some KB."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, mode) as archive:
        for name, size in (("0.jpg", 10), ("1.jpg", 24 << 20), ("2.jpg", 10), ("2.txt", 11)):
            info = tarfile.TarInfo(name)
            info.size = size
            archive.addfile(info, io.BytesIO(bytes(size)))
    reading = SampleReading(max_file_bytes=10)
    tracemalloc.start()
    first, *refused = read_samples([str(path)], reading=reading)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20  # the window of xz alone has 8 MB
    assert isinstance(first, EncodedSample) and first.data == bytes(10)
    assert list(map(str, refused)) == [
        f"the file a.tar:{name} has {size} bytes; max_image_bytes is 10 (raise it by "
        "data.max_image_bytes=N, or leave it out)"
        for name, size in (("1.jpg", 24 << 20), ("2.txt", 11))
    ]
    samples = read_samples([str(path)], reading=reading)
    assert list(good_samples(samples, lambda encoded, epoch: encoded.name, 0)) == ["a.tar:0"]


def test_open_splits__a_stream_has_the_limit_of_the_data(shards: Path) -> None:
    order = OrderConstants(64, 1024, 1)
    split = open_splits(shards, "stream", how_to_make="", order=order, max_image_bytes=7)["train"]
    assert split.reading.max_file_bytes == 7  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"the last: the file .* max_image_bytes is 7 "):
        list(split.eval_loader(lambda s, e: s, list, LoaderConfig(2, 0, 0, 1)))

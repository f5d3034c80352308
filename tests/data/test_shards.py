import errno
import io
import os
import pickle
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.index_file import Shard
from ssl_swin.data.shards.indexing import build_index
from ssl_swin.errors import UserError

PNG, JPG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"


def write_shard(
    path: Path, files: dict[str, bytes], tar_format: int = tarfile.USTAR_FORMAT
) -> None:
    with tarfile.open(path, "w", format=tar_format) as archive:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Shards of 2, 0 and 3 images, the first with labels; a val split before them in the array."""
    folder = tmp_path / "shards"
    folder.mkdir()
    labelled = {"a.png": PNG + b"a", "a.cls": b"7", "b.jpg": JPG + b"b" * 700, "b.cls": b"0"}
    write_shard(folder / "train-0.tar", labelled)
    write_shard(folder / "train-1.tar", {})
    write_shard(folder / "train-2.tar", {"c.jpg": PNG + b"c", "d/d.png": b"?", "e.gif": b""})
    write_shard(folder / "val-0.tar", {"v.png": PNG + b"v"})
    write_shard(folder / "test-0.tar", {"t.png": PNG + b"t", "u.png": PNG + b"u"})
    return folder


@pytest.fixture
def source(root: Path) -> ShardDataset:
    return ShardDataset(build_index(root, progress=False), "train")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


RECORDS = [
    EncodedSample.of_image(PNG + b"a", "png", 7, "train-0.tar:0"),
    EncodedSample.of_image(JPG + b"b" * 700, "jpg", 0, "train-0.tar:1"),
    EncodedSample.of_image(
        PNG + b"c", "png", None, "train-2.tar:0"
    ),  # by content, not by its name .jpg
    EncodedSample.of_image(b"?", "", None, "train-2.tar:1"),
    EncodedSample.of_image(b"", "", None, "train-2.tar:2"),
]


def open_shards() -> list[str]:
    links = [f"/proc/self/fd/{descriptor}" for descriptor in os.listdir("/proc/self/fd")]
    targets = [os.readlink(link) for link in links if os.path.lexists(link)]
    return sorted(os.path.basename(target) for target in targets if target.endswith(".tar"))


def test_shard_source__records(source: ShardDataset) -> None:
    assert len(source) == 5
    assert [source[index] for index in range(5)] == RECORDS
    assert source[int(np.int64(4))] == source[np.int64(4)] == RECORDS[4]
    assert source.shard_lengths.tolist() == [2, 0, 3]
    assert source.fingerprint == source.index.fingerprint


@pytest.mark.parametrize("split", ["val", "test"])
def test_shard_source__other_splits(source: ShardDataset, split: str) -> None:
    other = ShardDataset(source.index, split)
    found = [(record.data, record.name) for record in other]  # ends by IndexError
    expected = {
        "val": [(PNG + b"v", "val-0.tar:0")],
        "test": [(PNG + b"t", "test-0.tar:0"), (PNG + b"u", "test-0.tar:1")],
    }
    assert found == expected[split]


@pytest.mark.parametrize("index", [-1, 5])
def test_shard_source__no_such_image(source: ShardDataset, index: int) -> None:
    with pytest.raises(IndexError, match=f"image {index} of 5"):
        source[index]


def test_shard_source__shard_cut_after_opening(source: ShardDataset, root: Path) -> None:
    assert source[0] == RECORDS[0]
    os.truncate(root / "train-0.tar", 2000)  # b.jpg: 702 bytes at 512 + 512 + 1024 + 512
    with pytest.raises(UserError, match=r"train-0\.tar: wanted 702 bytes at byte 2560, got 0: "):
        source[1]
    os.truncate(root / "train-0.tar", 2600)
    assert source[0] == RECORDS[0]


def test_shard_source__opens_nothing_before_it_must(source: ShardDataset, root: Path) -> None:
    (root / "train-0.tar").unlink()
    assert source[2] == RECORDS[2]
    with pytest.raises(FileNotFoundError, match=r"train-0\.tar"):
        source[0]


def test_shard_source__locate(source: ShardDataset, tmp_path: Path, root: Path) -> None:
    asked = []

    def locate(shard: Shard) -> Path:
        asked.append(shard.name)
        return tmp_path / f"copy of {shard.name}"

    for path in root.glob("*.tar"):
        path.rename(tmp_path / f"copy of {path.name}")
    remote = ShardDataset(source.index, "train", locate)
    assert [remote[index] for index in (0, 2, 1, 3)] == [RECORDS[i] for i in (0, 2, 1, 3)]
    assert asked == ["train-0.tar", "train-2.tar"]  # once per opening


def test_shard_source__evicted_before_it_is_opened(source: ShardDataset, root: Path) -> None:
    answers = [root / "evicted", root / "train-0.tar"]
    cached = ShardDataset(source.index, "train", lambda shard: answers.pop(0))
    assert cached[0] == RECORDS[0]
    assert answers == []


def test_shard_source__reads_on_after_a_partial_read(
    source: ShardDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: pread(fd, min(size, 100), offset))
    assert source[1] == RECORDS[1]


def failing_pread(code: int, num_failures: int) -> tuple[Callable[..., bytes], list[int]]:
    pread = os.pread
    descriptors: list[int] = []

    def fail(descriptor: int, size: int, offset: int) -> bytes:
        descriptors.append(descriptor)
        if len(descriptors) <= num_failures:
            raise OSError(code, os.strerror(code))
        return pread(descriptor, size, offset)

    return fail, descriptors


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN])
def test_shard_source__transient_errors(
    source: ShardDataset, code: int, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail, tries = failing_pread(code, num_failures=4)
    monkeypatch.setattr(os, "pread", fail)
    assert source[0] == RECORDS[0]
    assert len(tries) == 5 and waits == [0.5, 1.0, 2.0, 4.0]
    assert open_shards() == [
        "train-0.tar"
    ]  # a failed descriptor was closed, and the file opened anew


def test_shard_source__persistent_error(
    source: ShardDataset, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail, tries = failing_pread(errno.EIO, num_failures=5)
    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(OSError, match=r"Input/output error: 'train-0\.tar'"):
        source[0]
    assert len(tries) == 5 and len(waits) == 4


def test_shard_source__other_errors_are_not_retried(
    source: ShardDataset, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail, tries = failing_pread(errno.EACCES, num_failures=1)
    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(PermissionError):
        source[0]
    assert len(tries) == 1 and waits == []


def test_shard_source__bounds_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        write_shard(tmp_path / f"{number:02}.tar", {"a.png": PNG + bytes([number])})
    source = ShardDataset(build_index(tmp_path, progress=False), "train", max_open=3)
    for number in (*range(20), *range(20)):
        assert source[number].data == PNG + bytes([number])
        assert len(open_shards()) <= 3
    assert open_shards() == ["17.tar", "18.tar", "19.tar"]
    opened: list[str] = []
    open_file = os.open
    monkeypatch.setattr(
        os, "open", lambda path, *args: opened.append(Path(path).stem) or open_file(path, *args)
    )
    for number in (17, 0, 17, 1, 17, 19):  # the least recently used goes
        source[number]
    assert opened == ["00", "01", "19"]
    del source
    assert open_shards() == []


def test_shard_source__pickles_without_files_or_extents(source: ShardDataset) -> None:
    assert source[0] == RECORDS[0]
    pickled = pickle.dumps(source)
    assert len(pickled) < 2000
    copy = pickle.loads(pickled)
    assert isinstance(copy._extents, np.memmap)
    assert open_shards() == ["train-0.tar"]  # that of the original
    assert [copy[index] for index in range(5)] == RECORDS


def test_shard_source__a_forked_process_opens_files_for_itself(
    source: ShardDataset, root: Path
) -> None:
    assert source[0] == RECORDS[0]
    os.replace(root / "train-2.tar", root / "train-0.tar")  # who opens it now finds another file
    child = os.fork()
    if child == 0:
        os._exit(0 if source[0].data == RECORDS[2].data else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert source[0] == RECORDS[0]  # the parent's file is still the old one


def test_shards_of__in_order_of_need(source: ShardDataset) -> None:
    found = source.shards_of(np.array([4, 0, 3, 1]))
    assert [shard.name for shard in found] == ["train-2.tar", "train-0.tar"]
    assert source.shards_of(np.array([], dtype=np.int64)) == []


def test_advise__names_the_bytes_to_come(
    source: ShardDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    advised = []
    monkeypatch.setattr(
        os,
        "posix_fadvise",
        lambda fd, *args: advised.append(
            (os.path.basename(os.readlink(f"/proc/self/fd/{fd}")), *args)
        ),
    )
    source.advise(np.array([2, 1]))
    assert advised == [
        ("train-2.tar", 512, 9, os.POSIX_FADV_WILLNEED),
        ("train-0.tar", 2560, 702, os.POSIX_FADV_WILLNEED),
    ]


def test_advise__never_fails(
    source: ShardDataset, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(shard: Shard) -> Path:
        raise UserError("cannot fetch")

    ShardDataset(source.index, "train", unreachable).advise(np.arange(5))
    for path in root.glob("*.tar"):
        path.unlink()
    source.advise(np.arange(5))
    monkeypatch.delattr(os, "posix_fadvise")  # as on macOS
    source.advise(np.arange(5))


def test_member_name(source: ShardDataset, root: Path) -> None:
    names = [source.file_name(index) for index in range(5)]
    assert names == ["a.png", "b.jpg", "c.jpg", "d/d.png", "e.gif"]
    (root / "train-0.tar").write_bytes(b"")
    assert source.file_name(1) == "at byte 2560"


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_member_name__long_names_are_cut(tmp_path: Path, tar_format: int) -> None:
    write_shard(tmp_path / "a.tar", {"n" * 120 + ".png": PNG}, tar_format)
    source = ShardDataset(build_index(tmp_path, progress=False), "train")
    assert source[0].data == PNG
    assert source.file_name(0) == "n" * 100  # the whole name stands in a header before this one

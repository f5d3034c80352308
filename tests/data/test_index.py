import json
import multiprocessing
import pickle
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

import ssl_swin.data.shards.indexing as indexing
from ssl_swin.data.shards.index import load_index, open_index
from ssl_swin.data.shards.index_file import (
    EXTENT,
    Extents,
    ScannedShard,
    Shard,
    ShardIndex,
    write_index,
)
from ssl_swin.data.shards.indexing import build_index
from ssl_swin.errors import UserError


def write_shard(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in names:
            header = tarfile.TarInfo(name)
            header.size = 600
            archive.addfile(header, BytesIO(bytes(600)))
    return path


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Members take 512 + 1024 bytes each; a tar is padded to 10240."""
    root = tmp_path / "shards"
    root.mkdir()
    write_shard(root / "train-000000.tar", "a.jpg", "b.png")
    write_shard(root / "train-000001.tar", "c.jpg")
    write_shard(root / "val-000000.tar", "d.txt", "d.jpg")
    return root


def extents(*places: tuple[int, int, int]) -> Extents:
    return np.array(list(places), EXTENT)


SCANNED = {
    "val": [ScannedShard(Shard("c.tar", 30, 1), extents((512, 30, -1)))],
    "train": [
        ScannedShard(Shard("a.tar", 10, 2), extents((512, 10, 0), (1536, 11, 1))),
        ScannedShard(Shard("b.tar", 20, 0), extents()),
        ScannedShard(Shard("d.tar", 40, 1), extents((2**40, 2**32 - 1, 2))),
    ],
}


def test_write_index__format(tmp_path: Path) -> None:
    write_index(tmp_path, ["cat", "dog", "emu"], SCANNED)
    content = json.loads((tmp_path / "index.json").read_text())
    digest = content["extents"].pop("sha256")
    assert len(digest) == 64 and int(digest, 16)
    assert content == {
        "format": "ssl-swin-shards",
        "version": 3,
        "classes": ["cat", "dog", "emu"],
        "extents": {"file": "index.bin"},
        "splits": {
            "train": {
                "samples": 3,
                "shards": [
                    {"name": "a.tar", "bytes": 10, "samples": 2},
                    {"name": "b.tar", "bytes": 20, "samples": 0},
                    {"name": "d.tar", "bytes": 40, "samples": 1},
                ],
            },
            "val": {"samples": 1, "shards": [{"name": "c.tar", "bytes": 30, "samples": 1}]},
        },
    }
    row = (512).to_bytes(8, "little") + (10).to_bytes(4, "little") + bytes(4)
    content = (tmp_path / "index.bin").read_bytes()
    assert len(content) == 4 * 16 and content[:16] == row and content[-4:] == b"\xff" * 4


def test_write_index__is_what_load_index_reads(tmp_path: Path) -> None:
    index = write_index(tmp_path, ["cat", "dog", "emu"], SCANNED, root=tmp_path / "tars")
    assert load_index(tmp_path / "tars", tmp_path, check_shards=False) == index
    assert index.root == tmp_path / "tars" and index.folder == tmp_path
    assert index.num_samples("train") == 3
    assert index.shard_lengths("train").tolist() == [2, 0, 1]
    assert index.extents("train").tolist() == [(512, 10, 0), (1536, 11, 1), (2**40, 2**32 - 1, 2)]
    assert index.extents("val").tolist() == [(512, 30, -1)]


def test_write_index__does_not_depend_on_the_order_of_splits(tmp_path: Path) -> None:
    first = write_index(tmp_path / "x", [], SCANNED)
    second = write_index(tmp_path / "y", [], dict(reversed(SCANNED.items())))
    assert first.fingerprint == second.fingerprint
    for name in ("index.json", "index.bin"):
        assert (tmp_path / "x" / name).read_bytes() == (tmp_path / "y" / name).read_bytes()


def test_write_index__label_without_a_class(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"d\.tar has the label 2, but there are 2 class names"):
        write_index(tmp_path, ["cat", "dog"], SCANNED)
    assert list(tmp_path.iterdir()) == []


def test_fingerprint__depends_on_every_field_but_not_the_place() -> None:
    def of(root: str, split: str, shard: Shard, digest: str = "0") -> str:
        return ShardIndex(Path(root), (), {split: (shard,)}, Path(root), digest).fingerprint

    first = of("x", "train", Shard("a.tar", 10, 3))
    assert len(first) == 16 and int(first, 16)
    assert of("y", "train", Shard("a.tar", 10, 3)) == first
    others = {
        of("x", "val", Shard("a.tar", 10, 3)),
        of("x", "train", Shard("b.tar", 10, 3)),
        of("x", "train", Shard("a.tar", 11, 3)),
        of("x", "train", Shard("a.tar", 10, 4)),
        of("x", "train", Shard("a.tar", 10, 3), "1"),
    }
    assert len(others | {first}) == 6


def test_extents__are_mapped_and_read_only(shards: Path) -> None:
    found = build_index(shards, progress=False).extents("train")
    assert isinstance(found, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        found["size"] = 0


def test_shard_index__pickles_without_the_extents(tmp_path: Path) -> None:
    num_samples = 2_000_000
    many = np.zeros(num_samples, EXTENT)
    many["offset"] = np.arange(num_samples)
    write_index(tmp_path, [], {"train": [ScannedShard(Shard("a.tar", 10, num_samples), many)]})
    index = load_index(tmp_path, check_shards=False)
    assert index.extents("train")[-1]["offset"] == num_samples - 1
    pickled = pickle.dumps(index)
    assert len(pickled) < 1000
    copy = pickle.loads(pickled)
    assert copy == index
    assert isinstance(copy.extents("train"), np.memmap)
    assert copy.extents("train")[-1]["offset"] == num_samples - 1


def test_load_index__holds_nothing_per_sample(tmp_path: Path) -> None:
    num_samples = 2_000_000
    scanned = {
        "train": [ScannedShard(Shard("a.tar", 10, num_samples), np.zeros(num_samples, EXTENT))]
    }
    write_index(tmp_path, [], scanned)
    assert (tmp_path / "index.json").stat().st_size < 1000
    index = load_index(tmp_path, check_shards=False)
    held = [value for value in vars(index).values() if isinstance(value, (list, np.ndarray))]
    assert held == []  # the extents are mapped when they are first asked for
    base = index.extents("train").base
    while isinstance(base, np.ndarray):
        assert isinstance(base, np.memmap)
        base = base.base
    assert len(base) == 16 * num_samples  # the mapping itself: no copy between


def test_load_index__missing_index(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"no index: .*Make it: ssl-swin index {shards}$"):
        load_index(shards)
    with pytest.raises(UserError, match=rf"ssl-swin index {shards} --out {tmp_path}/x$"):
        load_index(shards, tmp_path / "x")


def test_load_index__missing_shard(shards: Path) -> None:
    build_index(shards, progress=False)
    (shards / "train-000001.tar").unlink()
    with pytest.raises(
        UserError, match=r"train-000001.tar is missing; the index lists it with 10240"
    ):
        load_index(shards)
    assert load_index(shards, check_shards=False).num_samples("train") == 3


def test_load_index__shard_of_another_size(shards: Path) -> None:
    build_index(shards, progress=False)
    path = shards / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"train-000001.tar has 5000 bytes, the index says 10240"):
        load_index(shards)


def test_load_index__shard_that_is_not_listed(shards: Path) -> None:
    build_index(shards, progress=False)
    write_shard(shards / "train-000002.tar", "g.jpg")
    with pytest.raises(
        UserError, match=r"1 shards that its index.json does not list.*train-000002"
    ):
        load_index(shards)


@pytest.mark.parametrize("num_bytes", [0, 16, 3 * 16, 4 * 16 - 1, 5 * 16])
def test_load_index__extents_of_another_length(shards: Path, num_bytes: int) -> None:
    build_index(shards, progress=False)
    (shards / "index.bin").write_bytes(bytes(num_bytes))
    message = rf"index\.bin has {num_bytes} bytes, index\.json .* needs 64: .*ssl-swin index"
    with pytest.raises(UserError, match=message):
        load_index(shards)


def test_load_index__no_extents(shards: Path) -> None:
    build_index(shards, progress=False)
    (shards / "index.bin").unlink()
    with pytest.raises(UserError, match=r"index\.bin has 0 bytes"):
        load_index(shards)


def test_load_index__version_1(tmp_path: Path) -> None:
    content = '{"format": "ssl-swin-shards", "version": 1, "classes": [], "splits": {}}'
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(UserError, match=rf"is of version 1.*: ssl-swin index {tmp_path}$"):
        load_index(tmp_path)


HEAD = '{"format": "ssl-swin-shards", "version": 3, "classes": []'
SHARD = '{"name": "%s", "bytes": 1, "samples": %d}'


WHOLE = (
    ', "extents": {"sha256": ""}, "splits": {"train": {"shards": [' + SHARD % ("a.tar", 1) + "]}}}"
)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"format": "ssl-swin-shards", "classes": [], "splits": {}}',
        '{"format": "ssl-swin-shards", "version": 4, "classes": [], "splits": {}}',
        HEAD + "}",
        HEAD + ', "splits": {"train": {}}}',
        HEAD + ', "extents": {"sha256": ""}, "splits": {"train": {"shards": []}}}',
        HEAD + ', "splits": {"train": {"shards": [' + SHARD % ("a.tar", 1) + "]}}}",
        HEAD
        + ', "extents": {"sha256": ""}, "splits": {"train": {"shards": ['
        + SHARD % ("../a.tar", 1)
        + "]}}}",
        "[" * 100_000,
        '{"a":' * 100_000,
        HEAD + ', "classes": ' + "[" * 100_000,
        HEAD + ', "classes": "ab"' + WHOLE,
        HEAD + ', "classes": [1]' + WHOLE,
        HEAD + ', "labels": 3' + WHOLE,
        HEAD + ', "labels": {}' + WHOLE,
        HEAD + ', "image": 7' + WHOLE,
        HEAD + ', "image": "cls"' + WHOLE,
        HEAD + WHOLE.replace('"samples": 1', '"samples": Infinity'),
        HEAD + WHOLE.replace("a.tar", "b/../../a.tar"),
        HEAD + WHOLE.replace("a.tar", "/a.tar"),
    ],
)
def test_load_index__not_an_index(tmp_path: Path, content: str) -> None:
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(UserError, match=r"cannot read .*index\.json .*delete it"):
        load_index(tmp_path)


def test_open_index__builds_on_first_use(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = open_index(shards)
    assert index == load_index(shards)
    monkeypatch.setattr(indexing, "build_index", None)  # must not be called again
    assert open_index(shards) == index


def test_open_index__elsewhere(shards: Path, tmp_path: Path) -> None:
    before = sorted(shards.iterdir())
    (tmp_path / "index").mkdir()
    index = open_index(shards, tmp_path / "index")
    assert (index.root, index.folder) == (shards, tmp_path / "index")
    assert sorted(shards.iterdir()) == before  # the shards' folder may be read-only
    assert load_index(shards, tmp_path / "index") == index
    assert index.extents("train").tolist() == [(512, 600, -1), (2048, 600, -1), (512, 600, -1)]
    assert index.fingerprint == open_index(shards).fingerprint


def test_open_index__read_only_folder(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not stop root, who may run the tests.
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != shards)
    message = rf"no permission to write .*ssl-swin index {shards} --out DIR, then set data\.index_"
    with pytest.raises(UserError, match=message):
        open_index(shards)
    with pytest.raises(UserError, match=message):
        build_index(shards, progress=False)
    assert not (shards / ".index.lock").exists()


def open_and_count(root: Path, barrier, results) -> None:
    builds = []
    build = indexing.build_index
    indexing.build_index = lambda *args, **options: builds.append(args) or build(*args, **options)
    barrier.wait()
    index = open_index(root)
    results.put((len(builds), index.fingerprint))


def test_open_index__one_of_several_processes_builds(shards: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    workers = [
        context.Process(target=open_and_count, args=(shards, barrier, results)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=30) for _ in workers]
    for worker in workers:
        worker.join()
    assert sorted(builds for builds, _ in found) == [0, 0, 1]
    assert {name for _, name in found} == {load_index(shards).fingerprint}


def test_open_index__nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no shards: there is no folder {tmp_path}/absent"):
        open_index(tmp_path / "absent")
    with pytest.raises(UserError, match=rf"no shards in {tmp_path}: looked for \*\.tar"):
        open_index(tmp_path)

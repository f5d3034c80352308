import io
import json
import pickle
import tarfile
from pathlib import Path

import pytest

from ssl_swin.data.index import (
    Shard,
    ShardIndex,
    build_index,
    load_index,
    open_index,
    write_index,
)
from ssl_swin.errors import UserError


def write_shard(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in names:
            header = tarfile.TarInfo(name)
            header.size = 600
            archive.addfile(header, io.BytesIO(bytes(600)))
    return path


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_shard(tmp_path / "train-000000.tar", "a.jpg", "a.cls", "b.png", "b.cls", "c.jpg", "c.cls")
    write_shard(tmp_path / "train-000001.tar", "d.jpg", "d.cls")
    write_shard(tmp_path / "val-000000.tar", "e.jpg", "e.cls", "f.jpg", "f.cls")
    return tmp_path


def test_build_index__counts_samples(shards: Path) -> None:
    index = build_index(shards, progress=False)
    assert {split: index.num_samples(split) for split in index.splits} == {"train": 4, "val": 2}
    assert index.paths("train") == [shards / "train-000000.tar", shards / "train-000001.tar"]
    assert index.classes == ()
    size = (shards / "val-000000.tar").stat().st_size
    assert index.splits["val"] == (Shard("val-000000.tar", size, 2),)


def test_build_index__is_what_load_index_reads(shards: Path) -> None:
    (shards / "classes.txt").write_text("cat\ndog\n\n")
    index = build_index(shards, progress=False)
    assert index.classes == ("cat", "dog")
    assert load_index(shards) == open_index(shards) == index


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-000000.tar", "train"),
        ("validation-00.tar", "val"),
        ("val0001.tar", "val"),
        ("imagenet1k-validation-00.tar", "val"),
        ("test_3.tar", "test"),
        ("valley-000.tar", "train"),
        ("00001.tar", "train"),
    ],
)
def test_build_index__split_from_name(tmp_path: Path, name: str, split: str) -> None:
    write_shard(tmp_path / name, "a.jpg")
    assert list(build_index(tmp_path, progress=False).splits) == [split]


@pytest.mark.parametrize(
    ("num_bytes", "message"),
    [
        # a.jpg, a.cls, b.png, b.cls, c.jpg, c.cls: 512 + 1024 bytes each
        (9216, r"train-000000.tar: no end-of-archive marker.*\(whole samples before it: 3\)"),
        (7680, r"no end-of-archive marker.*\(whole samples before it: 2\)"),
        (6144, r"no end-of-archive marker.*\(whole samples before it: 2\)"),
        (6300, r"header at byte 6144 ends at byte 6300.*\(whole samples before it: 2"),
        (5200, r"member 'b.cls' ends at byte 5720, file has 5200.*\(whole samples before it: 1"),
    ],
)
def test_build_index__truncated_shard(shards: Path, num_bytes: int, message: str) -> None:
    path = shards / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(UserError, match=message):
        build_index(shards, progress=False)
    assert not (shards / "index.json").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.jpg", "b.jpg", "a.cls", "b.cls"], "files of sample 'a' are not next to each other"),
        (["a.jpg", "b.txt", "b.json"], "sample 'b' holds no image, only: txt, json"),
    ],
)
def test_build_index__malformed_samples(tmp_path: Path, names: list[str], message: str) -> None:
    write_shard(tmp_path / "a.tar", *names)
    with pytest.raises(UserError, match=message):
        build_index(tmp_path, progress=False)


def test_build_index__unfinished_packing(shards: Path) -> None:
    (shards / "plan.json").write_text("{}")
    with pytest.raises(UserError, match="a packing cut short"):
        open_index(shards)


def test_open_index__nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no shards: there is no folder {tmp_path}/absent"):
        open_index(tmp_path / "absent")
    with pytest.raises(UserError, match=rf"no shards in {tmp_path}: looked for \*\.tar"):
        open_index(tmp_path)


def test_load_index__missing_shard(shards: Path) -> None:
    build_index(shards, progress=False)
    (shards / "train-000001.tar").unlink()
    with pytest.raises(
        UserError, match=r"train-000001.tar is missing; the index lists it with 10240"
    ):
        load_index(shards)


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


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"format": "ssl-swin-shards", "version": 2, "classes": [], "splits": {}}',
        '{"format": "ssl-swin-shards", "version": 1, "classes": []}',
        '{"format": "ssl-swin-shards", "version": 1, "classes": [], "splits": {"train": {}}}',
        '{"format": "ssl-swin-shards", "version": 1, "classes": [], "splits": {"train": {"shards": '
        '[{"name": "../a.tar", "bytes": 1, "samples": 1}]}}}',
    ],
)
def test_load_index__not_an_index(tmp_path: Path, content: str) -> None:
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(UserError, match=r"cannot read .*index\.json .*delete it"):
        load_index(tmp_path)


def test_write_index__format(tmp_path: Path) -> None:
    write_index(
        ShardIndex(tmp_path, ("cat",), {"train": (Shard("a.tar", 10, 3), Shard("b.tar", 20, 4))})
    )
    assert json.loads((tmp_path / "index.json").read_text()) == {
        "format": "ssl-swin-shards",
        "version": 1,
        "classes": ["cat"],
        "splits": {
            "train": {
                "samples": 7,
                "shards": [
                    {"name": "a.tar", "bytes": 10, "samples": 3},
                    {"name": "b.tar", "bytes": 20, "samples": 4},
                ],
            }
        },
    }


def test_fingerprint__depends_on_every_field_but_not_the_place() -> None:
    def of(root: str, split: str, shard: Shard) -> str:
        return ShardIndex(Path(root), (), {split: (shard,)}).fingerprint

    first = of("x", "train", Shard("a.tar", 10, 3))
    assert len(first) == 16 and int(first, 16)
    assert of("y", "train", Shard("a.tar", 10, 3)) == first
    others = {
        of("x", "val", Shard("a.tar", 10, 3)),
        of("x", "train", Shard("b.tar", 10, 3)),
        of("x", "train", Shard("a.tar", 11, 3)),
        of("x", "train", Shard("a.tar", 10, 4)),
    }
    assert len(others | {first}) == 5


def test_shard_index__pickles(shards: Path) -> None:
    index = build_index(shards, progress=False)
    assert pickle.loads(pickle.dumps(index)) == index

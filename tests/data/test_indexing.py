import io
import json
import tarfile
from pathlib import Path

import pytest
import webdataset as wds

from ssl_swin.data.shards.index import load_index, open_index
from ssl_swin.data.shards.index_file import Shard
from ssl_swin.data.shards.indexing import build_index
from ssl_swin.data.shards.scanning import scan_shard
from ssl_swin.errors import UserError

BLOCK = 512


def write_shard(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Members take 512 + 1024 bytes if images, 512 + 512 if labels."""
    image = bytes(600)
    first = {"a.jpg": image, "a.cls": b"0", "b.png": image, "b.cls": b"1\n"}
    write_shard(tmp_path / "train-000000.tar", first | {"c.jpg": image, "c.cls": b"12"})
    write_shard(tmp_path / "train-000001.tar", {"d.jpg": image})
    write_shard(tmp_path / "val-000000.tar", {"e.cls": b"1", "e.jpg": image, "f.jpg": image})
    return tmp_path


def test_scan_shard__places_by_hand(shards: Path) -> None:
    shard, extents, _ = scan_shard(shards / "train-000000.tar")
    assert shard == Shard("train-000000.tar", 10240, 3)
    assert extents.tolist() == [(512, 600, 0), (3072, 600, 1), (5632, 600, 12)]
    _, extents, _ = scan_shard(shards / "val-000000.tar")
    assert extents.tolist() == [(1536, 600, 1), (3072, 600, -1)]


def test_scan_shard__first_image_of_several(tmp_path: Path) -> None:
    files = {"a.txt": b"t", "a.seg.png": b"s", "a.png": b"pp", "a.jpg": b"jjj"}
    _, extents, _ = scan_shard(write_shard(tmp_path / "a.tar", files))
    assert extents.tolist() == [(2560, 2, -1)]  # "seg.png" is an extension of its own


def test_scan_shard__bytes_are_the_images(tmp_path: Path) -> None:
    contents = {f"{number:02}.jpg": bytes([number]) * (37 * number) for number in range(40)}
    path = write_shard(tmp_path / "a.tar", contents)
    _, extents, _ = scan_shard(path)
    tar = path.read_bytes()
    found = [tar[e["offset"] : e["offset"] + e["size"]] for e in extents]
    assert found == list(contents.values())


@pytest.mark.parametrize("label", [b"", b"cat", b"-1", b"1.5", b"1 2", b"2147483648", b"9" * 5000])
def test_scan_shard__damaged_label(tmp_path: Path, label: bytes) -> None:
    path = write_shard(tmp_path / "a.tar", {"x/a.jpg": b"j", "x/a.cls": label})
    with pytest.raises(UserError, match=r"a\.tar: sample 'x/a' has a \.cls file that is no label"):
        scan_shard(path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.jpg", "b.jpg", "a.cls", "b.cls"], "'a' has files that are not next to each other"),
        (["a.jpg", "b.txt", "b.json"], "'b' holds no image, only: txt, json"),
    ],
)
def test_scan_shard__malformed_samples(tmp_path: Path, names: list[str], message: str) -> None:
    path = write_shard(tmp_path / "a.tar", dict.fromkeys(names, b"0"))
    with pytest.raises(UserError, match=message):
        scan_shard(path)


def test_scan_shard__image_of_more_than_4_gib(tmp_path: Path) -> None:
    header = tarfile.TarInfo("a.jpg")
    header.size = 2**32
    path = tmp_path / "a.tar"
    with path.open("wb") as file:  # sparse: takes no room on disk
        file.write(header.tobuf(tarfile.USTAR_FORMAT))
        file.truncate(BLOCK + 2**32 + 2 * BLOCK)
    with pytest.raises(UserError, match=r"'a' has a \.jpg of 4294967296 bytes; the most is"):
        scan_shard(path)


def test_scan_shard__no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read shard .*a\.tar: No such file"):
        scan_shard(tmp_path / "a.tar")


def webdataset_keys(path: Path) -> list[str]:
    stages = [wds.SimpleShardList([str(path)]), wds.tarfile_to_samples()]
    return [sample["__key__"] for sample in wds.DataPipeline(*stages)]


@pytest.mark.parametrize(
    ("damage", "message", "webdataset_yields"),
    [
        # Three samples lie at 0, 2560 and 5120, each an image (1536 bytes) and a label (1024).
        ((5120, b""), r"marker, the file ends at byte 5120: cut .*before it: 2\)", ["a", "b"]),
        ((5300, b""), r"header at byte 5120 ends at byte 5300: trunc.*before it: 2\)", ["a", "b"]),
        ((2560, b"#" * BLOCK), r"bad tar header at byte 2560 of 10240 .*before it: 1\)", ["a"]),
        ((5800, b""), r"member 'c.jpg' ends at byte 6232, file has 5800: .*before it: 2\)", None),
    ],
    ids=["cut between members", "cut in a header", "garbage header", "cut in an image"],
)
def test_scan_shard__refuses_what_webdataset_passes_over(
    shards: Path, damage: tuple[int, bytes], message: str, webdataset_yields: list[str] | None
) -> None:
    path = shards / "train-000000.tar"
    assert webdataset_keys(path) == ["a", "b", "c"]
    place, garbage = damage
    content = path.read_bytes()
    after = content[place + len(garbage) :] if garbage else b""
    path.write_bytes(content[:place] + garbage + after)

    with pytest.raises(UserError, match=rf"shard {path}: .*{message}\. Copy or download it anew"):
        scan_shard(path)

    if webdataset_yields is None:  # the one of the four that it notices
        with pytest.raises(tarfile.ReadError):
            webdataset_keys(path)
    else:
        assert webdataset_keys(path) == webdataset_yields


@pytest.mark.parametrize("num_workers", [0, 2])
def test_build_index__counts_samples(shards: Path, num_workers: int) -> None:
    index = build_index(shards, num_workers=num_workers, progress=False)
    assert {split: index.num_samples(split) for split in index.splits} == {"train": 4, "val": 2}
    assert [shard.name for shard in index.splits["train"]] == [
        "train-000000.tar",
        "train-000001.tar",
    ]
    assert index.splits["val"] == (Shard("val-000000.tar", 10240, 2),)
    assert index.extents("train")["label"].tolist() == [0, 1, 12, -1]
    assert index.extents("val")["offset"].tolist() == [1536, 3072]
    assert index.classes == ()
    assert load_index(shards) == open_index(shards) == index


def test_build_index__processes_make_no_difference(shards: Path, tmp_path: Path) -> None:
    one = build_index(shards, tmp_path / "one", progress=False)
    two = build_index(shards, tmp_path / "two", num_workers=2, progress=False)
    assert one.fingerprint == two.fingerprint
    assert (tmp_path / "one/index.json").read_text() == (tmp_path / "two/index.json").read_text()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_build_index__damaged_shard_leaves_no_index(shards: Path, num_workers: int) -> None:
    path = shards / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:1536])
    with pytest.raises(UserError, match=r"000001\.tar: .*ends at byte 1536.*before it: 1\)"):
        build_index(shards, num_workers=num_workers, progress=False)
    assert not (shards / "index.json").exists() and not (shards / "index.bin").exists()


def test_build_index__of_a_damaged_shard_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"x" * BLOCK)
    with pytest.raises(UserError, match="bad tar header"):
        build_index(tmp_path, index_dir=tmp_path / "new")
    assert not (tmp_path / "new").exists()


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
    write_shard(tmp_path / name, {"a.jpg": b"j"})
    assert list(build_index(tmp_path, progress=False).splits) == [split]


def test_build_index__classes_from_a_file(shards: Path) -> None:
    names = [f"class {number}" for number in range(13)]
    (shards / "classes.txt").write_text("\n".join([*names, "", ""]))
    assert build_index(shards, progress=False).classes == tuple(names)


@pytest.mark.parametrize("version", [1, 2])
def test_build_index__keeps_the_classes_it_finds(
    shards: Path, tmp_path: Path, version: int
) -> None:
    (shards / "classes.txt").write_text("from the file")
    names = [f"class {number}" for number in range(13)]
    content = {"format": "ssl-swin-shards", "version": version, "classes": names}
    (shards / "index.json").write_text(json.dumps(content))
    assert build_index(shards, tmp_path / "index", progress=False).classes == tuple(names)
    (shards / "index.json").unlink()
    assert build_index(shards, tmp_path / "index", progress=False).classes == tuple(names)


def test_build_index__does_not_overwrite_what_it_cannot_read(shards: Path) -> None:
    (shards / "index.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*index\.json .*delete it"):
        build_index(shards, progress=False)
    assert (shards / "index.json").read_text() == "{"


def test_build_index__label_without_a_class(shards: Path) -> None:
    (shards / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(UserError, match=r"000000\.tar has the label 12, but there are 2 class"):
        build_index(shards, progress=False)


def test_build_index__unfinished_packing(shards: Path) -> None:
    (shards / "plan.json").write_text("{}")
    with pytest.raises(UserError, match="an interrupted packing"):
        open_index(shards)


def test_build_index__nothing_to_index(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"no shards in {tmp_path}: looked for \*\.tar"):
        build_index(tmp_path, progress=False)
    write_shard(tmp_path / "a.tar", {})
    with pytest.raises(UserError, match=r"no images in the shards of .*: 1 tars hold none"):
        build_index(tmp_path, progress=False)

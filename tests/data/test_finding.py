"""Which files of a folder are its shards: in sub-folders, compressed, or something else."""

import io
import shutil
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from ssl_swin.cli import main
from ssl_swin.data.loading.opening import open_splits
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.loading.protocol import LoaderConfig
from ssl_swin.data.shards.finding import (
    find_compressed,
    find_shards,
    named_split,
    shards_below,
    splits_of,
)
from ssl_swin.data.shards.index import load_index
from ssl_swin.data.shards.indexing import build_index
from ssl_swin.errors import UserError

ORDER = OrderConstants(block=4, pool=64, lanes=1)


def write_shard(path: Path, levels: range, mode: str = "w") -> Path:
    """Images of some gray levels, labelled level % 2."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for level in levels:
            content = io.BytesIO()
            Image.new("L", (4, 4), level).save(content, "PNG")
            for kind, data in (("png", content.getvalue()), ("cls", str(level % 2).encode())):
                header = tarfile.TarInfo(f"{level:03}.{kind}")
                header.size = len(data)
                archive.addfile(header, io.BytesIO(data))
    return path


def opened(root: Path, reader: str = "indexed", **options: object) -> dict[str, list[int]]:
    """The levels of the images of each split."""
    splits = open_splits(root, reader, how_to_make="MAKE IT", order=ORDER, **options)
    found = {}
    for name, split in splits.items():
        loader = split.eval_loader(
            lambda encoded, epoch: int(Image.open(io.BytesIO(encoded.data)).getpixel((0, 0))),
            list,
            LoaderConfig(2, 0, 0, 1),
        )
        found[name] = sorted(level for batch in loader for level in batch)
    return found


@pytest.mark.parametrize("reader", ["indexed", "stream", "folder"])
def test_sub_folders__are_splits(tmp_path: Path, reader: str) -> None:
    write_shard(tmp_path / "train" / "000.tar", range(4))
    write_shard(tmp_path / "train" / "001.tar", range(4, 6))
    write_shard(tmp_path / "validation" / "000.tar", range(6, 9))
    expected = {"train": [0, 1, 2, 3, 4, 5], "val": [6, 7, 8]}
    assert opened(tmp_path, reader) == expected
    assert opened(tmp_path, reader) == expected  # with the index that was made
    names = [shard.name for shard in load_index(tmp_path).splits["train"]]
    assert names == ["train/000.tar", "train/001.tar"]


def test_sub_folders__command_pack_and_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shard(tmp_path / "s" / "train" / "000.tar", range(4))
    write_shard(tmp_path / "s" / "val" / "000.tar", range(6, 9))
    (tmp_path / "s" / "classes.txt").write_text("even\nodd\n")
    assert main(["index", str(tmp_path / "s"), "--workers", "0"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "train: images 4, shards 1",
        "val: images 3, shards 1",
        "classes: 2",
        f"next: ssl-swin pretrain data=shards data.root={tmp_path}/s batch_size=4",
    ]
    assert main(["check", str(tmp_path / "s"), "--workers", "0"]) == 0
    assert main(["pack", str(tmp_path / "s"), str(tmp_path / "out"), "--workers", "0"]) == 0
    packed = load_index(tmp_path / "out")
    assert packed.classes == ("even", "odd")
    assert {split: packed.num_samples(split) for split in packed.splits} == {"train": 4, "val": 3}


def test_sub_folders__a_shard_added_later_is_noticed(tmp_path: Path) -> None:
    write_shard(tmp_path / "train" / "000.tar", range(4))
    build_index(tmp_path, progress=False)
    write_shard(tmp_path / "train" / "001.tar", range(4, 6))
    with pytest.raises(UserError, match=r"1 shards that its index\.json does not list.*train/001"):
        load_index(tmp_path)


def test_sub_folders__remote(tmp_path: Path) -> None:
    write_shard(tmp_path / "s" / "train" / "000.tar", range(4))
    write_shard(tmp_path / "s" / "val" / "000.tar", range(6, 9))
    root = (tmp_path / "s").as_uri()
    assert main(["index", root, "--out", str(tmp_path / "i")]) == 0
    cache = {"dir": str(tmp_path / "c"), "limit_gb": 1, "num_tries": 1, "first_wait_s": 0.01}
    found = opened(root, cache=cache, index_dir=str(tmp_path / "i"))  # type: ignore[arg-type]
    assert found == {"train": [0, 1, 2, 3], "val": [6, 7, 8]}
    assert not list((tmp_path / "c").rglob("000.tar"))  # one file name per shard of the set


def test_find_shards__which_files(tmp_path: Path) -> None:
    for name in ("b/0.tar", "a/1.tar", "a/deep/2.tar", "@eaDir/3.tar", ".x/4.tar", "a/._5.tar"):
        write_shard(tmp_path / name, range(1))
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert find_shards(tmp_path) == ["a/1.tar", "a/deep/2.tar", "b/0.tar"]
    write_shard(tmp_path / "TOP.TAR", range(1))
    assert find_shards(tmp_path) == ["TOP.TAR"]
    write_shard(tmp_path / "top.tar", range(1))
    (tmp_path / "._top.tar").write_bytes(b"what macOS writes beside a file")
    assert find_shards(tmp_path) == ["top.tar"]
    assert shards_below(tmp_path) == ["a/1.tar", "a/deep/2.tar", "b/0.tar"]


def test_sub_folders__beside_shards_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shard(tmp_path / "train-0.tar", range(2))
    write_shard(tmp_path / "val-0.tar", range(2, 4))
    write_shard(tmp_path / "rest-0.tar", range(4, 6))
    write_shard(tmp_path / "old" / "0.tar", range(2))
    (tmp_path / "classes.txt").write_text("even\nodd\n")
    assert main(["index", str(tmp_path), "--workers", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[2:5] == [
        "classes: 2",
        "note: train, as their names say no split: rest-0.tar",
        "note: not read, since shards lie above them: old/0.tar",
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/val-0.tar"], r"it is open which split .*: train says train, val-0\.tar says val"),
        (["train/0.tar", "rest/0.tar"], r"some folders of shards .* others do not: rest\. Images"),
    ],
)
def test_sub_folders__open_splits(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        write_shard(tmp_path / name, range(2))
    with pytest.raises(UserError, match=message):
        build_index(tmp_path, progress=False)


def test_sub_folders__sets_of_their_own(tmp_path: Path) -> None:
    write_shard(tmp_path / "cifar" / "0.tar", range(2))
    write_shard(tmp_path / "pets" / "0.tar", range(2))
    build_index(tmp_path / "cifar", progress=False)
    message = rf"holds 2 folders .* an index: cifar\. Give one of them, such as {tmp_path}/cifar;"
    with pytest.raises(UserError, match=message):
        build_index(tmp_path, progress=False)
    (tmp_path / "pets" / "plan.json").write_text("{}")
    with pytest.raises(UserError, match=r"pets holds an interrupted packing: the same"):
        build_index(tmp_path, progress=False)


def test_sub_folders__class_names_must_agree(tmp_path: Path) -> None:
    for split, names in (("train", "even\nodd\n"), ("val", "odd\neven\n")):
        write_shard(tmp_path / split / "0.tar", range(2))
        (tmp_path / split / "classes.txt").write_text(names)
    with pytest.raises(
        UserError, match=r"class names in .*/train and in .*/val differ \(2 and 2\)"
    ):
        build_index(tmp_path, progress=False)
    (tmp_path / "val" / "classes.txt").write_text("even\nodd\n")
    assert build_index(tmp_path, progress=False).classes == ("even", "odd")


def test_classes_txt__not_utf8(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", range(2))
    (tmp_path / "classes.txt").write_bytes(b"caf\xe9\nx\n")
    with pytest.raises(UserError, match=r"cannot read the class names in .*classes\.txt: 'utf-8'"):
        build_index(tmp_path, progress=False)
    (tmp_path / "classes.txt").write_bytes("\ufeffcat\ndog\n".encode())
    assert build_index(tmp_path, progress=False).classes == ("cat", "dog")


def test_splits_of() -> None:
    assert splits_of(["train-0.tar", "x.tar", "val/0.tar"]) == ["train", "train", "val"]
    assert named_split("imagenet-val-0.tar") == "val"
    assert named_split("part/x.tar") is None


MODES = {"tar.gz": "w:gz", "tgz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}


@pytest.mark.parametrize("ending", MODES)
def test_compressed__by_name(tmp_path: Path, ending: str) -> None:
    write_shard(tmp_path / f"train-0.{ending}", range(5), MODES[ending])
    write_shard(tmp_path / f"val-0.{ending}", range(5, 8), MODES[ending])
    assert find_compressed(tmp_path) == [f"train-0.{ending}", f"val-0.{ending}"]
    with pytest.raises(UserError) as error:
        opened(tmp_path)
    command = {"tar.bz2": "bunzip2", "tar.xz": "unxz"}.get(ending, "gunzip")
    assert str(error.value).splitlines() == [
        f"shard {tmp_path}/train-0.{ending} (and 1 more) is compressed, so that images in it have "
        "no place to be indexed.",
        f"Decompress it: {command} {tmp_path}/*.{ending}",
        "or read it from front to back, in a less exact order: data=shards data.reader=stream",
        "or unpack it, and pack the images anew: ssl-swin pack FOLDER OUT",
    ]
    assert opened(tmp_path, "stream") == {"train": [0, 1, 2, 3, 4], "val": [5, 6, 7]}
    (tmp_path / "classes.txt").write_text("even\nodd\n")
    splits = open_splits(tmp_path, "stream", how_to_make="", order=ORDER, num_samples=4)
    assert [split.num_samples for split in splits.values()] == [4, 3]
    assert splits["val"].classes == ("even", "odd")


def test_compressed__by_content(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_shard(tmp_path / "train-0.tar", range(5), "w:gz")
    with pytest.raises(UserError) as error:
        opened(tmp_path)
    assert str(error.value).splitlines()[:2] == [
        f"shard {path} is compressed, so that images in it have no place to be indexed.",
        f"Decompress it: mv {path} {path}.gz && gunzip {path}.gz",
    ]
    assert main(["index", str(tmp_path), "--workers", "0"]) == 2
    assert f"shard {path} is compressed" in capsys.readouterr().err
    assert opened(tmp_path, "stream") == {"train": [0, 1, 2, 3, 4]}


def test_compressed__beside_others(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-0.tar", range(2))
    write_shard(tmp_path / "train-0.tar.gz", range(2), "w:gz")  # as gunzip --keep leaves it
    assert find_compressed(tmp_path) == []
    write_shard(tmp_path / "train-1.tar.gz", range(2, 4), "w:gz")
    assert opened(tmp_path, "stream") == {"train": [0, 1, 2, 3]}
    splits = open_splits(tmp_path, "indexed", how_to_make="", order=ORDER)
    assert splits["train"].num_samples == 2
    assert splits["train"].warning == (
        "not read, being compressed: train-1.tar.gz; decompress what belongs to the set, and index "
        f"it anew: ssl-swin index {tmp_path}"
    )


def test_compressed__in_sub_folders_and_packed(tmp_path: Path) -> None:
    write_shard(tmp_path / "s" / "train" / "0.tgz", range(4), "w:gz")
    assert opened(tmp_path / "s", "stream") == {"train": [0, 1, 2, 3]}
    assert main(["pack", str(tmp_path / "s"), str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            b"\x28\xb5\x2f\xfd" + bytes(2000),
            r"train-0\.tar is compressed as \.zst; .*: unzstd --rm ",
        ),
        (b"<!DOCTYPE html><html>", r"train-0\.tar is a web page, not a tar\. Download"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS.*git lfs pull"),
        (b"PK\x03\x04" + bytes(600), r"is a zip archive\. Unpack it, and pack the folder"),
        (b"", r"no end-of-archive marker, the file ends at byte 0"),
    ],
)
def test_other_content__under_the_name_of_a_tar(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "train-0.tar").write_bytes(content)
    with pytest.raises(UserError, match=told):
        opened(tmp_path, "stream")


def test_stream__shard_that_is_cut_short(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "train-0.tar.gz", range(50), "w:gz")
    path.write_bytes(path.read_bytes()[:1500])
    message = rf"shard {path} cannot be read as a stream \(.*\)\. It is truncated or damaged, or no"
    with pytest.raises(UserError, match=message):
        opened(tmp_path, "stream")
    with pytest.raises(UserError, match=message):
        opened(tmp_path, "stream", num_samples=50)


def test_root__says_what_is_wrong_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_shard(tmp_path / "val" / "0.tar", range(2))
    assert main(["index", str(path)]) == 2
    assert f"{path} is a file. Give the folder that holds all" in capsys.readouterr().err
    assert main(["index", ""]) == 2
    with pytest.raises(UserError, match=r"data\.root is empty\. MAKE IT"):
        opened("")  # type: ignore[arg-type]
    assert main(["index", str(tmp_path / "val"), "--workers", "0"]) == 0
    assert (
        f"note: the folder is called val, and its images are train; to have them as another split, "
        f"index the folder above: {tmp_path}" in capsys.readouterr().out
    )


INDEX_DIRS = [
    ("/nonexistent", "names a folder that does not exist: /nonexistent"),
    ("", "is empty"),
    ("  ", "is empty"),
    ("FILE", "is no folder: FILE"),
]


@pytest.mark.parametrize(("index_dir", "told"), INDEX_DIRS)
@pytest.mark.parametrize("reader", ["indexed", "stream"])
def test_index_dir__must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, index_dir: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("")
    write_shard(tmp_path / "s" / "train-0.tar", range(2))
    out = index_dir.strip() or "DIR"
    with pytest.raises(UserError) as error:
        opened(Path("s"), reader, index_dir=index_dir)
    assert str(error.value) == (
        f"data.index_dir {told}. Make the index: ssl-swin index s --out {out}; or leave "
        "data.index_dir=null, which takes the one beside the shards"
    )
    assert not Path("/nonexistent").exists() and not Path("index.json").exists()
    cache = {"dir": "c", "limit_gb": 1, "num_tries": 1, "first_wait_s": 0.0}
    with pytest.raises(UserError, match=r"data\.index_dir (names|is)"):
        opened("pipe:cat {name}", index_dir=index_dir, cache=cache)  # type: ignore[arg-type]


def test_index_dir__of_stats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shard(tmp_path / "train-0.tar", range(2))
    assert main(["stats", str(tmp_path), "--index-dir", "/nonexistent"]) == 2
    assert "no index: there is no /nonexistent/index.json" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["index_dir", "image", "label_key"])
def test_folder_reader__has_no_settings_of_shards(tmp_path: Path, setting: str) -> None:
    message = rf"data\.{setting}=x is for shards, and data\.reader=folder reads images: leave"
    with pytest.raises(UserError, match=message):
        opened(tmp_path, "folder", **{setting: "x"})


def test_find_shards__walks_below_only_where_nothing_lies_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard(tmp_path / "0.tar", range(1))
    (tmp_path / "photos").mkdir()
    monkeypatch.setattr("ssl_swin.data.shards.finding._below", None)  # a call would fail
    assert (find_shards(tmp_path), find_compressed(tmp_path)) == (["0.tar"], [])
    shutil.rmtree(tmp_path / "photos")

import gzip
import io
import os
import pickle
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.sources.archives import TarDataset, tar_parts
from ssl_swin.data.sources.cifar import CifarBinaryDataset
from ssl_swin.data.sources.class_names import common_classes
from ssl_swin.data.sources.image_folder import FolderDataset
from ssl_swin.data.sources.opening import open_datasets
from ssl_swin.errors import UserError


def write_files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(f"bytes of {name}".encode())
    return root


def write_tar(path: Path, names: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name in names:
            content = f"bytes of {name}".encode()
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def synset_tars(root: Path) -> TarDataset:
    return TarDataset(tar_parts(list(root.glob("*.tar"))))


# FolderDataset


def test_folder_source__sub_folders_are_classes(tmp_path: Path) -> None:
    root = write_files(
        tmp_path, "dog/2.png", "cat/deep/er/1.JPG", "cat/0.jpeg", "dog/a.txt", "x.md"
    )
    (root / "empty").mkdir()
    source = FolderDataset(root)
    assert source.classes == ("cat", "dog")
    assert list(source) == [
        EncodedSample.of_image(b"bytes of cat/0.jpeg", "jpeg", 0, "cat/0.jpeg"),
        EncodedSample.of_image(b"bytes of cat/deep/er/1.JPG", "jpg", 0, "cat/deep/er/1.JPG"),
        EncodedSample.of_image(b"bytes of dog/2.png", "png", 1, "dog/2.png"),
    ]


@pytest.mark.parametrize("labelled", [True, False])
def test_folder_source__loose_image_means_unlabelled(tmp_path: Path, labelled: bool) -> None:
    names = ["a.jpg", "cat/0.jpg"] if labelled else ["cat/0.jpg", "dog/1.jpg"]
    source = FolderDataset(write_files(tmp_path, *names), labelled=labelled)
    assert source.classes == ()
    assert [(record.name, record.label) for record in source] == [(name, None) for name in names]


def test_folder_source__hidden_entries_and_link_loops(tmp_path: Path) -> None:
    root = write_files(tmp_path / "root", "cat/0.jpg", "cat/.1.jpg", ".cache/2.jpg")
    (root / "cat" / "loop").symlink_to(root)
    write_files(tmp_path / "elsewhere", "3.jpg")
    (root / "dog").symlink_to(tmp_path / "elsewhere")
    assert [record.name for record in FolderDataset(root)] == ["cat/0.jpg", "dog/3.jpg"]


def test_folder_source__names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    (tmp_path / name).write_bytes(b"x")
    assert FolderDataset(tmp_path)[0] == EncodedSample.of_image(b"x", "jpg", None, name)


def test_folder_source__fingerprint_follows_the_list(tmp_path: Path) -> None:
    first = FolderDataset(write_files(tmp_path / "a", "cat/0.jpg", "dog/1.jpg"))
    moved = FolderDataset(write_files(tmp_path / "b", "cat/0.jpg", "dog/1.jpg"))
    more = FolderDataset(write_files(tmp_path / "c", "cat/0.jpg", "dog/1.jpg", "dog/2.jpg"))
    unlabelled = FolderDataset(tmp_path / "a", labelled=False)
    assert first.fingerprint == moved.fingerprint
    assert len({first.fingerprint, more.fingerprint, unlabelled.fingerprint}) == 3
    assert len(first.fingerprint) == 16


@pytest.mark.parametrize(
    ("labelled", "fingerprint"), [(True, "b8885ad945ec5eba"), (False, "69280889f2355517")]
)
def test_folder_source__order_of_earlier_versions(
    tmp_path: Path, labelled: bool, fingerprint: str
) -> None:
    """Runs of earlier versions continue: names and fingerprint are what 0.1.0 made of it."""
    names = ["Ant/1.tif", "cat/a/1.jpg", "cat/a.jpg", "cat/b/2.jpg", "cat/b.jpg", "cat/c.PNG"]
    write_files(tmp_path, *reversed(names), "dog/x.npy", "dog/.h.jpg", "z/readme.txt")
    for source in (FolderDataset(tmp_path, labelled), open_datasets(tmp_path, labelled)["train"]):
        assert [source[i].name for i in range(len(source))] == [*names, "dog/x.npy"]
        assert source.fingerprint == fingerprint


def test_folder_source__no_images(tmp_path: Path) -> None:
    write_files(tmp_path, "a.txt", "b/c.heic")
    message = (
        f"no images in {tmp_path} and its sub-folders; left out: 1 file that is no image: "
        "1 .heic (b/c.heic, read with pip install pillow-heif)"
    )
    with pytest.raises(UserError, match=f"{re.escape(message)}$"):
        FolderDataset(tmp_path)


# TarDataset


def test_synset_tars__reads_in_place(tmp_path: Path) -> None:
    write_tar(tmp_path / "n02.tar", ["n02_1.JPEG"])
    write_tar(tmp_path / "n01.tar", ["n01_5.JPEG", "README.txt", "._n01_9.JPEG", "n01_10.JPEG"])
    write_tar(tmp_path / "n03.tar", [])
    write_tar(tmp_path / "n04.tar", ["n04_1.JPEG", "n04_2.JPEG"])
    source = synset_tars(tmp_path)
    assert source.classes == ("n01", "n02", "n03", "n04")
    assert len(source) == 5
    assert [source[i] for i in range(5)] == [
        EncodedSample.of_image(b"bytes of n01_5.JPEG", "jpeg", 0, "n01.tar/n01_5.JPEG"),
        EncodedSample.of_image(b"bytes of n01_10.JPEG", "jpeg", 0, "n01.tar/n01_10.JPEG"),
        EncodedSample.of_image(b"bytes of n02_1.JPEG", "jpeg", 1, "n02.tar/n02_1.JPEG"),
        EncodedSample.of_image(b"bytes of n04_1.JPEG", "jpeg", 3, "n04.tar/n04_1.JPEG"),
        EncodedSample.of_image(b"bytes of n04_2.JPEG", "jpeg", 3, "n04.tar/n04_2.JPEG"),
    ]
    with pytest.raises(IndexError):
        source[5]


def test_synset_tars__unlabelled(tmp_path: Path) -> None:
    write_tar(tmp_path / "n01.tar", ["n01_5.JPEG"])
    source = open_datasets(tmp_path, labelled=False)["train"]
    assert (source.classes, source[0].label) == ((), None)


def test_synset_tars__truncated(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "n01.tar", ["n01_5.JPEG", "n01_6.JPEG"])
    path.write_bytes(path.read_bytes()[:1024])
    with pytest.raises(UserError, match=r"n01\.tar: no end-of-archive marker"):
        synset_tars(tmp_path)


def test_synset_tars__no_images(tmp_path: Path) -> None:
    write_tar(tmp_path / "n01.tar", ["README"])
    with pytest.raises(UserError, match="no images in the tars"):
        synset_tars(tmp_path)


# CifarBinaryDataset


def cifar_files() -> dict[str, bytes]:
    """Two images a batch; batch b's images have label b and 2 * b, and random pixels."""
    generator = np.random.default_rng(0)
    files = {"batches.meta.txt": "\n".join(f"name{i}" for i in range(11)).encode() + b"\n\n"}
    names = [*(f"data_batch_{b}.bin" for b in range(1, 6)), "test_batch.bin"]
    for batch, name in enumerate(names):
        rows = generator.integers(0, 256, (2, 3073), dtype=np.uint8)
        rows[:, 0] = batch, 2 * batch
        files[name] = rows.tobytes()
    return files


def write_cifar(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix != ".gz":
        path.mkdir()
        for name, content in files.items():
            (path / name).write_bytes(content)
        return path
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            header = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["cifar-10-binary.tar.gz", "cifar-10-batches-bin"])
def test_cifar__archive_and_folder(tmp_path: Path, name: str) -> None:
    files = cifar_files()
    sources = open_datasets(write_cifar(tmp_path / name, files))
    assert {split: len(source) for split, source in sources.items()} == {"train": 10, "val": 2}
    assert sources["val"].classes == tuple(f"name{i}" for i in range(11))
    train = sources["train"]
    assert [train[i].label for i in range(10)] == [0, 0, 1, 2, 2, 4, 3, 6, 4, 8]
    record = train[3]  # the second row of data_batch_2
    row = files["data_batch_2.bin"][3073:]
    image = Image.open(io.BytesIO(record.data))
    assert (record.extension, record.name, image.format) == ("png", "train[3]", "PNG")
    x, y = 5, 7
    expected = tuple(row[1 + 1024 * channel + 32 * y + x] for channel in range(3))
    assert image.getpixel((x, y)) == expected


@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "cifar-10-batches-py"])
def test_cifar__pickle_version(tmp_path: Path, name: str) -> None:
    path = write_cifar(tmp_path / name, {"data_batch_1": b"x", "batches.meta": b"x"})
    with pytest.raises(UserError, match=r"pickle version.*Take the binary version"):
        open_datasets(path)


def test_cifar__damaged(tmp_path: Path) -> None:
    files = cifar_files()
    without = {name: content for name, content in files.items() if name != "data_batch_3.bin"}
    with pytest.raises(UserError, match=r"not the binary version.*it lacks data_batch_3\.bin"):
        CifarBinaryDataset(write_cifar(tmp_path / "a", without))
    short = {**files, "test_batch.bin": files["test_batch.bin"][:-1]}
    with pytest.raises(UserError, match=r"test_batch\.bin has 6145 bytes, not a multiple of 3073"):
        CifarBinaryDataset(write_cifar(tmp_path / "b", short), "val")
    few_names = {**files, "batches.meta.txt": b"one\ntwo\n"}
    with pytest.raises(UserError, match="labels beyond the 2 names"):
        CifarBinaryDataset(write_cifar(tmp_path / "c", few_names))


def test_cifar__an_archive_that_unpacks_to_more_than_memory(tmp_path: Path) -> None:
    """Its second member claims a terabyte, which is never read."""
    path = write_cifar(tmp_path / "cifar-10-binary.tar.gz", cifar_files())
    header = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
    header.size = 1 << 40
    with gzip.open(path, "wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(UserError, match=r"is no archive of CIFAR: .* has 1099511627776 bytes"):
        open_datasets(path)


def test_cifar__truncated_archive(tmp_path: Path) -> None:
    path = write_cifar(tmp_path / "cifar-10-binary.tar.gz", cifar_files())
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(UserError, match="cannot be read as an archive"):
        open_datasets(path)


# open_datasets


def test_open_sources__split_folders(tmp_path: Path) -> None:
    names = [f"{split}/{c}/0.jpg" for split in ("Training", "valid", "test") for c in "ab"]
    sources = open_datasets(write_files(tmp_path, *names))
    assert set(sources) == {"train", "val", "test"}
    assert {source.classes for source in sources.values()} == {("a", "b")}
    assert sources["val"][1] == EncodedSample.of_image(
        b"bytes of valid/b/0.jpg", "jpg", 1, "b/0.jpg"
    )


def test_open_sources__splits_that_differ(tmp_path: Path) -> None:
    write_files(tmp_path, "train/a/0.jpg", "train/b/0.jpg", "val/b/0.jpg", "val/c/0.jpg")
    with pytest.raises(UserError, match=r"only in train: a; only in val: c.*--no-labels"):
        open_datasets(tmp_path)
    unlabelled = open_datasets(tmp_path, labelled=False)
    assert common_classes(unlabelled) == ()
    assert len(unlabelled["val"]) == 2


def test_open_sources__flat_val_beside_classes(tmp_path: Path) -> None:
    names = [f"train/{i}/0.jpg" for i in range(9)]
    write_files(tmp_path, "val/0.jpg", *names)
    message = r"train has 9, val has 0 \(only in train: 0, 1, 2, 3, 4, \.\.\. \(9 in all\)"
    with pytest.raises(UserError, match=message):
        open_datasets(tmp_path)


def test_open_sources__tars_and_shards(tmp_path: Path) -> None:
    write_tar(tmp_path / "synsets" / "n01.tar", ["n01_5.JPEG", "n01_6.JPEG"])
    write_files(tmp_path / "synsets", "words.txt")
    assert isinstance(open_datasets(tmp_path / "synsets")["train"], TarDataset)
    write_tar(tmp_path / "shards" / "0.tar", ["0.jpg", "0.cls"])
    write_tar(tmp_path / "shards" / "val-0.tar", ["1.jpg", "1.cls"])
    with pytest.raises(UserError, match=r"0\.tar is a shard of samples. Give the folder"):
        open_datasets(tmp_path / "shards" / "0.tar")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"no images in \S+ and its sub-folders$"),
        (["train/a/0.jpg", "val/.keep"], r"no images in \S+/val\. Leave it out: --leave-out val$"),
        (["train/0.jpg", "training/0.jpg"], "two folders for one split: train, training"),
        (["train/0.jpg", "val/0.jpg", "x.jpg"], r"\(train, val\) and beside them \(x\.jpg\)"),
    ],
)
def test_open_sources__mistakes(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_datasets(write_files(tmp_path, *names))


def test_open_sources__not_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path}/absent does not exist"):
        open_datasets(tmp_path / "absent")
    write_files(tmp_path, "a.jpg")
    with pytest.raises(UserError, match=r"a\.jpg is one image\. Give the folder that it lies in$"):
        open_datasets(tmp_path / "a.jpg")


def test_sources__pickle(tmp_path: Path) -> None:
    write_files(tmp_path / "folder", "a/0.jpg", "b/1.jpg")
    write_tar(tmp_path / "tars" / "n01.tar", ["0.jpg", "1.jpg"])
    cifar = write_cifar(tmp_path / "cifar", cifar_files())
    for path in (tmp_path / "folder", tmp_path / "tars", cifar):
        source = open_datasets(path)["train"]
        copy = pickle.loads(pickle.dumps(source))
        assert copy[1] == source[1]
        assert copy.fingerprint == source.fingerprint

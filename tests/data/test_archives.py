import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.sources.archives import TarDataset, inner_tars, tar_parts
from ssl_swin.data.sources.cifar import CifarBinaryDataset
from ssl_swin.data.sources.labelled import RelabelledDataset, label_by_name
from ssl_swin.data.sources.opening import open_datasets
from ssl_swin.errors import UserError


def tar_of(members: Mapping[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return content.getvalue()


def images(*names: str) -> bytes:
    return tar_of({name: f"bytes of {name}".encode() for name in names})


@pytest.fixture
def ilsvrc(tmp_path: Path) -> Path:
    """The two official tars, with three classes and four validation images out of order."""
    train = {
        "n03.tar": images("n03_7.JPEG"),
        "n01.tar": images("n01_2.JPEG", "n01_1.JPEG"),
        "n02.tar": images("n02_5.JPEG"),
    }
    (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(tar_of(train))
    val = images(*(f"ILSVRC2012_val_0000000{number}.JPEG" for number in (2, 1, 4, 3)))
    (tmp_path / "ILSVRC2012_img_val.tar").write_bytes(val)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "val.txt").write_text("n03\nn01\nn03\nn02\n")
    return tmp_path


def test_ilsvrc_train__tar_of_tars(ilsvrc: Path) -> None:
    source = open_datasets(ilsvrc / "ILSVRC2012_img_train.tar")["train"]
    assert source.classes == ("n01", "n02", "n03")
    assert [source[index] for index in range(len(source))] == [
        EncodedSample.of_image(b"bytes of n01_2.JPEG", "jpeg", 0, "n01.tar/n01_2.JPEG"),
        EncodedSample.of_image(b"bytes of n01_1.JPEG", "jpeg", 0, "n01.tar/n01_1.JPEG"),
        EncodedSample.of_image(b"bytes of n02_5.JPEG", "jpeg", 1, "n02.tar/n02_5.JPEG"),
        EncodedSample.of_image(b"bytes of n03_7.JPEG", "jpeg", 2, "n03.tar/n03_7.JPEG"),
    ]
    assert open_datasets(ilsvrc / "ILSVRC2012_img_train.tar", labelled=False)["train"].classes == ()


def test_ilsvrc_train__equals_its_tars_unpacked(ilsvrc: Path, tmp_path: Path) -> None:
    """The same images in the same order, be the tars of the classes inside a tar or in a folder."""
    with tarfile.open(ilsvrc / "ILSVRC2012_img_train.tar") as archive:
        archive.extractall(tmp_path / "synsets", filter="data")
    apart = open_datasets(tmp_path / "synsets")["train"]
    inside = open_datasets(ilsvrc / "ILSVRC2012_img_train.tar")["train"]
    assert list(apart) == list(inside)  # type: ignore[call-overload]


def test_ilsvrc__both_tars_with_val_labels(ilsvrc: Path) -> None:
    labels = (ilsvrc / "labels" / "val.txt").rename(ilsvrc / "val_labels.txt")
    labels.parent.joinpath("labels").rmdir()
    sources = open_datasets(ilsvrc, val_labels=labels)
    assert {split: len(source) for split, source in sources.items()} == {"train": 4, "val": 4}
    val = sources["val"]
    assert val.classes == ("n01", "n02", "n03")
    found = {val[index].name[-6]: val[index].label for index in range(4)}
    assert found == {"1": 2, "2": 0, "3": 2, "4": 1}  # the order of names, not that of the tar
    with pytest.raises(UserError, match=r"train has 3, val has 0 .*of val by --val-labels"):
        open_datasets(ilsvrc)
    assert len(open_datasets(ilsvrc, labelled=False)["val"]) == 4


def test_ilsvrc_val__alone(ilsvrc: Path) -> None:
    path = ilsvrc / "ILSVRC2012_img_val.tar"
    source = open_datasets(path)["train"]
    assert (source.classes, source[0].label, len(source)) == ((), None, 4)
    labelled = open_datasets(path, val_labels=ilsvrc / "labels" / "val.txt")["train"]
    assert labelled.classes == ("n01", "n02", "n03")
    assert labelled[1].label == 2
    assert labelled.fingerprint != source.fingerprint


def test_ilsvrc_train__damage_in_an_inner_tar(ilsvrc: Path) -> None:
    path = ilsvrc / "ILSVRC2012_img_train.tar"
    content = bytearray(path.read_bytes())
    start = content.index(b"n01_1.JPEG")
    content[start + 148] ^= 1  # a digit of its checksum
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"\(n01\.tar in it\): bad tar header at byte {start} of"):
        open_datasets(path)


def test_inner_tars__cut_outer_tar(ilsvrc: Path) -> None:
    path = ilsvrc / "ILSVRC2012_img_train.tar"
    path.write_bytes(path.read_bytes()[:15000])
    with pytest.raises(UserError, match=r"train\.tar: member 'n01\.tar' ends at byte"):
        inner_tars(path)


def test_tar_source__names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo(name))
    source = TarDataset(tar_parts([tmp_path / "a.tar"]))
    assert source[0] == EncodedSample.of_image(b"", "jpg", 0, f"a.tar/{name}")


def test_flat_tars__split_by_name(tmp_path: Path) -> None:
    for name in ("train-0", "train-1", "val-0"):
        (tmp_path / f"{name}.tar").write_bytes(images(f"{name}.jpg"))
    sources = open_datasets(tmp_path)
    assert {split: len(source) for split, source in sources.items()} == {"train": 2, "val": 1}
    assert sources["train"].classes == ()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("n01\n", "has 1 line for 4 images"),
        ("n01\nn02\n490\nn03\n", "has 1 class that train has not, the first is '490'. It must"),
    ],
)
def test_val_labels__mistakes(ilsvrc: Path, lines: str, message: str) -> None:
    file = ilsvrc / "labels" / "val.txt"
    file.write_text(lines)
    source = TarDataset(tar_parts([ilsvrc / "ILSVRC2012_img_val.tar"]), labelled=False)
    with pytest.raises(UserError, match=message):
        label_by_name(source, file, ("n01", "n02", "n03"))
    with pytest.raises(UserError, match="cannot read the labels"):
        label_by_name(source, file.with_name("absent"))
    with pytest.raises(UserError, match="for images in a folder or a tar"):
        label_by_name(RelabelledDataset(source), file)


def test_val_labels__beside_labels(ilsvrc: Path) -> None:
    for path, labelled in (("train", True), ("val", False)):
        with pytest.raises(UserError, match="--val-labels is for images without labels"):
            open_datasets(
                ilsvrc / f"ILSVRC2012_img_{path}.tar", labelled, ilsvrc / "labels" / "val.txt"
            )


def test_cifar100__fine_labels(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (3, 3074), dtype=np.uint8)
    rows[:, 0], rows[:, 1] = (9, 9, 9), (0, 2, 1)
    files = {
        "cifar-100-binary/train.bin": rows.tobytes(),
        "cifar-100-binary/test.bin": rows[:1].tobytes(),
        "cifar-100-binary/fine_label_names.txt": b"apple\nbear\ncan\n",
        "cifar-100-binary/coarse_label_names.txt": b"x\ny\n",
    }
    path = tmp_path / "cifar-100-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    sources = open_datasets(path)
    assert {split: len(source) for split, source in sources.items()} == {"train": 3, "val": 1}
    assert sources["train"].classes == ("apple", "bear", "can")
    assert [sources["train"][index].label for index in range(3)] == [0, 2, 1]
    pixels = np.asarray(Image.open(io.BytesIO(sources["train"][1].data)))
    np.testing.assert_array_equal(pixels, rows[1, 2:].reshape(3, 32, 32).transpose(1, 2, 0))
    path.write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read as an archive"):
        CifarBinaryDataset(path)

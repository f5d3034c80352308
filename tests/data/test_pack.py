import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import webdataset
from PIL import Image

from ssl_swin.data import shard_writer
from ssl_swin.data.index import build_index, load_index
from ssl_swin.data.pack import pack
from ssl_swin.data.sources import ImageRecord
from ssl_swin.data.tar import scan_tar
from ssl_swin.errors import UserError


class GraySource:
    """Image i is a 4 x 4 px PNG of gray level i, with label i % 3; those in `broken` are not."""

    def __init__(self, length: int, broken: tuple[int, ...] = (), labelled: bool = True) -> None:
        self.classes = ("a", "b", "c") if labelled else ()
        self.fingerprint = f"gray {length}"
        self.length = length
        self.broken = broken

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> ImageRecord:
        png = io.BytesIO()
        Image.new("L", (4, 4), index).save(png, "PNG")
        data = b"<html>" if index in self.broken else png.getvalue()
        return ImageRecord(data, "png", index % 3 if self.classes else None, f"{index}.png")


def read(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    """Reads with the webdataset package."""
    urls = [str(path) for path in load_index(folder).paths(split)]
    return list(webdataset.WebDataset(urls, shardshuffle=False))


def gray_level(sample: dict[str, Any]) -> int:
    return int(Image.open(io.BytesIO(sample["png"])).getpixel((0, 0)))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def quietly(*args: Any, **kwargs: Any) -> Any:
    return pack(*args, num_workers=kwargs.pop("num_workers", 0), progress=False, **kwargs)


def test_pack__webdataset_reads_every_image_once(tmp_path: Path) -> None:
    report = quietly({"train": GraySource(23)}, tmp_path, shard_samples=5)
    samples = read(tmp_path)
    levels = [gray_level(sample) for sample in samples]
    assert sorted(levels) == list(range(23))
    assert levels != list(range(23))
    assert [sample["__key__"] for sample in samples] == [f"train-{i:09d}" for i in range(23)]
    assert [int(sample["cls"]) for sample in samples] == [level % 3 for level in levels]
    assert [sample["png"] for sample in samples] == [GraySource(23)[level].data for level in levels]
    assert (report.num_packed, report.skipped) == (23, [])


def test_pack__index(tmp_path: Path) -> None:
    report = quietly({"train": GraySource(23)}, tmp_path, shard_samples=5)
    shards = report.index.splits["train"]
    assert [shard.name for shard in shards] == [f"train-{i:06d}.tar" for i in range(5)]
    assert [shard.num_samples for shard in shards] == [5, 5, 5, 5, 3]
    assert report.index == load_index(tmp_path)
    assert report.index.classes == ("a", "b", "c")
    assert set(contents(tmp_path)) == {"index.json", *(shard.name for shard in shards)}
    (tmp_path / "index.json").unlink()
    assert build_index(tmp_path, progress=False).splits == report.index.splits


def test_pack__members_have_no_time_or_owner(tmp_path: Path) -> None:
    quietly({"train": GraySource(2)}, tmp_path)
    content = (tmp_path / "train-000000.tar").read_bytes()
    for member in scan_tar(tmp_path / "train-000000.tar").members:
        header = content[member.offset - 512 : member.offset]
        assert header[108:124] == b"0000000\0" * 2  # owner and group
        assert header[136:148] == b"00000000000\0"  # time


def test_pack__same_input_same_bytes(tmp_path: Path) -> None:
    sources = {"train": GraySource(40, broken=(3,)), "test": GraySource(9)}
    options: dict[str, Any] = {"shard_samples": 7, "val_ratio": 0.1}
    quietly(sources, tmp_path / "a", **options, num_workers=0)
    quietly(sources, tmp_path / "b", **options, num_workers=2)
    quietly(sources, tmp_path / "c", **options, seed=1)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


@pytest.mark.parametrize(("ratio", "num_val"), [(0.02, 1), (0.25, 13), (0.5, 25), (0.97, 49)])
def test_pack__holds_out_val(tmp_path: Path, ratio: float, num_val: int) -> None:
    quietly({"train": GraySource(50)}, tmp_path, val_ratio=ratio, shard_samples=8)
    train, val = ([gray_level(s) for s in read(tmp_path, split)] for split in ("train", "val"))
    assert len(val) == num_val
    assert Counter(train + val) == Counter(range(50))
    assert read(tmp_path, "val")[0]["__key__"] == "val-000000000"


def test_pack__keeps_a_given_val(tmp_path: Path) -> None:
    sources = {"train": GraySource(20), "val": GraySource(6)}
    report = quietly(sources, tmp_path, val_ratio=0.5)
    assert report.index.num_samples("train") == 20
    assert sorted(map(gray_level, read(tmp_path, "val"))) == list(range(6))


def test_pack__unlabelled(tmp_path: Path) -> None:
    report = quietly({"train": GraySource(4, labelled=False)}, tmp_path)
    assert report.index.classes == ()
    assert all("cls" not in sample for sample in read(tmp_path))


def test_pack__leaves_out_unreadable_images(tmp_path: Path) -> None:
    report = quietly({"train": GraySource(12, broken=(4, 7))}, tmp_path, shard_samples=5)
    assert report.num_packed == 10
    reason = "UnidentifiedImageError: cannot identify image file <_io.BytesIO>"
    assert sorted(report.skipped) == [("4.png", reason), ("7.png", reason)]
    lines = (tmp_path / "skipped.txt").read_text().splitlines()
    assert sorted(lines) == [f"4.png: {reason}", f"7.png: {reason}"]
    assert sorted(map(gray_level, read(tmp_path))) == [0, 1, 2, 3, 5, 6, 8, 9, 10, 11]


def test_pack__leaves_out_files_that_cannot_be_opened(tmp_path: Path) -> None:
    class Vanishing(GraySource):
        def __getitem__(self, index: int) -> ImageRecord:
            return (
                ImageRecord((tmp_path / "gone.png").read_bytes(), "png", 0, "gone.png")
                if (index == 3)
                else super().__getitem__(index)
            )

    report = quietly({"train": Vanishing(5)}, tmp_path / "out")
    assert report.skipped == [(f"{tmp_path}/gone.png", "No such file or directory")]
    assert report.num_packed == 4


def test_pack__drops_a_shard_without_a_readable_image(tmp_path: Path) -> None:
    report = quietly({"train": GraySource(4, broken=(1,))}, tmp_path, shard_samples=1)
    assert [shard.num_samples for shard in report.index.splits["train"]] == [1, 1, 1]
    assert len(list(tmp_path.glob("*.tar"))) == 3


@pytest.mark.parametrize("num_workers", [0, 2])
def test_pack__no_readable_image(tmp_path: Path, num_workers: int) -> None:
    sources = {"train": GraySource(20), "val": GraySource(3, broken=(0, 1, 2))}
    with pytest.raises(UserError, match=r"no readable image in val: .*\d\.png \(Unidentified"):
        quietly(sources, tmp_path / "out", num_workers=num_workers)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("bug")])
def test_pack__failure_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    class Failing(GraySource):
        def __getitem__(self, index: int) -> ImageRecord:
            if index == 17:
                raise error
            return super().__getitem__(index)

    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(type(error)):
        quietly({"train": Failing(30)}, tmp_path, shard_samples=3)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_pack__full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shard_writer, "_add_member", no_space)
    with pytest.raises(
        UserError, match=r"cannot write .*train-000000\.tar: No space left on device"
    ):
        quietly({"train": GraySource(3)}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("index.json", "already holds shards. Choose an empty folder"),
        ("train-000000.tar", "already holds shards. Choose an empty folder"),
        ("plan.json", "a packing cut short. Choose an empty folder"),
    ],
)
def test_pack__folder_in_use(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_text("old")
    with pytest.raises(UserError, match=message):
        quietly({"train": GraySource(3)}, tmp_path)
    assert contents(tmp_path) == {name: b"old"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard_samples": 0}, "images per shard must be at least 1, got 0"),
        ({"val_ratio": 1.0}, r"must be in \[0, 1\), got 1\.0"),
        ({"val_ratio": -0.1}, r"must be in \[0, 1\), got -0\.1"),
        ({"val_ratio": float("nan")}, r"must be in \[0, 1\), got nan"),
        ({"val_ratio": 0.9}, "holding out 0.9 of 3 images leaves none to train on"),
        ({"seed": -1}, "the seed must not be negative, got -1"),
        ({"num_workers": -1}, "number of workers must not be negative, got -1"),
    ],
)
def test_pack__options_out_of_range(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        quietly({"train": GraySource(3)}, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_pack__classes_that_differ(tmp_path: Path) -> None:
    sources = {"train": GraySource(3), "val": GraySource(3, labelled=False)}
    with pytest.raises(UserError, match="train has 3, val has 0"):
        quietly(sources, tmp_path / "out")


SLOW_PACKING = """
import sys, time
from ssl_swin.data.pack import pack
from ssl_swin.data.sources import ImageRecord
class Slow:
    classes, fingerprint = (), "slow"
    def __len__(self):
        return 200
    def __getitem__(self, index):
        time.sleep(0.02)
        return ImageRecord(b"P5 1 1 255 x", "ppm", None, str(index))
pack({"train": Slow()}, sys.argv[1], shard_samples=20, progress=False)
"""


@pytest.mark.parametrize("send", [signal.SIGINT, signal.SIGKILL])
def test_pack__interrupted(tmp_path: Path, send: signal.Signals) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", SLOW_PACKING, str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    while not list(out.glob("*.tar")):
        assert process.poll() is None
        time.sleep(0.01)
    plan = json.loads((out / "plan.json").read_text())
    assert plan["sources"] == {"train": "slow"}
    if send == signal.SIGINT:
        os.killpg(process.pid, send)  # as a terminal does it: parent and workers
        _, errors = process.communicate()  # its end means that the workers have ended too
        assert errors.count(b"Traceback") == 1 and b"KeyboardInterrupt" in errors
        assert not out.exists()
    else:
        process.kill()
        process.communicate()
        with pytest.raises(UserError, match="cut short"):
            quietly({"train": GraySource(3)}, out)
        assert all(scan_tar(path).problem is None for path in out.glob("*.tar"))

import io
import json
import multiprocessing
import os
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import webdataset
from PIL import Image

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.images.decode import orientation_of, probe_image
from ssl_swin.data.packing import shard_writer
from ssl_swin.data.packing.pack import pack
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.index import load_index
from ssl_swin.data.shards.indexing import build_index
from ssl_swin.data.shards.tar import scan_tar
from ssl_swin.data.sources.opening import open_datasets
from ssl_swin.errors import UserError


class GrayDataset(ImageDataset):
    """Image i is a 4 x 4 px PNG of gray level i, with label i % 3; those in `broken` are not."""

    def __init__(self, length: int, broken: tuple[int, ...] = (), labelled: bool = True) -> None:
        self.classes = ("a", "b", "c") if labelled else ()
        self.fingerprint = f"gray {length}"
        self.length = length
        self.broken = broken

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> EncodedSample:
        png = io.BytesIO()
        Image.new("L", (4, 4), index).save(png, "PNG")
        data = b"<html>" if index in self.broken else png.getvalue()
        return EncodedSample.of_image(
            data, "png", index % 3 if self.classes else None, f"{index}.png"
        )


def read(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    """Reads with the webdataset package."""
    urls = [str(folder / shard.name) for shard in load_index(folder).splits[split]]
    return list(webdataset.WebDataset(urls, shardshuffle=False))


def gray_level(sample: dict[str, Any]) -> int:
    return int(Image.open(io.BytesIO(sample["png"])).getpixel((0, 0)))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def quietly(*args: Any, **kwargs: Any) -> Any:
    return pack(*args, num_workers=kwargs.pop("num_workers", 0), progress=False, **kwargs)


def test_pack__webdataset_reads_every_image_once(tmp_path: Path) -> None:
    report = quietly({"train": GrayDataset(23)}, tmp_path, shard_samples=5)
    samples = read(tmp_path)
    levels = [gray_level(sample) for sample in samples]
    assert sorted(levels) == list(range(23))
    assert levels != list(range(23))
    assert [sample["__key__"] for sample in samples] == [f"train-{i:09d}" for i in range(23)]
    assert [int(sample["cls"]) for sample in samples] == [level % 3 for level in levels]
    assert [sample["png"] for sample in samples] == [
        GrayDataset(23)[level].data for level in levels
    ]
    assert (report.num_packed, report.skipped) == (23, [])


def test_pack__index(tmp_path: Path) -> None:
    report = quietly({"train": GrayDataset(23)}, tmp_path, shard_samples=5)
    shards = report.index.splits["train"]
    assert [shard.name for shard in shards] == [f"train-{i:06d}.tar" for i in range(5)]
    assert [shard.num_samples for shard in shards] == [5, 5, 5, 5, 3]
    assert report.index == load_index(tmp_path)
    assert report.index.classes == ("a", "b", "c")
    names = {"index.json", "index.bin", *(shard.name for shard in shards)}
    assert set(contents(tmp_path)) == names
    assert build_index(tmp_path, progress=False) == report.index


def test_pack__members_have_no_time_or_owner(tmp_path: Path) -> None:
    quietly({"train": GrayDataset(2)}, tmp_path)
    content = (tmp_path / "train-000000.tar").read_bytes()
    for member in scan_tar(tmp_path / "train-000000.tar").members:
        header = content[member.offset - 512 : member.offset]
        assert header[108:124] == b"0000000\0" * 2  # owner and group
        assert header[136:148] == b"00000000000\0"  # time


def test_pack__same_input_same_bytes(tmp_path: Path) -> None:
    sources = {"train": GrayDataset(40, broken=(3,)), "test": GrayDataset(9)}
    options: dict[str, Any] = {"shard_samples": 7, "val_ratio": 0.1}
    quietly(sources, tmp_path / "a", **options, num_workers=0)
    quietly(sources, tmp_path / "b", **options, num_workers=2)
    quietly(sources, tmp_path / "c", **options, seed=1)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


@pytest.mark.parametrize(("ratio", "num_val"), [(0.02, 1), (0.25, 13), (0.5, 25), (0.97, 49)])
def test_pack__holds_out_val(tmp_path: Path, ratio: float, num_val: int) -> None:
    quietly({"train": GrayDataset(50)}, tmp_path, val_ratio=ratio, shard_samples=8)
    train, val = ([gray_level(s) for s in read(tmp_path, split)] for split in ("train", "val"))
    assert len(val) == num_val
    assert Counter(train + val) == Counter(range(50))
    assert read(tmp_path, "val")[0]["__key__"] == "val-000000000"


def test_pack__keeps_a_given_val(tmp_path: Path) -> None:
    sources = {"train": GrayDataset(20), "val": GrayDataset(6)}
    report = quietly(sources, tmp_path, val_ratio=0.5)
    assert report.index.num_samples("train") == 20
    assert sorted(map(gray_level, read(tmp_path, "val"))) == list(range(6))


def test_pack__unlabelled(tmp_path: Path) -> None:
    report = quietly({"train": GrayDataset(4, labelled=False)}, tmp_path)
    assert report.index.classes == ()
    assert all("cls" not in sample for sample in read(tmp_path))


def test_pack__leaves_out_unreadable_images(tmp_path: Path) -> None:
    report = quietly({"train": GrayDataset(12, broken=(4, 7))}, tmp_path, shard_samples=5)
    assert report.num_packed == 10
    reason = "UnidentifiedImageError: cannot identify image file <_io.BytesIO>"
    assert sorted(report.skipped) == [("4.png", reason), ("7.png", reason)]
    lines = (tmp_path / "skipped.txt").read_text().splitlines()
    assert sorted(lines) == [f"4.png: {reason}", f"7.png: {reason}"]
    assert sorted(map(gray_level, read(tmp_path))) == [0, 1, 2, 3, 5, 6, 8, 9, 10, 11]


def test_pack__leaves_out_files_that_cannot_be_opened(tmp_path: Path) -> None:
    class Vanishing(GrayDataset):
        def __getitem__(self, index: int) -> EncodedSample:
            return (
                EncodedSample.of_image((tmp_path / "gone.png").read_bytes(), "png", 0, "gone.png")
                if (index == 3)
                else super().__getitem__(index)
            )

    report = quietly({"train": Vanishing(5)}, tmp_path / "out")
    assert report.skipped == [(f"{tmp_path}/gone.png", "No such file or directory")]
    assert report.num_packed == 4


def test_pack__drops_a_shard_without_a_readable_image(tmp_path: Path) -> None:
    report = quietly({"train": GrayDataset(4, broken=(1,))}, tmp_path, shard_samples=1)
    assert [shard.num_samples for shard in report.index.splits["train"]] == [1, 1, 1]
    assert len(list(tmp_path.glob("*.tar"))) == 3


@pytest.mark.parametrize("num_workers", [0, 2])
def test_pack__no_readable_image(tmp_path: Path, num_workers: int) -> None:
    sources = {"train": GrayDataset(3, broken=(0, 1, 2))}
    with pytest.raises(UserError, match=r"no readable image in train: .*\d\.png \(Unidentified"):
        quietly(sources, tmp_path / "out", num_workers=num_workers)
    assert list(tmp_path.iterdir()) == []


class Failing(GrayDataset):
    """Raises at one image."""

    def __init__(self, length: int, error: BaseException, at: int) -> None:
        super().__init__(length, broken=(2,))
        self.error = error
        self.at = at

    def __getitem__(self, index: int) -> EncodedSample:
        if index == self.at:
            raise self.error
        return super().__getitem__(index)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("bug")])
def test_pack__failure_keeps_what_is_done(tmp_path: Path, error: BaseException) -> None:
    quietly({"train": GrayDataset(30, broken=(2,))}, tmp_path / "whole", shard_samples=3)
    whole = contents(tmp_path / "whole")
    last = gray_level(read(tmp_path / "whole")[-1])
    out = tmp_path / "out"
    with pytest.raises(type(error)) as info:
        quietly({"train": Failing(30, error, at=last)}, out, shard_samples=3)
    done = [name for name in contents(out) if name.endswith(".tar")]
    note = f"{len(done)} of 10 shards are done: the same command goes on from there"
    assert len(done) == 9 and info.value.__notes__ == [note]
    assert set(contents(out)) == {*done, "plan.json"}
    times = {name: (out / name).stat().st_mtime_ns for name in done}
    report = quietly({"train": GrayDataset(30, broken=(2,))}, out, shard_samples=3)
    assert contents(out) == whole
    assert {name: (out / name).stat().st_mtime_ns for name in done} == times
    assert [image.name for image in report.skipped] == ["2.png"]


def test_pack__failure_before_the_first_shard_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "new"):
        with pytest.raises(RuntimeError):
            quietly({"train": Failing(1, RuntimeError("bug"), at=0)}, out)
        assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_pack__mended_images(tmp_path: Path) -> None:
    """Images that could not be read when their shard was written are packed when they can be."""
    sources = {"train": GrayDataset(20, broken=(3,)), "val": GrayDataset(3, broken=(0, 1, 2))}
    with pytest.raises(UserError, match=r"no readable image in val.* 4 of 5 shards are done: the"):
        quietly(sources, tmp_path / "out", shard_samples=5)
    whole = {"train": GrayDataset(20), "val": GrayDataset(3)}
    quietly(whole, tmp_path / "out", shard_samples=5)
    quietly(whole, tmp_path / "whole", shard_samples=5)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_pack__damaged_shard_and_leftovers_of_the_last_time(tmp_path: Path) -> None:
    sources = {"train": GrayDataset(20, broken=(3,))}
    quietly(sources, tmp_path / "whole", shard_samples=5)
    whole = contents(tmp_path / "whole")
    out = tmp_path / "out"
    with pytest.raises(RuntimeError):
        quietly({"train": Failing(20, RuntimeError("bug"), at=3)}, out, shard_samples=5)
    done = next(out.glob("*.tar"))
    done.write_bytes(done.read_bytes()[:3000])
    (out / f".{done.name}.abcd1234.tmp").write_text("half")
    (out / ".notes.tmp").write_text("mine")
    with pytest.raises(RuntimeError):
        quietly({"train": Failing(20, RuntimeError("bug"), at=3)}, out, shard_samples=5)
    assert not list(out.glob(".train*"))
    plan = json.loads((out / "plan.json").read_text())
    assert plan["sources"] == {"train": {"images": 20, "fingerprint": "gray 20"}}
    quietly(sources, out, shard_samples=5)
    assert contents(out) == {**whole, ".notes.tmp": b"mine"}


def test_pack__full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shard_writer, "_add_file", no_space)
    with pytest.raises(
        UserError, match=r"cannot write .*train-000000\.tar: No space left on device"
    ):
        quietly({"train": GrayDataset(3)}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("index.json", "already holds shards. Choose an empty folder"),
        ("train-000000.tar", "already holds shards. Choose an empty folder"),
        ("plan.json", r"cannot read .*plan\.json \(Expecting value.*Delete the folder"),
    ],
)
def test_pack__folder_in_use(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_text("old")
    with pytest.raises(UserError, match=message):
        quietly({"train": GrayDataset(3)}, tmp_path)
    assert contents(tmp_path) == {name: b"old"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard_samples": 0}, "images per shard must be at least 1, got 0"),
        ({"val_ratio": 1.0}, r"must be in \[0, 1\), got 1\.0"),
        ({"val_ratio": -0.1}, r"must be in \[0, 1\), got -0\.1"),
        ({"val_ratio": float("nan")}, r"must be in \[0, 1\), got nan"),
        ({"val_ratio": 0.9}, "holding out 0.9 of 3 images leaves none to train on"),
        ({"max_short_side_px": 0}, "the shorter side must be at least 1 px, got 0"),
        ({"seed": -1}, "the seed must not be negative, got -1"),
        ({"num_workers": -1}, "number of workers must not be negative, got -1"),
    ],
)
def test_pack__options_out_of_range(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        quietly({"train": GrayDataset(3)}, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_pack__classes_that_differ(tmp_path: Path) -> None:
    sources = {"train": GrayDataset(3), "val": GrayDataset(3, labelled=False)}
    with pytest.raises(UserError, match="train has 3, val has 0"):
        quietly(sources, tmp_path / "out")


def test_pack__other_plan(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        quietly({"train": Failing(9, RuntimeError("bug"), at=2)}, tmp_path, shard_samples=1)
    before = contents(tmp_path)
    changed = (
        "begun with other options: max_short_side_px was None, is 8; num_shards was 9, is 8; "
        "seed was 0, is 3; sources.train.fingerprint was gray 9, is gray 8; "
        "sources.train.images was 9, is 8"
    )
    with pytest.raises(UserError, match=changed):
        quietly({"train": GrayDataset(8)}, tmp_path, shard_samples=1, seed=3, max_short_side_px=8)
    assert contents(tmp_path) == before


def test_pack__two_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_swin.data.packing.locks.LOCK_WAIT_S", 0.05)

    class Nested(GrayDataset):
        def __getitem__(self, index: int) -> EncodedSample:
            with pytest.raises(UserError, match=f"another process is packing to {tmp_path}"):
                quietly({"train": GrayDataset(3)}, tmp_path)
            return super().__getitem__(index)

    assert quietly({"train": Nested(1)}, tmp_path).num_packed == 1


class Slow(GrayDataset):
    def __getitem__(self, index: int) -> EncodedSample:
        time.sleep(0.004)
        return super().__getitem__(index)


def pack_slowly(out: Path, num_workers: int) -> None:
    os.setpgid(0, 0)  # so that a signal can reach the workers as well
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    sources = {"train": Slow(90, broken=(5, 50, 51)), "test": Slow(20, broken=(7,))}
    quietly(sources, out, shard_samples=4, val_ratio=0.1, num_workers=num_workers)


def start(out: Path, num_workers: int, num_shards: int) -> multiprocessing.process.BaseProcess:
    """Starts packing, and returns when a number of shards are there."""
    process = multiprocessing.get_context("fork").Process(
        target=pack_slowly, args=(out, num_workers), daemon=False
    )
    process.start()
    while len(list(out.glob("*.tar"))) < num_shards:
        assert process.is_alive()
        time.sleep(0.001)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_pack__killed_many_times(tmp_path: Path, num_workers: int) -> None:
    moments = random.Random(num_workers)
    whole, out = tmp_path / "whole", tmp_path / "out"
    for num_shards in (1, 4, 9, 15, 21, 26):
        process = start(out, num_workers, num_shards)
        time.sleep(0.03 * moments.random())
        process.kill()
        process.join()
        assert (out / "plan.json").exists() and not (out / "index.json").exists()
        assert all(scan_tar(path).problem is None for path in out.glob("*.tar"))
    for folder in (whole, out):
        process = start(folder, num_workers, num_shards=0)
        process.join()
        assert process.exitcode == 0
    assert contents(out) == contents(whole)
    assert len(list(whole.glob("*.tar"))) == 29
    assert (whole / "skipped.txt").read_text().count("\n") == 4


def test_pack__interrupted(tmp_path: Path) -> None:
    process = start(tmp_path, num_workers=2, num_shards=3)
    os.killpg(process.pid or 0, signal.SIGINT)  # as a terminal does it: parent and workers
    process.join()
    assert process.exitcode == 1
    names = set(contents(tmp_path))
    assert "plan.json" in names
    assert all(name == "plan.json" or name.endswith(".tar") for name in names)


# What images become


class OneImage(GrayDataset):
    """A single image."""

    def __init__(self, data: bytes, extension: str = "png") -> None:
        super().__init__(1)
        self.data = data
        self.extension = extension

    def __getitem__(self, index: int) -> EncodedSample:
        return EncodedSample.of_image(self.data, self.extension, 0, "one")


def encoded(array: np.ndarray, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    if kind == "npy":
        np.save(content, array)
    else:
        Image.fromarray(array).save(content, kind, **options)
    return content.getvalue()


def noise(*shape: int, dtype: str = "uint8") -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 256, shape)
    return (values * 200).astype(dtype) if dtype == "uint16" else values.astype(dtype)


def packed(folder: Path, data: bytes, extension: str, **options: Any) -> tuple[str, bytes]:
    """Packs one image; gives what became of it."""
    report = quietly({"train": OneImage(data, extension)}, folder, **options)
    record = ShardDataset(report.index, "train")[0]
    return record.extension, record.data


@pytest.mark.parametrize(
    ("array", "kind", "expected"),
    [
        (noise(40, 60, 3), "jpeg", "jpg"),
        (noise(60, 40), "jpeg", "jpg"),
        (noise(40, 60, 3), "webp", "jpg"),
        (noise(40, 60, 4), "webp", "png"),  # JPEG has no alpha
        (noise(40, 60, 3), "png", "png"),
        (noise(40, 60, 4), "png", "png"),
        (noise(40, 60, dtype="uint16"), "png", "npy"),
        (noise(3, 40, 60), "npy", "png"),
        (noise(7, 40, 60), "npy", "npy"),
        (noise(2, 40, 60, dtype="uint16"), "npy", "npy"),
        (noise(5, 40, 60, dtype="float32"), "npy", "npy"),
        (noise(1, 40, 60, dtype="int16"), "npy", "npy"),
    ],
)
def test_pack__max_short_side(tmp_path: Path, array: np.ndarray, kind: str, expected: str) -> None:
    data = encoded(array, kind)
    extension, small = packed(tmp_path / "small", data, kind, max_short_side_px=20)
    info, was = probe_image(small), probe_image(data)
    assert extension == expected
    assert sorted((info.height_px, info.width_px)) == [20, 30]
    assert (info.height_px < info.width_px) == (was.height_px < was.width_px)
    assert info.channels == was.channels
    assert info.dtype == (was.dtype if was.dtype != "int16" else "float32")
    kept = packed(tmp_path / "kept", data, kind, max_short_side_px=40)
    assert kept[1] == data


def test_pack__max_short_side_averages(tmp_path: Path) -> None:
    """A ramp keeps its slope and its mean, whatever the type; nothing is clipped or rescaled."""
    ramp = np.tile(np.arange(64) * 1000.0, (32, 1))
    for dtype in ("uint16", "float32"):
        folder = tmp_path / dtype
        data = encoded(ramp.astype(dtype)[None], "npy")
        _, small = packed(folder, data, "npy", max_short_side_px=16)
        values = np.load(io.BytesIO(small))
        assert values.dtype == dtype and values.shape == (1, 16, 32)
        assert values.mean() == pytest.approx(ramp.mean(), rel=1e-4)
        np.testing.assert_allclose(np.diff(values[0, 0, 2:-2].astype(float)), 2000, atol=1)


def test_pack__jpeg_quality(tmp_path: Path) -> None:
    smooth = np.asarray(
        Image.fromarray(noise(8, 8, 3)).resize((256, 256), Image.Resampling.BICUBIC)
    )
    data = encoded(smooth, "jpeg", quality=98)
    _, small = packed(tmp_path, data, "jpg", max_short_side_px=128)
    expected = encoded(np.zeros((8, 8, 3), np.uint8), "jpeg", quality=92)
    assert (
        Image.open(io.BytesIO(small)).quantization == Image.open(io.BytesIO(expected)).quantization
    )
    reference = Image.open(io.BytesIO(data)).resize((128, 128), Image.Resampling.BILINEAR)
    difference = np.asarray(reference, float) - np.asarray(Image.open(io.BytesIO(small)), float)
    assert np.abs(difference).mean() < 2


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "npy"])
def test_pack__a_scaled_file_is_never_larger(tmp_path: Path, kind: str) -> None:
    """A photograph of low quality would grow at quality 92; it stays as it is, to the byte."""
    smooth = np.asarray(
        Image.fromarray(noise(8, 8, 3)).resize((300, 280), Image.Resampling.BICUBIC)
    )
    options = {"jpeg": {"quality": 10}, "png": {"optimize": True}, "webp": {"quality": 1}}
    data = encoded(smooth, kind, **options.get(kind, {}))
    extension, kept = packed(tmp_path / "kept", data, kind, max_short_side_px=279)
    assert len(kept) <= len(data)
    if kind in ("jpeg", "webp"):
        assert kept == data and extension == kind.replace("jpeg", "jpg")
    small = packed(tmp_path / "small", data, kind, max_short_side_px=8)[1]
    assert len(small) < len(data) and probe_image(small).height_px == 8


@pytest.mark.parametrize(("kind", "expected"), [("jpeg", "jpg"), ("png", "png"), ("webp", "jpg")])
def test_pack__scaling_keeps_the_orientation(tmp_path: Path, kind: str, expected: str) -> None:
    exif = Image.Exif()
    exif[274] = 6
    data = encoded(noise(60, 80, 3), kind, exif=exif)
    extension, small = packed(tmp_path, data, kind, max_short_side_px=30)
    assert extension == expected and orientation_of(small) == 6
    assert probe_image(small) == (30, 40, 3, "uint8")


def test_pack__what_cannot_keep_its_orientation_is_not_scaled(tmp_path: Path) -> None:
    file = io.BytesIO()
    tag = [(274, "H", 1, 6, True)]
    tifffile.imwrite(file, noise(40, 60, dtype="uint16"), extratags=tag)
    assert packed(tmp_path, file.getvalue(), "tif", max_short_side_px=20)[1] == file.getvalue()


@pytest.mark.parametrize("quality", [1, 50, 100])
def test_pack__jpeg_quality_is_an_option(tmp_path: Path, quality: int) -> None:
    data = encoded(noise(64, 64, 3), "jpeg", quality=100)
    _, small = packed(tmp_path, data, "jpg", max_short_side_px=32, jpeg_quality=quality)
    expected = encoded(noise(8, 8, 3), "jpeg", quality=quality)
    tables = [Image.open(io.BytesIO(each)).quantization for each in (small, expected)]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("quality", [0, 101, -1])
def test_pack__jpeg_quality_out_of_range(tmp_path: Path, quality: int) -> None:
    with pytest.raises(UserError, match=f"quality of JPEG must be from 1 to 100, got {quality}"):
        packed(tmp_path, encoded(noise(8, 8, 3), "jpeg"), "jpg", jpeg_quality=quality)
    assert list(tmp_path.iterdir()) == []


def test_pack__verify(tmp_path: Path) -> None:
    """A cut JPEG has a sound header: only decoding it tells."""
    data = encoded(noise(40, 60, 3), "jpeg")[:-500]
    assert packed(tmp_path / "unverified", data, "jpg") == ("jpg", data)
    with pytest.raises(UserError, match=r"no readable image .*one \(OSError: .*truncated"):
        packed(tmp_path / "verified", data, "jpg", verify=True)


def test_pack__shards_shuffled_anew(tmp_path: Path) -> None:
    quietly({"train": GrayDataset(40)}, tmp_path / "a", val_ratio=0.1)
    quietly(open_datasets(tmp_path / "a"), tmp_path / "b", seed=1)
    for split, number in {"train": 36, "val": 4}.items():
        first, second = read(tmp_path / "a", split), read(tmp_path / "b", split)
        assert len(first) == number
        labels = [{gray_level(s): int(s["cls"]) for s in samples} for samples in (first, second)]
        assert labels[0] == labels[1]
    assert list(map(gray_level, read(tmp_path / "a"))) != list(
        map(gray_level, read(tmp_path / "b"))
    )
    assert load_index(tmp_path / "b").classes == ("a", "b", "c")


def test_pack__progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ssl_swin.display.pace.FIRST_S", 0.0)  # a line at once
    pack({"train": GrayDataset(12, broken=(3,))}, tmp_path, num_workers=0)
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        r"packing 12 of 12 images · \S+ images/s · \d+\.\d MB/s, 1 bad · done in \d+ s", last
    )

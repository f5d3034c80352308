"""`ssl-swin embed`: the numbers, the files, and what stays of work that was cut short."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from disks import small_disk
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from torch import Tensor
from worlds import MEAN, STD, draw, hand_on

import ssl_swin
from ssl_swin.cli import main
from ssl_swin.data.packing.pack import pack
from ssl_swin.data.sources.opening import open_datasets
from ssl_swin.data.transforms import CentreCrop
from ssl_swin.encoders.swin import SwinEncoder
from ssl_swin.inference import parts as parts_module
from ssl_swin.inference import run as run_module
from ssl_swin.inference.vector_files import read_vectors
from ssl_swin.inference.vectors import rows_of
from ssl_swin.pixels import normalize
from ssl_swin.weights.backbone import save_backbone

NUM_IMAGES = 22
OPTIONS = ("--workers", "0", "--device", "cpu", "--batch-size", "4")
Build = Callable[..., SwinEncoder]


@pytest.fixture
def encoder(tmp_path: Path, tiny_encoder: Build, monkeypatch: pytest.MonkeyPatch) -> SwinEncoder:
    """The encoder of `backbone`, beside `photos`, in a working directory of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parts_module, "PART_IMAGES", 8)
    draw(Path("photos"), NUM_IMAGES)
    return hand_on(Path("backbone"), tiny_encoder)


def embed(out: str, *options: str, images: str = "photos") -> int:
    return main(["embed", "backbone", images, out, *OPTIONS, *options])


def by_hand(encoder: SwinEncoder, paths: list[Path], stage: int) -> Tensor:
    """The mean over a stage's map of each image alone, without any of our loading."""
    crop = CentreCrop(encoder.img_size_px, crop_ratio=0.875)
    vectors = []
    for path in paths:
        pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
        view = crop.on_pixels(pixels, np.random.default_rng(0))
        with torch.no_grad():
            maps = encoder.stages(normalize(view[None], MEAN, STD))
        vectors.append(maps[stage - 1].mean(dim=(2, 3)))
    return torch.cat(vectors)


@pytest.mark.parametrize("stage", [2, 4])
def test_embed__equals_the_encoder_by_hand(encoder: SwinEncoder, stage: int) -> None:
    paths = sorted(Path("photos").rglob("*.png"))
    expected = by_hand(encoder, paths, stage)
    assert expected.std(dim=0).min() > 1e-5, "images that all look alike would prove nothing"
    assert embed("v.npy", "--stage", str(stage)) == 0
    names, labels, vectors = read_vectors(Path("v.npy"))
    torch.testing.assert_close(torch.from_numpy(vectors), expected, rtol=1e-4, atol=1e-5)
    assert names == [str(path.relative_to("photos")) for path in paths]
    assert labels == [path.parent.name for path in paths]
    in_python = ssl_swin.embed(ssl_swin.load_backbone("backbone"), "photos", stage=stage)
    assert in_python.names == names
    torch.testing.assert_close(in_python.vectors, expected, rtol=1e-4, atol=1e-5)


def test_embed__max_and_length_one(encoder: SwinEncoder) -> None:
    assert embed("max.npy", "--pooling", "max") == embed("mean.npy") == 0
    assert embed("unit.npy", "--normalize") == 0
    mean, largest, unit = (np.load(f"{name}.npy") for name in ("mean", "max", "unit"))
    assert (largest > mean).all()
    np.testing.assert_allclose(unit, mean / np.linalg.norm(mean, axis=1)[:, None], rtol=1e-5)


def test_embed__batch_size_and_workers_change_rounding_alone(encoder: SwinEncoder) -> None:
    assert embed("four.npy") == embed("one.npy", "--batch-size", "1") == 0
    assert embed("workers.npy", "--workers", "2") == 0
    four, one = np.load("four.npy"), np.load("one.npy")
    np.testing.assert_allclose(one, four, rtol=1e-4, atol=1e-5)
    assert Path("workers.npy").read_bytes() == Path("four.npy").read_bytes()


def test_embed__half_precision_is_near(encoder: SwinEncoder) -> None:
    assert embed("whole.npy") == embed("half.npy", "--precision", "bfloat16") == 0
    whole, half = np.load("whole.npy"), np.load("half.npy")
    assert half.dtype == np.float32
    assert 0 < np.abs(half - whole).max() < 0.05 * np.abs(whole).max()


@pytest.mark.parametrize("ending", ["npy", "parquet", "safetensors", "csv"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_embed__every_kind_of_file_says_the_same(
    encoder: SwinEncoder, ending: str, dtype: str
) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    expected = ssl_swin.embed(ssl_swin.load_backbone("backbone"), "photos", batch_size=4)
    assert embed(f"v.{ending}", "--dtype", dtype) == 0
    names, labels, vectors = read_vectors(Path(f"v.{ending}"))
    wanted = expected.vectors.numpy().astype(dtype)
    np.testing.assert_array_equal(vectors.astype(dtype), wanted)
    assert names == expected.names
    assert labels == [name.partition("/")[0] for name in names]


def test_embed__files_are_those_of_other_readers(encoder: SwinEncoder) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    for ending in ("npy", "parquet", "safetensors"):
        assert embed(f"v.{ending}") == 0
    vectors = np.load("v.npy")
    table = pq.read_table("v.parquet")
    assert table.column_names == ["name", "label", "embedding"]
    assert pq.ParquetFile("v.parquet").metadata.num_row_groups == 3
    np.testing.assert_array_equal(np.stack(table["embedding"].to_numpy()), vectors)
    with safe_open("v.safetensors", "np") as file:
        np.testing.assert_array_equal(file.get_tensor("vectors"), vectors)
        assert json.loads(file.metadata()["names"]) == table["name"].to_pylist()
    assert not list(Path(".").glob("*.parts"))


def test_embed__shards_lists_and_splits(encoder: SwinEncoder) -> None:
    options = {"shard_samples": 5, "val_ratio": 0.3, "num_workers": 0, "progress": False}
    pack(open_datasets("photos"), "shards", **options)
    assert embed("all.npy", images="shards") == embed("val.npy", "--split", "val", images="shards")
    whole, val = read_vectors(Path("all.npy")), read_vectors(Path("val.npy"))
    assert len(set(whole.names)) == NUM_IMAGES > len(val.names) > 0
    assert [n for n in whole.names if n.startswith("val/")] == [f"val/{n}" for n in val.names]
    np.testing.assert_allclose(whole.vectors[-1], val.vectors[-1], rtol=1e-4, atol=1e-5)
    remote = ("--cache-dir", "cache")
    assert embed("far.npy", *remote, images="pipe:cat shards/{name}") == 0
    assert Path("far.npy").read_bytes() == Path("all.npy").read_bytes()
    assert Path("far.names.csv").read_bytes() == Path("all.names.csv").read_bytes()
    Path("some.csv").write_text("file,species\nphotos/dog/021.png,b\nphotos/cat/003.png,a\n")
    Path("some.txt").write_text("photos/dog/021.png\n\nphotos/cat/003.png\n")
    assert embed("csv.npy", images="some.csv") == embed("txt.npy", images="some.txt") == 0
    table, lines = read_vectors(Path("csv.npy")), read_vectors(Path("txt.npy"))
    assert table.names == lines.names == ["photos/dog/021.png", "photos/cat/003.png"]
    assert (table.labels, lines.labels) == (["b", "a"], ["", ""])
    assert Path("txt.names.csv").read_text().splitlines()[0] == "name"


def test_embed__lists_bad_images_up_to_a_limit(
    encoder: SwinEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = dict(zip(*ssl_swin.embed(ssl_swin.load_backbone("backbone"), "photos"), strict=True))
    for name in ("cat/002.png", "dog/021.png"):
        (Path("photos") / name).write_bytes(b"no image")
    assert embed("v.npy", "--max-bad", "1") == 2
    assert "2 of 22 images could not be read, more than the 1 that --max-bad allows" in (
        capsys.readouterr().err
    )
    assert not Path("v.npy").exists()
    assert embed("v.npy") == 0
    assert "2 images could not be read, listed in v.npy.bad.csv" in capsys.readouterr().out
    with open("v.npy.bad.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["name", "reason"]
    assert [row[0] for row in rows] == ["cat/002.png", "dog/021.png"]
    names, _, vectors = read_vectors(Path("v.npy"))
    assert len(names) == 20
    Path("again.npy.bad.csv").write_text("of an earlier file")
    assert embed("again.npy", "--split", "train") == 0
    assert Path("again.npy.bad.csv").read_bytes() == Path("v.npy.bad.csv").read_bytes()
    Path("v.npy").unlink()
    draw(Path("photos"), NUM_IMAGES)
    assert embed("v.npy") == 0
    assert not Path("v.npy.bad.csv").exists()
    assert "cat/002.png" not in names
    for name, vector in zip(names, vectors, strict=True):
        np.testing.assert_allclose(vector, expected[name], rtol=1e-4, atol=1e-5)


def stopping_after(num_batches: int) -> Callable[..., Iterator[object]]:
    """The results of some batches, then a Ctrl-C."""

    def rows(*args: object, **options: object) -> Iterator[object]:
        for number, each in enumerate(rows_of(*args, **options)):  # type: ignore[arg-type]
            if number == num_batches:
                raise KeyboardInterrupt
            yield each

    return rows


@pytest.mark.parametrize("ending", ["npy", "parquet", "safetensors", "csv"])
def test_embed__goes_on_to_the_same_bytes(
    encoder: SwinEncoder,
    ending: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    assert embed(f"whole.{ending}") == 0
    out = f"cut.{ending}"
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "rows_of", stopping_after(3))
        assert embed(out) == 130
    assert "8 of 22 images are done and kept in cut." in capsys.readouterr().err
    assert not Path(out).exists()
    (Path(f"{out}.parts") / ".000001.safetensors.abcdefgh.tmp").write_bytes(b"half")
    read: list[int] = []
    original = rows_of

    def counted(*args: object, **options: object) -> Iterator[object]:
        for each in original(*args, **options):  # type: ignore[arg-type]
            read.append(each.num_images)
            yield each

    monkeypatch.setattr(run_module, "rows_of", counted)
    assert embed(out) == 0
    assert "going on after 8 of 22 images" in capsys.readouterr().out
    assert sum(read) == 14
    assert Path(out).read_bytes() == Path(f"whole.{ending}").read_bytes()
    assert not Path(f"{out}.parts").exists()


def test_embed__leaves_a_folder_of_others_alone(
    encoder: SwinEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    others = Path("v.npy.parts/holiday.jpg")
    others.parent.mkdir()
    others.write_bytes(b"a photograph")
    assert embed("v.npy") == 2
    assert "v.npy.parts is for the parts of v.npy, and holds other files, among them holiday" in (
        capsys.readouterr().err
    )
    assert others.read_bytes() == b"a photograph"


def test_embed__takes_the_backbones_own_crop(encoder: SwinEncoder) -> None:
    save_backbone(Path("backbone"), encoder, mean=MEAN, std=STD, card="", crop_ratio=0.5)
    assert embed("own.npy") == 0
    assert embed("same.npy", "--crop-ratio", "0.5") == 0
    assert embed("other.npy", "--crop-ratio", "0.875") == 0
    own, same, other = (np.load(f"{name}.npy") for name in ("own", "same", "other"))
    np.testing.assert_array_equal(own, same)
    assert np.abs(own - other).max() > 1e-3
    loaded = ssl_swin.load_backbone("backbone")
    assert loaded.crop_ratio == 0.5
    found = ssl_swin.embed(loaded, "photos", batch_size=4).vectors
    np.testing.assert_array_equal(found, own)


@pytest.mark.parametrize("what", ["weights", "images", "pooling"])
def test_embed__starts_over_when_something_changed(
    encoder: SwinEncoder,
    tiny_encoder: Build,
    what: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "rows_of", stopping_after(4))
        assert embed("v.npy") == 130
    options: tuple[str, ...] = ()
    if what == "weights":
        hand_on(Path("backbone"), tiny_encoder, seed=1)
    elif what == "images":
        Image.new("RGB", (90, 90)).save("photos/cat/000.png")  # another size of file
    else:
        options = ("--pooling", "max")
    capsys.readouterr()
    assert embed("v.npy", *options) == 0
    told = capsys.readouterr().out
    assert f"starting over: {what} changed since the 16 images of before" in told
    assert embed("fresh.npy", *options) == 0
    assert Path("v.npy").read_bytes() == Path("fresh.npy").read_bytes()


def test_embed__one_process_at_a_time(
    encoder: SwinEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = parts_module.Parts(Path("v.npy"), num_images=NUM_IMAGES, batch_size=4)
    with parts.held({}):
        assert embed("v.npy") == 2
    assert "another process is writing v.npy" in capsys.readouterr().err


def test_embed__float16_that_is_too_small_goes_on_as_float32(
    encoder: SwinEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    with torch.no_grad():
        encoder.model.norm.weight.mul_(1e6)
    ssl_swin.save_backbone("backbone", encoder, mean=MEAN, std=STD, card="")
    assert embed("v.npy", "--dtype", "float16") == 2
    assert "does not fit float16: write float32" in capsys.readouterr().err
    assert embed("v.npy") == 0
    assert "going on after 22 of 22 images" in capsys.readouterr().out


KILLED = """
import sys, time
from ssl_swin.inference import parts, run
parts.PART_IMAGES = 8
rows_of = run.rows_of
def slowly(*args, **options):
    for rows in rows_of(*args, **options):
        time.sleep(0.2)
        yield rows
run.rows_of = slowly
from ssl_swin.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGKILL, -9), (signal.SIGTERM, -15), (signal.SIGINT, 130)],
)
def test_embed__killed_in_mid_flight(encoder: SwinEncoder, number: int, status: int) -> None:
    assert embed("whole.npy") == 0
    words = ["embed", "backbone", "photos", "v.npy", *OPTIONS, "--workers", "2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(ssl_swin.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, *words], env=environment, stderr=subprocess.DEVNULL
    )
    limit_s = time.monotonic() + 120
    while not Path("v.npy.parts/000000.safetensors").exists() and time.monotonic() < limit_s:
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(60) == status
    assert not Path("v.npy").exists()
    assert embed("v.npy") == 0
    assert Path("v.npy").read_bytes() == Path("whole.npy").read_bytes()


def vectors_of(path: str) -> NDArray[np.float32]:
    return np.load(path)


@pytest.mark.slow
def test_embed__full_disk(
    encoder: SwinEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No room for the second of three parts: one message, and what is written is kept."""
    assert embed("whole.npy") == 0
    with small_disk(tmp_path / "disk", 16384) as disk:
        assert embed("disk/v.npy") == 2
        told = capsys.readouterr().err.strip().splitlines()
        assert len(told) == 1
        assert "No space left on device" in told[0]
        assert "disk/v.npy.parts" in told[0]
        assert not Path("disk/v.npy").exists()
        subprocess.run(["mount", "-o", "remount,size=9999999", str(disk)], check=True)
        assert embed("disk/v.npy") == 0
        np.testing.assert_array_equal(vectors_of("disk/v.npy"), vectors_of("whole.npy"))

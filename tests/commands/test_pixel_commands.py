"""What pack, stats, check and show say of pixels, and that a run can use what they propose."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from numpy.typing import NDArray
from PIL import ExifTags, Image

from ssl_swin.cli import main
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.index import load_index

DRAW = np.random.default_rng(0)
NUM_IMAGES = 8
Write = Callable[[Path, int], None]


def floats(number: int, hole: float) -> NDArray[np.float32]:
    """Four bands around 280, 10 of 80 columns without data."""
    values = DRAW.normal(280, 5, (4, 64, 80)).astype(np.float32)
    values[:, :, :10] = hole
    return values


def write_npy(*shape: int) -> Write:
    return lambda path, number: np.save(
        path.with_suffix(".npy"), DRAW.integers(0, 65535, shape).astype(np.uint16)
    )


def write_tiff(hole: float, **options: Any) -> Write:
    return lambda path, number: tifffile.imwrite(
        path.with_suffix(".tif"), floats(number, hole), photometric="minisblack", **options
    )


def write_photo(path: Path, number: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6 if number % 2 else 1
    levels = DRAW.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(levels).save(path.with_suffix(".jpg"), exif=exif)


@pytest.fixture
def packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Writes images and packs them all to train; gives the lines between the counts and next."""

    def pack(write: Write, *options: str) -> list[str]:
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        for number in range(NUM_IMAGES):
            write(folder / f"{number}.x", number)
        command = ["pack", str(folder), str(tmp_path / "shards"), "--workers", "0"]
        assert main([*command, "--val-ratio", "0", *options]) == 0
        lines = capsys.readouterr().out.splitlines()
        first = next(i for i, line in enumerate(lines) if "classes" in line) + 1
        last = [line for line in lines if line.startswith("next: ssl-swin pretrain")]
        return lines[first : len(lines) - len(last)]

    return pack


def stats(tmp_path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[str]:
    assert main(["stats", str(tmp_path / "shards"), "--workers", "0", *options]) == 0
    return capsys.readouterr().out.splitlines()


def must_say_so(tmp_path: Path, kind: str) -> str:
    return (
        f"images of {kind}: data.channels, data.dtype, data.mean and data.std must say so; see: "
        f"ssl-swin stats {tmp_path}/shards"
    )


def test_pack__bands_of_square_arrays(packed: Callable[..., list[str]], tmp_path: Path) -> None:
    assert packed(write_npy(16, 16, 40)) == [must_say_so(tmp_path, "40 channels, uint16")]


def test_pack__channels_that_cannot_be_told(
    packed: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [note] = packed(write_npy(20, 30, 40))
    assert note.startswith("note: where the channels are cannot be told: train-")
    assert (
        " has shape (20, 30, 40): 20 channels of 30 x 40 px, or 40 of 20 x 30; set data.channels, "
        "or data.channel_axis=first or last (--channel-axis of ssl-swin pack and stats)"
    ) in note
    assert main(["stats", str(tmp_path / "shards"), "--workers", "0"]) == 2
    assert "or data.channel_axis=first or last" in capsys.readouterr().err
    lines = stats(tmp_path, capsys, "--channel-axis", "last")
    assert "stored as: 40 channels uint16" in lines and lines[-1] == "channel_axis: last"
    assert main(["check", str(tmp_path / "shards"), "--workers", "0"]) == 0


def test_pack__scales_arrays_whose_axis_is_told(
    packed: Callable[..., list[str]], tmp_path: Path
) -> None:
    packed(write_npy(20, 30, 40), "--max-short-side-px", "10", "--channel-axis", "last")
    [sample] = list(map(ShardDataset(load_index(tmp_path / "shards"), "train").__getitem__, [0]))
    assert np.load(io.BytesIO(sample.data)).shape == (10, 15, 40)


@pytest.mark.parametrize("hole", [float("nan"), float("inf")])
def test_pack__values_that_are_not_finite(
    hole: float,
    packed: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert packed(write_tiff(hole)) == [
        "note: 8 of 8 images hold values that are not finite: set data.fill to what is to stand in "
        "their place, such as data.fill=0",
        must_say_so(tmp_path, "4 channels, float32"),
    ]
    lines = stats(tmp_path, capsys)
    assert (
        "without data: 12.5 % of the values, in 8 of 8 images (not finite, or marked by nodata); "
        "they do not count above, and fill takes their place"
    ) in lines
    proposed = yaml.safe_load("\n".join(lines[lines.index("channels: 4") :]))
    assert np.allclose(proposed["mean"], 280, atol=1) and np.allclose(proposed["std"], 5, atol=0.5)
    assert proposed["fill"] == proposed["mean"]  # neutral: normalised, it is 0
    assert main(["check", str(tmp_path / "shards"), "--workers", "0"]) == 0
    printed = capsys.readouterr().out
    assert "values: images with values that are not finite, which need data.fill: 8 in train" in (
        printed
    )
    assert printed.endswith("sound: the shards are what the index says, 8 images decoded\n")


def test_pack__a_continued_packing_counts_the_finished_shards_too(
    packed: Callable[..., list[str]], tmp_path: Path
) -> None:
    notes = packed(write_tiff(float("nan")))
    shards = tmp_path / "shards"
    plan = {path.name: path.read_bytes() for path in shards.glob("*.tar")}
    for path in shards.iterdir():
        path.unlink()
    import ssl_swin.data.packing.shard_writer as writer

    real = writer.ShardWriter._write
    num_written = 0

    def dies_after_two(self: Any, job: Any, path: Path) -> Any:
        nonlocal num_written
        num_written += 1
        if num_written > 2:
            raise KeyboardInterrupt
        return real(self, job, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer.ShardWriter, "_write", dies_after_two)
        command = ["pack", str(tmp_path / "images"), str(shards), "--workers", "0"]
        assert main([*command, "--val-ratio", "0"]) == 130
    assert packed(lambda path, number: None) == notes
    assert {path.name: path.read_bytes() for path in shards.glob("*.tar")} == plan


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"extratags": [(42113, "s", 0, "-9999", True)]}, "say that -9999 marks pixels without"),
        ({}, "hold -9999, which often marks pixels without"),
    ],
)
def test_pack__marks_of_no_data(
    options: dict[str, Any],
    says: str,
    packed: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    note, _ = packed(write_tiff(-9999, **options))
    assert note == (
        f"note: 8 of 8 images looked at {says} data: set data.nodata=-9999 and, to stand in their "
        "place, data.fill"
    )
    assert any("--nodata=-9999 leaves these out" in line for line in stats(tmp_path, capsys))
    lines = stats(tmp_path, capsys, "--nodata", "-9999")
    proposed = yaml.safe_load("\n".join(lines[lines.index("channels: 4") :]))
    assert np.allclose(proposed["mean"], 280, atol=1) and proposed["nodata"] == -9999


def test_pack__scaling_does_not_mix_missing_pixels_with_others(
    packed: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tag = {"extratags": [(42113, "s", 0, "-9999", True)]}
    packed(write_tiff(-9999, **tag), "--max-short-side-px", "16", "--nodata=-9999", "--fill", "280")
    small = np.load(io.BytesIO(ShardDataset(load_index(tmp_path / "shards"), "train")[0].data))
    assert small.shape == (4, 16, 20) and 270 < small.min() < small.max() < 290
    command = ["pack", str(tmp_path / "images"), str(tmp_path / "other"), "--workers", "0"]
    assert main([*command, "--max-short-side-px", "16"]) == 2
    assert "which scaling would mix with others: add --nodata=-9999 --fill" in (
        capsys.readouterr().err
    )
    assert main([*command, "--nodata", "-9999"]) == 2
    assert capsys.readouterr().err == (
        "ssl-swin: --nodata -9999 marks pixels without data; give the value to put in their place, "
        "such as --fill 0\n"
    )


def test_stats__bands(
    packed: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed(write_npy(5, 16, 16))
    lines = stats(tmp_path, capsys, "--bands", "4,0,1")
    proposed = yaml.safe_load("\n".join(lines[lines.index("channels: 3") :]))
    whole = stats(tmp_path, capsys)
    of_all = yaml.safe_load("\n".join(whole[whole.index("channels: 5") :]))
    assert proposed["bands"] == [4, 0, 1]
    assert proposed["mean"] == [of_all["mean"][band] for band in (4, 0, 1)]
    assert main(["stats", str(tmp_path / "shards"), "--workers", "0", "--bands", "0,5"]) == 2
    assert "has 5 channels, 0 to 4; data.bands is [0, 5]" in capsys.readouterr().err


def test_pack__orientation(
    packed: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert packed(write_photo) == [
        "note: 4 of 8 images looked at have an EXIF orientation, which has no effect unless you "
        "set data.exif_rotation=true"
    ]
    lines = stats(tmp_path, capsys)
    assert "note: 4 of 8 images have an EXIF orientation; exif_rotation: true would turn them" in (
        lines
    )
    assert "height: 40 to 40 px, median 40" in lines
    lines = stats(tmp_path, capsys, "--exif-rotation")
    assert "height: 40 to 60 px, median 50" in lines and lines[-1] == "exif_rotation: true"


def test_pack__limits(
    packed: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(path: Path, number: int) -> None:
        Image.new("RGB", (20, 10 + number)).save(path.with_suffix(".png"))

    assert packed(write, "--max-image-pixels", "260") == [
        f"left out: 4 unreadable images, listed in {tmp_path}/shards/skipped.txt"
    ]
    skipped = (tmp_path / "shards/skipped.txt").read_text().splitlines()
    assert sorted(skipped)[0].startswith(
        "4.png: is 14 x 20 px (height x width); max_image_pixels is 260 (raise it by"
    )
    command = ["check", str(tmp_path / "shards"), "--workers", "0"]
    assert main([*command, "--max-image-bytes", str(3 * 20 * 12)]) == 1
    assert "max_image_bytes is 720 (raise it by" in capsys.readouterr().out
    assert main([*command, "--max-image-pixels", "0"]) == 2
    told = "ssl-swin: --max-image-pixels must be a whole number of at least 1, got '0'"
    assert capsys.readouterr().err.startswith(told)


def test_check__a_report_that_is_a_folder(
    packed: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed(write_photo)
    command = ["check", str(tmp_path / "shards"), "--workers", "0", "--report", str(tmp_path)]
    assert main(command) == 2
    assert capsys.readouterr().err == (
        f"ssl-swin: --report {tmp_path} is a folder; give the name of a file in it\n"
    )


@pytest.mark.parametrize(
    "command",
    [
        ["pack", "images", "out", "--fill", "x"],
        ["pack", "images", "out", "--jpeg-quality", "x"],
        ["stats", "shards", "--bands", "x"],
        ["stats", "shards", "--channel-axis", "middle"],
        ["check", "shards", "--max-image-pixels", "x"],
        ["show", "data=shards"],
    ],
)
def test_options_of_other_types__a_short_message(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("ssl-swin: --")
    assert told.endswith(f"; see ssl-swin {command[0]} --help")


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("x.nope", "--out {out}: the picture is a PNG; give a name that ends in .png, such as"),
        (
            "x",
            "--out {out}: the picture is a PNG; give a name that ends in .png, such as {out}.png",
        ),
        (".", "is a folder; give the name of a file in it"),
    ],
)
def test_show__places_that_no_picture_can_have(
    out: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / out
    assert main(["show", "data=shards", "data.root=absent", "--out", str(place)]) == 2
    assert message.format(out=place) in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


SHOW_MISTAKES = {
    "data.std=[0,0,0]": "data.std must be a list of numbers above 0, got [0, 0, 0]",
    "data.mean=[127,127,127]": "data.mean of uint8 pixels must be from 0 to 1 (levels over the "
    "full scale); it is [127, 127, 127]; divide levels by 255. ssl-swin stats measures it",
    "data.mean=[nan,0,0]": "data.mean must be a list of numbers, got [nan, 0, 0]",
    "data.mean=[0.5]": "data.mean needs one value per channel: it has 1, and data.channels is 3",
    "batch_size=0": "batch_size must be a whole number of at least 1, got 0",
    "batch_size=abc": "batch_size must be a whole number of at least 1, got 'abc'",
    "model.img_size_px=97": "an image side of 97 px does not divide into patches",
    "data.bands=[0,1]": "data.bands=[0, 1] chooses 2 bands, and data.channels is 3",
    "data.bands=[0,1,-1]": "data.bands must be a list of whole numbers of at least 0",
    "data.nodata=-9999": "data.nodata=-9999 marks pixels without data; give the value",
    "data.fill=[0,1]": "data.fill must be one number or one for each channel: it has 2",
    "data.exif_rotation=maybe": "data.exif_rotation must be true or false, got 'maybe'",
    "data.channel_axis=middle": "data.channel_axis must be first or last or null, got 'middle'",
    "data.max_image_pixels=0": "data.max_image_pixels must be a whole number of at least 1, got 0",
    "augment.crop_scale=[2,3]": "augment.crop_scale must be a list of 2 numbers in (0, 1]",
    "data=null": "data=null: data is a group, choose one of: ",
}


@pytest.mark.slow
@pytest.mark.parametrize("setting", SHOW_MISTAKES)
def test_show__mistakes_in_settings(
    setting: str,
    packed: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    packed(write_photo)
    settings = ["data=shards", f"data.root={tmp_path}/shards", "batch_size=4", setting]
    assert main(["show", *settings, "--out", str(tmp_path / "x.png")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert SHOW_MISTAKES[setting] in error
    assert not (tmp_path / "x.png").exists()


@pytest.mark.slow
def test_show__chosen_bands_and_filled_pixels(
    packed: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed(write_tiff(float("nan")))
    settings = ["data=shards", f"data.root={tmp_path}/shards", "batch_size=4", "data.dtype=float32"]
    settings += ["data.mean=[280,280,280]", "data.std=[5,5,5]", "data.bands=[3,0,1]"]
    out = tmp_path / "x.png"
    assert main(["show", *settings, "data.fill=280", "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{out}: 4 images of epoch 0, 3 x")
    out.unlink()
    assert main(["show", *settings, "--out", str(out)]) == 2
    assert "set data.fill to what is to stand in their place" in capsys.readouterr().err

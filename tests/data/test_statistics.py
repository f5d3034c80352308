import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray
from PIL import Image

from ssl_swin.cli import main
from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.inspection.running_statistics import image_statistics, merge
from ssl_swin.data.inspection.statistics import ImageKind, choose_kind, measure_set
from ssl_swin.errors import UserError

RGB, GRAY = ImageKind(3, "uint8"), ImageKind(1, "uint8")


class ListDataset(ImageDataset):
    """Encoded images in memory."""

    classes: tuple[str, ...] = ()
    fingerprint = "0" * 16

    def __init__(self, *encoded: bytes) -> None:
        self.encoded = encoded

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> EncodedSample:
        return EncodedSample.of_image(self.encoded[index], "", None, f"image {index}")


def png(levels: NDArray[np.generic]) -> bytes:
    """Encodes (H, W) or (H, W, C)."""
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    return file.getvalue()


def npy(levels: NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.save(file, levels)
    return file.getvalue()


def random_levels(*shape: int, dtype: str = "uint8", high: int = 256) -> NDArray[np.generic]:
    return np.random.default_rng(shape).integers(high, size=shape).astype(dtype)


def measured(*encoded: bytes, num_images: int = 0, num_workers: int = 0, seed: int = 0):
    return measure_set(
        ListDataset(*encoded),
        num_images=num_images,
        seed=seed,
        num_workers=num_workers,
        progress=False,
    )


def test_measure_set__mean_and_std_of_all_pixels_together() -> None:
    """Images of different sizes: a mean of means would be another number."""
    images = [random_levels(4, 5, 3), random_levels(30, 20, 3) // 2, random_levels(1, 9, 3)]
    statistics = measured(*map(png, images))
    pixels = np.concatenate([image.reshape(-1, 3) for image in images])
    np.testing.assert_allclose(statistics.mean, pixels.mean(axis=0) / 255, rtol=1e-12)
    np.testing.assert_allclose(statistics.std, pixels.std(axis=0) / 255, rtol=1e-12)
    assert statistics.running.lowest.tolist() == pixels.min(axis=0).tolist()
    assert statistics.running.highest.tolist() == pixels.max(axis=0).tolist()
    assert statistics.running.num_pixels.tolist() == 3 * [4 * 5 + 30 * 20 + 9]
    assert sorted(statistics.heights_px.tolist()) == [1, 4, 30]
    assert sorted(statistics.widths_px.tolist()) == [5, 9, 20]


def test_measure_set__by_hand() -> None:
    """One pixel of 0 and three of 255: mean 3/4, deviation sqrt(3)/4."""
    statistics = measured(
        png(np.array([[0]], np.uint8)), png(np.array([[255, 255, 255]], np.uint8))
    )
    assert statistics.kind == GRAY
    assert statistics.mean.tolist() == pytest.approx([0.75])
    assert statistics.std.tolist() == pytest.approx([0.75**0.5 / 2])


def test_measure_set__16_bits_and_floats() -> None:
    levels = random_levels(6, 7, dtype="uint16", high=65536)
    deep = measured(png(levels))
    assert deep.kind == (1, "uint16")
    assert deep.mean.tolist() == pytest.approx([levels.mean() / 65535])
    bands = np.random.default_rng(0).normal(270, 5, (5, 40, 40)).astype(np.float32)
    warm = measured(npy(bands), npy(bands[:, :8] + 1e4))
    assert warm.kind == (5, "float32")
    pixels = np.concatenate([bands, bands[:, :8] + 1e4], axis=1).reshape(5, -1)
    np.testing.assert_allclose(warm.mean, pixels.astype(np.float64).mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(warm.std, pixels.astype(np.float64).std(axis=1), rtol=1e-9)


def test_join__does_not_cancel() -> None:
    """Sums of squared_deviations of such values would leave no digit of the deviation."""
    values = 1e9 + np.array([[[0.0, 1.0]]])
    moments = merge(image_statistics(values), image_statistics(values + 1))
    assert moments.mean.tolist() == [1e9 + 1]
    assert moments.std.tolist() == pytest.approx([0.5**0.5], rel=1e-12)


def test_measure_set__gray_among_rgb() -> None:
    gray, colour = random_levels(8, 8), random_levels(8, 8, 3)
    statistics = measured(png(gray), png(colour), png(colour), png(colour))
    assert statistics.kind == RGB
    assert statistics.kinds == {RGB: 3, GRAY: 1}
    assert statistics.num_with_fewer_channels == 1
    pixels = np.concatenate(
        [np.repeat(gray.reshape(-1, 1), 3, axis=1), *3 * [colour.reshape(-1, 3)]]
    )
    np.testing.assert_allclose(statistics.mean, pixels.mean(axis=0) / 255, rtol=1e-12)


@pytest.mark.parametrize(
    ("stored", "chosen"),
    [
        ({(3, "uint8"): 98, (1, "uint8"): 2}, (3, "uint8")),
        ({(1, "uint8"): 98, (3, "uint8"): 2}, (1, "uint8")),  # two colour scans in a gray set
        ({(1, "uint8"): 60, (3, "uint8"): 40}, (3, "uint8")),
        ({(3, "uint8"): 50, (4, "uint8"): 50}, (3, "uint8")),  # nobody makes alpha of nothing
        ({(1, "uint8"): 50, (4, "uint8"): 50}, (3, "uint8")),
        ({(1, "uint8"): 50, (2, "uint8"): 50}, (1, "uint8")),
        ({(4, "uint8"): 10}, (4, "uint8")),
        ({(1, "uint16"): 50, (1, "uint8"): 50}, (1, "uint16")),
        ({(1, "uint16"): 50, (1, "float32"): 50}, (1, "float32")),
        ({(6, "int16"): 10}, (6, "float32")),
        ({(6, "float32"): 60, (5, "float32"): 40}, (6, "float32")),
    ],
)
def test_choose_kind__mixed(stored: dict[tuple[int, str], int], chosen: tuple[int, str]) -> None:
    kinds = Counter({ImageKind(*kind): number for kind, number in stored.items()})
    assert choose_kind(kinds) == chosen


def test_measure_set__chooses_by_seed_and_counts_what_is_unreadable() -> None:
    encoded = [png(np.full((2, 2), level, np.uint8)) for level in range(40)]
    first, again, other = (measured(*encoded, num_images=10, seed=seed) for seed in (0, 0, 1))
    assert first.num_images == 10
    assert first.mean.tolist() == again.mean.tolist() != other.mean.tolist()
    broken = measured(encoded[0], b"no image", encoded[2][:-30])
    assert broken.num_images == 1
    assert len(broken.unreadable) == 2
    assert any("image 1" in sentence for sentence in broken.unreadable)


def test_measure_set__does_not_depend_on_workers() -> None:
    encoded = [png(random_levels(3, 4 + number)) for number in range(70)]
    alone, helped = measured(*encoded), measured(*encoded, num_workers=2)
    assert alone.mean.tolist() == helped.mean.tolist()
    assert alone.std.tolist() == helped.std.tolist()
    assert alone.widths_px.tolist() == helped.widths_px.tolist()


def test_measure_set__nothing_readable() -> None:
    with pytest.raises(UserError, match="none of 2 images can be read"):
        measured(b"no image", b"")


def test_stats__of_shards(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Levels 0 to 22, one each: mean 11, variance (23^2 - 1) / 12 = 44."""
    path = tmp_path / "its conf" / "data" / "mine.yaml"
    assert main(["stats", str(shards), "--workers", "0", "--write", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "train: 23 images",
        "val: 7 images",
        "classes: 3, from 7 (c) to 8 (a) images each, median 8 (training images)",
        "opened: 23 images of train",
        "stored as: 3 channels uint8",
        "fewer channels than 3: 0.0 % of the images",
        "height: 8 to 8 px, median 8",
        "width: 8 to 8 px, median 8",
        "shorter side: 8 to 8 px, median 8",
        "values per channel: 0 to 22, 0 to 22, 0 to 22",
        "",
        "channels: 3",
        "dtype: uint8",
        f"mean: [{11 / 255:.4g}, {11 / 255:.4g}, {11 / 255:.4g}]",
        f"std: [{44**0.5 / 255:.4g}, {44**0.5 / 255:.4g}, {44**0.5 / 255:.4g}]",
        "",
        f"wrote {path}; next: ssl-swin pretrain --config-dir '{tmp_path}/its conf' data=mine "
        "batch_size=20",
    ]
    comment, *_ = path.read_text().splitlines()
    assert comment.startswith("# Measured on 20")
    assert comment.endswith(f"with: ssl-swin stats {shards} --images 2000 --seed 0")
    config = yaml.safe_load(path.read_text())
    assert config["defaults"] == ["shards", "_self_"]
    assert config["root"] == str(shards)
    assert config["std"] == 3 * [float(f"{44**0.5 / 255:.4g}")]


def test_stats__of_images_not_packed_yet(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    options = ["--images", "5", "--workers", "0", "--write", str(path)]
    assert main(["stats", str(photos), *options]) == 0
    assert "opened: 5 images of train" in capsys.readouterr().out.splitlines()
    assert yaml.safe_load(path.read_text())["defaults"] == ["folder", "_self_"]


def test_stats__its_configuration_composes(shards: Path, tmp_path: Path) -> None:
    """Laid over the project's own conf/, it is a data set like any other."""
    path = tmp_path / "data" / "mine.yaml"
    assert main(["stats", str(shards), "--workers", "0", "--write", str(path)]) == 0
    conf = Path(__file__).parents[2] / "conf"
    with initialize_config_dir(str(conf), version_base="1.3"):
        cfg = compose("pretrain", overrides=[f"hydra.searchpath=[file://{tmp_path}]", "data=mine"])
    assert (cfg.data.reader, cfg.data.root) == ("indexed", str(shards))
    assert cfg.model.in_chans == cfg.data.channels == len(cfg.data.mean) == 3


def test_stats__mistakes(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("precious")
    assert main(["stats", str(shards), "--write", str(path)]) == 2
    assert "mine.yaml exists already" in capsys.readouterr().err
    assert path.read_text() == "precious"
    assert main(["stats", str(shards), "--images", "-1"]) == 2
    assert "--images must be a whole number of at least 0, got '-1'" in capsys.readouterr().err

"""Held-out images that are among the training images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_swin.data import overlap as module
from ssl_swin.data.overlap import Overlap, overlap
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.index import open_index
from ssl_swin.data.sources.image_folder import FolderDataset
from ssl_swin.data.subset import Subset


def folder(path: Path, shades: range, side_px: int = 8) -> FolderDataset:
    """Pictures of noise, of one size in bytes: they are not compressed."""
    path.mkdir()
    for shade in shades:
        noise = np.random.default_rng(shade).integers(0, 255, (side_px, side_px, 3), np.uint8)
        Image.fromarray(noise).save(path / f"{shade:03}.ppm")
    return FolderDataset(path)


def test_overlap__of_files(tmp_path: Path) -> None:
    train = folder(tmp_path / "train", range(10))
    assert train.image_sizes().tolist() == [8 * 8 * 3 + len(b"P6\n8 8\n255\n")] * 10  # type: ignore[union-attr]
    assert overlap(train, folder(tmp_path / "other", range(20, 30))) == Overlap(0, 10)
    assert overlap(train, folder(tmp_path / "partly", range(7, 13))) == Overlap(3, 6)
    assert overlap(train, folder(tmp_path / "larger", range(10), side_px=9)) == Overlap(0, 10)
    assert overlap(train, Subset(train, [1, 3])) == Overlap(2, 2)


def test_overlap__looks_at_some_spread_over_the_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_LOOKED_AT", 3)
    held_out = folder(tmp_path / "val", range(9))
    assert overlap(Subset(held_out, [0, 4, 5]), held_out) == Overlap(2, 3)


def test_overlap__compares_with_a_bounded_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = folder(tmp_path / "train", range(10))
    size = int(train.image_sizes()[0])  # type: ignore[index]
    monkeypatch.setattr(module, "MOST_READ_BYTES", 10 * 3 * size)  # three for each of ten
    assert overlap(train, train) == Overlap(3, 10)


def test_overlap__what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    train = folder(tmp_path / "train", range(3))
    held_out = Subset(train, [0, 1, 2])
    sizes = held_out.image_sizes()
    (tmp_path / "train/001.ppm").unlink()
    held_out.image_sizes = train.image_sizes = lambda: sizes  # type: ignore[method-assign]
    assert overlap(train, held_out) == Overlap(2, 3)


def test_overlap__where_looking_would_cost_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = folder(tmp_path / "train", range(3))
    monkeypatch.setattr("ssl_swin.data.file_sizes.MOST_ASKED", 2)
    assert overlap(train, train) == Overlap(0, 0)
    monkeypatch.undo()
    monkeypatch.setattr(FolderDataset, "fetches_ahead", True)
    assert overlap(train, train) == Overlap(0, 0)


def test_overlap__of_shards(shards: Path, photos: Path) -> None:
    index = open_index(shards)
    train, val = (ShardDataset(index, split) for split in ("train", "val"))
    assert overlap(train, val) == Overlap(0, 7)
    assert overlap(train, Subset(train, [2, 5])) == Overlap(2, 2)
    assert overlap(train, FolderDataset(photos / "train")) == Overlap(23, 23)

"""A tiny labelled data set, as a folder and as shards.

An image is known by its grey level: 0 to 22 in train, 100 to 106 in val. Its class is level % 3.
"""

from pathlib import Path

import pytest
from PIL import Image

from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.images.decode import decode_image
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.packing.pack import pack
from ssl_swin.data.sources.opening import open_datasets

LEVELS = {"train": range(23), "val": range(100, 107)}


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder train/ and val/ with one sub-folder per class."""
    root = tmp_path_factory.mktemp("photos")
    for split, levels in LEVELS.items():
        for level in levels:
            path = root / split / "abc"[level % 3] / f"{level}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (level, level, level)).save(path)
    return root


@pytest.fixture(scope="session")
def shards(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images in shards of five or fewer: five of train, two of val."""
    root = tmp_path_factory.mktemp("data") / "shards"
    pack(open_datasets(photos), root, shard_samples=5, num_workers=0, progress=False)
    return root


@pytest.fixture(scope="session")
def identify():
    """A `make_sample` that gives (level, label, epoch)."""

    def identify(record: EncodedSample, epoch: int) -> tuple[int, int | None, int]:
        return (
            int(decode_image(record.data, PixelFormat(1, "uint8"), name=record.name)[0, 0, 0]),
            record.label,
            epoch,
        )

    return identify

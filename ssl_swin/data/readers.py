"""Opening the splits of a data set by the way it is to be read (L1)."""

import math
import os
from pathlib import Path

from ssl_swin.data.folder import SourcePart, SourceReader
from ssl_swin.data.loading import Reader
from ssl_swin.data.records import Source
from ssl_swin.data.rng import keyed_generator
from ssl_swin.errors import UserError

READERS = ("stream", "folder")


def open_readers(
    root: str | os.PathLike[str], reader: str, *, how_to_make: str, val_ratio: float = 0.0
) -> dict[str, Reader]:
    """Opens every split found under `root`.

    Args:
        root: Folder of shards, or of images.
        reader: "stream" for WebDataset shards through the webdataset package, "folder" for images.
        how_to_make: The command that makes the data, for the message where there is none.
        val_ratio: Share of a folder's images to hold out where it has no val split; shards have
            theirs from packing.

    Returns:
        Readers by split: "train" always, "val" and "test" where the data has them.

    Raises:
        UserError: If nothing is there, a shard is missing or damaged, or the reader is unknown.
    """
    if reader not in READERS:
        raise UserError(f"data.reader must be one of {', '.join(READERS)}, got {reader!r}")
    folder = Path(root)
    if not folder.is_dir():
        raise UserError(
            f"no data: looked in the folder {folder}, which does not exist. {how_to_make}"
        )
    opened = (
        _open_shards(folder, how_to_make) if reader == "stream" else _open_folder(folder, val_ratio)
    )
    if "train" not in opened:
        raise UserError(f"{folder} has no train split, only: {', '.join(opened)}")
    return opened


def _open_shards(folder: Path, how_to_make: str) -> dict[str, Reader]:
    from ssl_swin.data.index import open_index
    from ssl_swin.data.stream import StreamReader

    if not any(folder.glob("*.tar")):
        raise UserError(
            f"no data: looked in the folder {folder} for *.tar, found none. {how_to_make}"
        )
    index = open_index(folder)
    return {split: StreamReader(index, split) for split in index.splits}


def _open_folder(folder: Path, val_ratio: float) -> dict[str, Reader]:
    from ssl_swin.data.sources import open_sources

    sources = open_sources(folder)
    if "val" not in sources and val_ratio > 0:
        sources |= hold_out(sources["train"], val_ratio)
    return {split: SourceReader(source) for split, source in sources.items()}


def hold_out(source: Source, val_ratio: float) -> dict[str, Source]:
    """Splits a source into train and val, always in the same way.

    Args:
        source: To be split.
        val_ratio: Share of val, rounded up.
    """
    order = keyed_generator("hold out", len(source)).permutation(len(source)).tolist()
    num_val = math.ceil(val_ratio * len(source))
    return {
        "train": SourcePart(source, sorted(order[num_val:])),
        "val": SourcePart(source, sorted(order[:num_val])),
    }

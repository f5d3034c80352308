"""Opening the splits of a data set by the way it is to be read."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_swin.arguments import Positive, RateBelow1, checked
from ssl_swin.data.encoded import IMAGE
from ssl_swin.data.images.pixel_format import MAX_IMAGE_BYTES
from ssl_swin.data.loading.holding_out import hold_out, hold_out_names
from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.loading.protocol import Split
from ssl_swin.data.remote.cache_options import CacheOptions
from ssl_swin.data.remote.fetch import is_remote
from ssl_swin.data.shards.finding import find_compressed, find_shards, is_compressed
from ssl_swin.data.shards.index_file import INDEX_NAME
from ssl_swin.data.shards.layout import SampleLayout
from ssl_swin.errors import UserError
from ssl_swin.files import check_can_be_made

if TYPE_CHECKING:
    from ssl_swin.data.loading.stream import StreamSplit
    from ssl_swin.data.sources.opening import OpenedData

_SETTINGS = {
    "ssl-swin pack --no-labels": "data.labels=false",
    "--no-labels": "data.labels=false",
    "--no-splits": "data.splits=false",
    "--no-masks": "data.masks=false",
}
BOX_READERS = ("coco", "voc", "yolo")
READERS = ("indexed", "stream", "folder", *BOX_READERS)


@checked
def open_splits(
    root: str | Path,
    reader: str,
    *,
    how_to_make: str,
    order: OrderConstants,
    val_ratio: RateBelow1 = 0.0,
    index_dir: str | None = None,
    cache: Mapping[str, Any] | None = None,
    num_samples: Positive | None = None,
    members: Collection[str] = (IMAGE,),
    folder: Mapping[str, Any] | None = None,
    boxes: Mapping[str, Any] | None = None,
    val_names: Sequence[str] = (),
    image: str | None = None,
    label_key: str | None = None,
    max_image_bytes: Positive = MAX_IMAGE_BYTES,
) -> dict[str, Split]:
    """Open every split found under `root`.

    Args:
        root: Folder of shards or of images; or a URL or pipe, see
            `data/remote/fetch.py`.
        reader: "indexed" for WebDataset shards in an exact order, "stream" for shards that cannot
            be indexed, "folder" for images; "coco", "voc" and "yolo" for images with boxes.
        how_to_make: The command that makes the data, for the message where there is none.
        order: Constants of the training order; without effect on a stream.
        val_ratio: Share of a folder's images to hold out where it has no val split; shards have
            theirs from packing.
        index_dir: Folder of the index, where it does not lie beside the shards.
        cache: Other arguments of `open_remote`, for remote shards.
        num_samples: Number of samples of a stream that is not a folder of indexed shards.
        members: Names of the members to read of every sample, "image" among them. What is not
            named costs no reading.
        folder: Fields of `data/sources/layout.py::Reading`, for a folder of images.
        boxes: Fields of `data/sources/boxes/reading.py::BoxReading`, for images with boxes.
        val_names: Names of images with boxes to hold out where there is no val split, instead of
            `val_ratio`; `*` stands for any characters.
        image: Extension or member name of the file of a sample that is its image, see
            `data/shards/layout.py`; None takes what the index has, or the first plain image.
        label_key: Key of the label in a sample's `.json` file; None takes what the index has, or
            the number in `.cls`.
        max_image_bytes: Largest file of a sample that a stream reads into memory.

    Returns:
        The splits by name: "train" always, "val" and "test" where the data has them.

    Raises:
        UserError: If nothing is there, a shard is missing or damaged, or the reader is unknown.
    """
    if reader not in READERS:
        raise UserError(f"data.reader must be one of {', '.join(READERS)}, got {reader!r}")
    if not str(root).strip():
        raise UserError(f"data.root is empty. {how_to_make}")
    layout = SampleLayout(image, label_key)
    if reader == "stream":
        opened: dict[str, Split] = {
            split: stream.with_limit(max_image_bytes)
            for split, stream in _open_stream(
                str(root), how_to_make, index_dir, num_samples, layout
            ).items()
        }
    elif reader == "indexed" and is_remote(str(root)):
        opened = _open_remote(str(root), order, index_dir, cache, members, layout)
    elif reader == "indexed":
        opened = _open_shards(Path(root), how_to_make, order, index_dir, cache, members, layout)
    else:
        _check_for_folder(reader, index_dir, layout)
        _check_exists(Path(root), how_to_make)
        if reader in BOX_READERS:
            found = _open_boxes(Path(root), reader, members, boxes or {})
        else:
            found = _open_folder(Path(root), members, folder or {})
        opened = _held_out(found, order, val_ratio, val_names)
    if "train" not in opened:
        raise UserError(f"{root} has no train split, only: {', '.join(opened)}")
    return opened


def _open_shards(
    folder: Path,
    how_to_make: str,
    order: OrderConstants,
    index_dir: str | None,
    cache: Mapping[str, Any] | None,
    members: Collection[str],
    layout: SampleLayout,
) -> dict[str, Split]:
    from ssl_swin.data.loading.complete import keep_complete
    from ssl_swin.data.shards.dataset import ShardDataset
    from ssl_swin.data.shards.index import open_index
    from ssl_swin.data.shards.unread import unread_at_start

    notes = []
    if cache is not None:
        CacheOptions.of(cache)
        notes.append(f"{folder} is a folder of this machine: shards are read there, not cached")
    _check_shards(folder, how_to_make)
    index = open_index(folder, index_dir, layout)
    sources = {split: ShardDataset(index, split, members=members) for split in index.splits}
    complete, lines = keep_complete(sources, members)
    warning = "\n".join(filter(None, ["; ".join([*notes, *unread_at_start(index)]), *lines]))
    return {split: IndexedSplit(complete[split], order, warning) for split in complete}


def _open_remote(
    root: str,
    order: OrderConstants,
    index_dir: str | None,
    cache: Mapping[str, Any] | None,
    members: Collection[str],
    layout: SampleLayout,
) -> dict[str, Split]:
    from ssl_swin.data.loading.complete import keep_complete
    from ssl_swin.data.remote.dataset import open_remote

    if cache is None:
        raise UserError(f"data.root={root} lies elsewhere: use data=remote, which keeps a cache")
    check_can_be_made(Path(CacheOptions.of(cache).dir), "data.cache.dir")
    sources = open_remote(root, index_dir=index_dir, members=members, layout=layout, **cache)
    for dataset in sources.values():
        dataset.check_cache(order.lanes)
    complete, lines = keep_complete(sources, members)
    warning = "\n".join(lines)
    return {split: IndexedSplit(complete[split], order, warning) for split in complete}


def _open_folder(
    folder: Path, members: Collection[str], reading: Mapping[str, Any]
) -> "OpenedData":
    from ssl_swin.data.sources.layout import Reading
    from ssl_swin.data.sources.opening import open_data

    try:
        return open_data(folder, Reading(**reading), members=members)
    except UserError as error:
        raise UserError(_in_settings(str(error))) from error


def _open_boxes(
    folder: Path, kind: Any, members: Collection[str], reading: Mapping[str, Any]
) -> "OpenedData":
    from ssl_swin.data.sources.boxes.opening import open_boxes
    from ssl_swin.data.sources.boxes.reading import BoxReading

    try:
        asked = BoxReading(**reading)
    except UserError as error:  # it names the argument, which is called like the setting
        raise UserError(f"data.{error}") from error
    return open_boxes(folder, kind, asked, members=members)


def _held_out(
    opened: "OpenedData", order: OrderConstants, val_ratio: float, val_names: Sequence[str]
) -> dict[str, Split]:
    """Return the splits of what was opened, with images held out where it has no val split."""
    sources = opened.splits
    if "val" not in sources and val_names:
        sources |= hold_out_names(sources["train"], val_names)
    elif "val" not in sources and val_ratio > 0:
        sources |= hold_out(sources["train"], val_ratio)
    slow = "images are read file by file; packed into shards they read faster"
    warning = "\n".join([slow, opened.classes_line(), *opened.notes])
    return {s: IndexedSplit(dataset, order, warning) for s, dataset in sources.items()}


def _in_settings(message: str) -> str:
    """Replace options of `ssl-swin pack` in a message by the settings of data=folder."""
    path = r"('[^']*'|[^\s;]+?)(?=[;.)]?(\s|$))"
    message = re.sub(rf"--leave-out {path}", r"data.leave_out=[\1]", message)
    message = re.sub(rf"--masks {path}", r"data.masks=\1", message)
    message = message.replace("] data.leave_out=[", ", ")
    for option, setting in _SETTINGS.items():
        message = message.replace(option, setting)
    return message


def _open_stream(
    root: str,
    how_to_make: str,
    index_dir: str | None,
    num_samples: int | None,
    layout: SampleLayout,
) -> dict[str, "StreamSplit"]:
    import braceexpand

    from ssl_swin.data.loading.stream import StreamSplit, compressed_splits, stream_split
    from ssl_swin.data.shards.index import open_index
    from ssl_swin.data.shards.streaming import SampleReading

    if is_remote(root):
        if num_samples is None:
            raise UserError(
                "data.reader=stream cannot count the images behind a URL: give data.num_samples"
            )
        shards = list(braceexpand.braceexpand(root))
        reading = SampleReading(layout)
        return {"train": StreamSplit(shards, num_samples=num_samples, reading=reading)}
    _check_shards(Path(root), how_to_make)
    if not (Path(index_dir or root) / INDEX_NAME).exists() and _any_compressed(Path(root)):
        return compressed_splits(Path(root), layout, num_samples)
    index = open_index(root, index_dir, layout)
    return {split: stream_split(index, split) for split in index.splits}


def _check_shards(folder: Path, how_to_make: str) -> None:
    if not folder.is_dir():
        raise UserError(_no_folder(folder, how_to_make))
    if not find_shards(folder) and not find_compressed(folder):
        raise UserError(
            f"no data: looked in the folder {folder} and below it for *.tar, found none. "
            f"{how_to_make}"
        )


def _any_compressed(folder: Path) -> bool:
    shards = find_shards(folder)
    return bool(find_compressed(folder)) or any(is_compressed(folder / name) for name in shards)


def _check_for_folder(reader: str, index_dir: str | None, layout: SampleLayout) -> None:
    """Refuse settings that images read from a folder do not have."""
    settings = {"index_dir": index_dir, "image": layout.image, "label_key": layout.label_key}
    for name, value in settings.items():
        if value is not None:
            raise UserError(
                f"data.{name}={value} is for shards, and data.reader={reader} reads images: leave "
                f"data.{name}=null, or choose data=shards"
            )


def _no_folder(folder: Path, how_to_make: str) -> str:
    return f"no data: looked in the folder {folder}, which does not exist. {how_to_make}"


def _check_exists(folder: Path, how_to_make: str) -> None:
    if not folder.exists():
        raise UserError(_no_folder(folder, how_to_make))

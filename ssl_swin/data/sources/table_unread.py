"""Tables and other texts beside images that seem to hold their labels, and are not read."""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.unread import unread_at_start
from ssl_swin.data.sources.image_folder import FolderDataset
from ssl_swin.data.sources.table_files import read_head
from ssl_swin.data.sources.table_labels import image_paths
from ssl_swin.data.sources.table_matching import ImagePaths
from ssl_swin.data.sources.table_roles import IMAGE_COLUMNS, LABEL_COLUMNS, usual_columns
from ssl_swin.data.sources.tables import TableDataset
from ssl_swin.errors import UserError
from ssl_swin.quoting import shell_path

_TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson")
_TEXT_ENDINGS = (".json", ".txt", ".xml", ".lst", ".list", ".yaml", ".yml")
_OF_ONE_IMAGE = ("txt", "json", "xml", "cls")  # where each image has one of its own
_MOST_UNREAD = 3
_NUM_LOOKED_AT = 100  # images
_HEAD_BYTES = 1 << 16


def unread_labels(root: Path, sources: Mapping[str, ImageDataset]) -> list[str]:
    """Return what is to be told of labels that are there and not read, a line each.

    Args:
        root: Folder or file of the images.
        sources: What was found in it.
    """
    first = next(iter(sources.values()))
    if isinstance(first, ShardDataset):
        return [f"note: {line}" for line in unread_at_start(first.index)]
    if isinstance(first, TableDataset):
        return [
            f"note: the column {name} is not read; to have it as the label, call it label"
            for name in first.unread_labels[:1]
        ]
    folder = root if root.is_dir() else root.parent
    tables = [
        f"note: {path} seems to hold labels, which are not read: --labels {shell_path(path)}"
        for path in unread_tables(folder, sources)
    ]
    return tables or unread_texts(folder, sources)


def unread_tables(root: Path, sources: Mapping[str, ImageDataset]) -> list[str]:
    """List tables beside images that have columns of images and labels, by path.

    Args:
        root: Folder of the images; its own folder is looked at as well.
        sources: The images that were found in it.
    """
    files = _files_beside(root, sources, _TABLE_ENDINGS)
    found: list[str] = []
    images: ImagePaths | None = None
    for path in files:
        table = read_head(path)
        if table is None or not table.rows or len(found) == _MOST_UNREAD:
            continue
        image = usual_columns(table, IMAGE_COLUMNS)
        if image and usual_columns(table, LABEL_COLUMNS):
            images = images or _images_or_none(sources)
            if images is not None and any(_names_one(images, table.column(name)) for name in image):
                found.append(str(path))
    return found


def unread_texts(root: Path, sources: Mapping[str, ImageDataset]) -> list[str]:
    """Return a line on texts that name images, or bear their names, where no table does.

    Args:
        root: Folder of the images; its own folder is looked at as well.
        sources: The images that were found in it.
    """
    first = next(iter(sources.values()))
    if not isinstance(first, FolderDataset):
        return []
    images = [os.fsdecode(bytes(name)) for name in first.image_names()[:_NUM_LOOKED_AT]]
    way = "for labels, give a CSV file with a column of images and one of labels: --labels FILE"
    own = [
        extension
        for extension in _OF_ONE_IMAGE
        if all((first.root / name).with_suffix(f".{extension}").is_file() for name in images)
    ]
    if own:
        example = Path(images[0]).with_suffix(f".{own[0]}")
        return [f"note: each image has a .{own[0]} file ({example}), which is not read; {way}"]
    found = [
        path
        for path in _files_beside(root, sources, _TEXT_ENDINGS)
        if _mentions_one({os.path.basename(name) for name in images}, path)
    ]
    return [f"note: {found[0]} names images, and is not read; {way}"] if found else []


def _files_beside(
    root: Path, sources: Mapping[str, ImageDataset], endings: tuple[str, ...]
) -> list[Path]:
    folders = {root, root.parent}
    folders |= {source.root for source in sources.values() if isinstance(source, FolderDataset)}
    return sorted(
        path
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
        if path.suffix.lower() in endings and path.is_file()
    )


def _mentions_one(names: Collection[str], text: Path) -> bool:
    """Return whether a text has the name of an image in its first rows."""
    try:
        with text.open("rb") as file:
            words = re.split(rb"[\s\"',;:<>/\\]+", file.read(_HEAD_BYTES))
    except OSError:
        return False
    return not {os.fsencode(name) for name in names}.isdisjoint(words)


def _images_or_none(sources: Mapping[str, ImageDataset]) -> ImagePaths | None:
    try:
        return ImagePaths(image_paths(sources)[0])
    except UserError:
        return None


def _names_one(images: ImagePaths, cells: Sequence[str]) -> bool:
    try:
        return any(number is not None for number in images.find(cells[:100]))
    except UserError:  # it fits several
        return True

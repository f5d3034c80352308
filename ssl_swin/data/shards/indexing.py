"""Building the index of shards by a walk over their headers that trusts none of them."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from ssl_swin.data.file_types import an_image_in
from ssl_swin.data.shards.finding import (
    compressed_error,
    find_compressed,
    find_shards,
    splits_of,
)
from ssl_swin.data.shards.index_file import PLAN_NAME, ShardIndex, write_index
from ssl_swin.data.shards.labels import LabelValues, understand_values
from ssl_swin.data.shards.layout import CONVENTION, SampleLayout, label_file
from ssl_swin.data.shards.previous_index import kept_classes, kept_layout
from ssl_swin.data.shards.scanning import LabelledScan, scan_labelled
from ssl_swin.display.work import followed
from ssl_swin.errors import UserError
from ssl_swin.files import make_folder, removed_if_empty
from ssl_swin.quoting import shell_path


def build_index(
    root: str | os.PathLike[str],
    index_dir: str | os.PathLike[str] | None = None,
    *,
    layout: SampleLayout = CONVENTION,
    num_workers: int = 0,
    progress: bool = True,
) -> ShardIndex:
    """Index shards that were packed by whatever means, and write the index.

    A shard belongs to the split that a word of its path names ("imagenet1k-validation-00.tar",
    "val/00.tar"), or else to train. Class names and what the layout leaves open are kept from the
    index before; without one, class names are read from `classes.txt` beside the shards.

    Args:
        root: Folder of the shards, or of sub-folders that hold them.
        index_dir: Folder of the index, created if need be; None is `root`.
        layout: Which files of a sample are the image and the label.
        num_workers: Processes that read headers; 0 is this one. On storage with long waits, many.
        progress: Whether to show how far it is.

    Raises:
        UserError: If there is no shard or no image, a shard is damaged or compressed, a label has
            no class name, or the folder of the index cannot be written to.
    """
    folder = Path(root)
    if (folder / PLAN_NAME).exists():
        raise UserError(
            f"{folder} holds an interrupted packing: the same ssl-swin pack command completes it; "
            f"or, if all its parts are done, join them: ssl-swin index {shell_path(folder)}"
        )
    names = find_shards(folder)
    if not names:
        if compressed := find_compressed(folder):
            raise compressed_error(folder, compressed)
        raise UserError(
            f"no shards in {folder}: looked for *.tar in it and in its sub-folders, and found none"
        )
    with removed_if_empty(Path(index_dir or root)):
        index_folder = make_index_folder(root, index_dir)
        layout = kept_layout(layout, [index_folder, folder])
        within = sorted({(folder / name).parent for name in names} - {folder})
        classes = kept_classes(layout, [index_folder, folder], within)
        scan = partial(_scan_in, folder, layout)
        splits: dict[str, list[LabelledScan]] = {}
        of_names = splits_of(names)
        looks = _scan_shards(scan, names, num_workers, progress)
        for split, scanned in zip(of_names, looks, strict=True):
            splits.setdefault(split, []).append(scanned)
        if not any(scan.num_samples for scans in splits.values() for scan in scans):
            raise UserError(f"no images in the shards of {folder}: {len(names)} tars hold none")
        return write_scans(index_folder, classes, splits, root=folder, layout=layout)


def write_scans(
    folder: Path,
    classes: Sequence[str],
    splits: Mapping[str, Sequence[LabelledScan]],
    *,
    root: Path | None = None,
    layout: SampleLayout = CONVENTION,
) -> ShardIndex:
    """Number the labels of all shards in one way, and write the index.

    Args:
        folder: Folder of the index.
        classes: Class names by label; empty where nobody gave any.
        splits: The shards of each split, in order.
        root: Folder of the shards; None is `folder`.
        layout: Which files of a sample were taken for the image and the label.

    Raises:
        UserError: If no sample has the label that is asked for, a label has no class name, or the
            folder cannot be written to.
    """
    values = LabelValues(tuple(classes))
    if layout.label_key is not None:
        found = {value for scans in splits.values() for scan in scans for value in scan.values}
        if not found:
            raise UserError(_no_labels(layout, splits))
        values = understand_values(found, classes, f"the label key {layout.label_key}")
    scanned = {
        split: [scan.numbered(values) if layout.label_key else scan.scanned for scan in scans]
        for split, scans in splits.items()
    }
    return write_index(
        folder, values.classes, scanned, root=root, layout=layout, labels_by_name=values.by_name
    )


def make_index_folder(
    root: str | os.PathLike[str], index_dir: str | os.PathLike[str] | None
) -> Path:
    """Return the folder of the index, created if need be.

    Raises:
        UserError: If it cannot be written to, or holds images.
    """
    try:
        folder = make_folder(index_dir or root)
    except UserError as error:
        raise UserError(
            f"cannot write the index: {error}. Keep it in another folder: ssl-swin index "
            f"{shell_path(root)} --out DIR, then set data.index_dir=DIR"
        ) from error
    is_of_shards = Path(root).is_dir() and folder.samefile(root)
    if not is_of_shards and (image := an_image_in(folder)):
        raise UserError(
            f"{folder} holds images ({image}), and an index is no part of them: give "
            "data.index_dir, or --out, a folder of its own"
        )
    return folder


def _scan_in(root: Path, layout: SampleLayout, name: str) -> LabelledScan:
    return scan_labelled(root / name, layout, name)


def _scan_shards(
    scan: Callable[[str], LabelledScan], names: list[str], num_workers: int, progress: bool
) -> Iterable[LabelledScan]:
    from ssl_swin.data.parallel import ordered_map

    scanned = ordered_map(scan, names, num_workers=num_workers)
    return followed(scanned, "indexing", len(names), "shards", show=progress)


def _no_labels(layout: SampleLayout, splits: Mapping[str, Sequence[LabelledScan]]) -> str:
    extension, keys = label_file(layout)
    held = next((scan.keys for scans in splits.values() for scan in scans if scan.keys), ())
    what = f"key {'.'.join(keys)} in a .{extension} file" if keys else f".{extension} file"
    known = f". Keys there are: {', '.join(held[:20])}" if held else ""
    return (
        f"no sample has a label: there is no {what}, as --label-key {layout.label_key} "
        f"(data.label_key) asks for{known}"
    )

"""Opening data sets in any layout that they are distributed in."""

import os
from collections.abc import Mapping
from pathlib import Path

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.file_types import IMAGE_EXTENSIONS, extension_of
from ssl_swin.data.shards.index_file import INDEX_NAME, PLAN_NAME
from ssl_swin.data.shards.tar import scan_tar
from ssl_swin.data.sources.archives import TarDataset, inner_tars, tar_parts
from ssl_swin.data.sources.cifar import CifarBinaryDataset, is_cifar
from ssl_swin.data.sources.image_folder import FolderDataset, scan_folder
from ssl_swin.data.sources.labelled import label_by_name
from ssl_swin.data.sources.packed import are_samples, open_shards, open_shards_below
from ssl_swin.data.sources.tables import is_saved_dataset, open_parquet, open_saved_dataset
from ssl_swin.data.split_names import SPLIT_NAMES, split_in_name
from ssl_swin.errors import UserError


def open_datasets(
    path: str | os.PathLike[str],
    labelled: bool = True,
    val_labels: str | os.PathLike[str] | None = None,
) -> dict[str, ImageDataset]:
    """Recognise the layout of a data set on disk and open its splits.

    - A folder of images is "train", with sub-folders as classes; sub-folders that are all named
      like splits give a split each.
    - ILSVRC2012_img_train.tar, a tar of one tar per class, is "train", as is a folder of one tar
      per class (ImageNet-22k). Any other tar of images has no labels. In a folder, a word of the
      tars' names may say the split: ILSVRC2012's two tars give "train" and "val".
    - Parquet files, and what `save_to_disk` of Hugging Face's `datasets` wrote, see
      `data/sources/tables.py`.
    - The binary versions of CIFAR-10 and CIFAR-100 give "train" and "val".
    - Shards are opened by their index, to be shuffled anew.

    Args:
        path: A folder or a file.
        labelled: Whether to take labels from it.
        val_labels: File with the class names of "val", or of "train" if it is alone, where the
            layout has none: one per line, in the order of the sorted names of the images.

    Returns:
        Sources by split: "train" always, "val" and "test" where the layout has them.

    Raises:
        UserError: If nothing is there, it holds no image or is damaged, the splits' classes
            differ, there is no split to train on, or `val_labels` does not fit.
    """
    root = Path(path)
    if not root.exists():
        raise UserError(f"{root} does not exist. Give a folder of images")
    sources = _open_file(root, labelled) if root.is_file() else _open_folder(root, labelled)
    if "train" not in sources and len(sources) == 1:
        sources = dict(zip(["train"], sources.values(), strict=True))
    if "train" not in sources:
        raise UserError(f"{root} has the splits {', '.join(sources)}, and none to train on")
    if val_labels is not None:
        split = "val" if "val" in sources else "train"
        if not labelled or sources[split].classes:
            raise UserError("--val-labels is for images without labels, not beside --no-labels")
        classes = sources["train"].classes
        sources[split] = label_by_name(sources[split], Path(val_labels), classes)
    common_classes(sources)
    return sources


def common_classes(sources: Mapping[str, ImageDataset]) -> tuple[str, ...]:
    """Return the class names that all splits share.

    Raises:
        UserError: If two splits differ.
    """
    (first, source), *others = sources.items()
    for split, other in others:
        if other.classes != source.classes:
            way_out = "" if other.classes else ", give those of val by --val-labels"
            raise UserError(
                f"the splits differ in their classes: {first} has {len(source.classes)}, {split} "
                f"has {len(other.classes)} ({_difference(first, source, split, other)}). Make the "
                f"class folders equal{way_out}, or leave the labels out: ssl-swin pack --no-labels"
            )
    return source.classes


def _open_file(path: Path, labelled: bool) -> dict[str, ImageDataset]:
    if extension_of(path.name) == "parquet":
        return {**open_parquet(path.parent, [path], labelled)}
    if extension_of(path.name) == "tar":
        members = scan_tar(path).members
        if are_samples(members):
            raise UserError(f"{path} is a shard of samples. Give the folder of all shards")
        if any(extension_of(member.name) in ("tar", *IMAGE_EXTENSIONS) for member in members):
            return {"train": _open_tars([path], labelled)}
    return {split: CifarBinaryDataset(path, split, labelled) for split in ("train", "val")}


def _open_folder(root: Path, labelled: bool) -> dict[str, ImageDataset]:
    if is_cifar(root):
        return {split: CifarBinaryDataset(root, split, labelled) for split in ("train", "val")}
    if is_saved_dataset(root):
        return {**open_saved_dataset(root, labelled)}
    entries = scan_folder(root)
    folders = [entry.name for entry in entries if entry.is_dir()]
    files = [entry.name for entry in entries if not entry.is_dir()]
    if tables := _tables(root, folders):
        return {**open_parquet(root, tables, labelled)}
    tars = [root / name for name in files if extension_of(name) == "tar"]
    if tars and not folders and not _images(files):
        return _open_folder_of_tars(root, files, tars, labelled)
    split_folders = _split_folders(root, folders, files) or {"train": root}
    try:
        return {split: FolderDataset(folder, labelled) for split, folder in split_folders.items()}
    except UserError:  # there are no images
        shards = open_shards_below(root, labelled)
        if not shards:
            raise
        return shards


def _open_folder_of_tars(
    root: Path, files: list[str], tars: list[Path], labelled: bool
) -> dict[str, ImageDataset]:
    if {INDEX_NAME, PLAN_NAME} & set(files) or are_samples(scan_tar(tars[0]).members):
        return open_shards(root, labelled)
    splits: dict[str | None, list[Path]] = {}
    for tar in tars:
        splits.setdefault(split_in_name(tar.stem), []).append(tar)
    if None in splits:  # then these are names of classes
        return {"train": TarDataset(tar_parts(tars), labelled)}
    return {split: _open_tars(group, labelled) for split, group in splits.items() if split}


def _open_tars(paths: list[Path], labelled: bool) -> TarDataset:
    inner = [part for path in paths for part in inner_tars(path)]
    return TarDataset(inner, labelled) if inner else TarDataset(tar_parts(paths), labelled=False)


def _tables(root: Path, folders: list[str]) -> list[Path]:
    within = [root / name for name in folders if name.lower() in ("data", *SPLIT_NAMES)]
    return [file for folder in (root, *within) for file in sorted(folder.glob("*.parquet"))]


def _split_folders(root: Path, folders: list[str], files: list[str]) -> dict[str, Path]:
    """Find the folder of each split; none unless all folders are splits and one is train."""
    splits = [SPLIT_NAMES.get(name.lower()) for name in folders]
    if None in splits or "train" not in splits:
        return {}
    if len(set(splits)) < len(splits):
        raise UserError(f"{root} has two folders for one split: {', '.join(folders)}. Join them")
    if loose := _images(files):
        raise UserError(
            f"{root} has images both in split folders ({', '.join(folders)}) and beside them "
            f"({_some(loose)}). Move those into one of the folders"
        )
    return {split: root / name for split, name in zip(splits, folders, strict=True) if split}


def _images(files: list[str]) -> list[str]:
    return [name for name in files if extension_of(name) in IMAGE_EXTENSIONS]


def _difference(first: str, source: ImageDataset, second: str, other: ImageDataset) -> str:
    only_first = _some(sorted(set(source.classes) - set(other.classes)))
    only_second = _some(sorted(set(other.classes) - set(source.classes)))
    return f"only in {first}: {only_first}; only in {second}: {only_second}"


def _some(names: list[str], most: int = 5) -> str:
    shown = ", ".join(names[:most]) or "none"
    return f"{shown}, ... ({len(names)} in all)" if len(names) > most else shown

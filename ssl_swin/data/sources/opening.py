"""Opening data sets in any layout that they are distributed in."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ssl_swin.arguments import PathLike, checked
from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import IMAGE
from ssl_swin.data.file_types import extension_of
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.index import open_index
from ssl_swin.data.shards.index_file import INDEX_NAME, PLAN_NAME
from ssl_swin.data.sources.archives import (
    TarDataset,
    are_samples,
    check_is_tar,
    inner_tars,
    refuse_file,
    tar_parts,
)
from ssl_swin.data.sources.cifar import CifarBinaryDataset, is_cifar, is_cifar_archive
from ssl_swin.data.sources.class_names import common_classes, similar_classes
from ssl_swin.data.sources.folder_tree import (
    Folder,
    is_folder,
    is_left_out,
    read_folder,
    scan_folder,
)
from ssl_swin.data.sources.image_folder import FolderDataset, check_has_images
from ssl_swin.data.sources.labelled import RelabelledDataset, label_by_name
from ssl_swin.data.sources.layout import UNLABELLED, Part, Reading, find_parts
from ssl_swin.data.sources.left_out import (
    LeftOut,
    is_known_image,
    leaving_out,
    report_left_out,
    shown,
    some,
)
from ssl_swin.data.sources.listed import LIST_EXTENSIONS, ListedDataset
from ssl_swin.data.sources.mask_folder import pair_with_folder, take_folder, take_same_names
from ssl_swin.data.sources.packed import open_shards_below
from ssl_swin.data.sources.pair_report import Pairs, report_pairs
from ssl_swin.data.sources.pairing import pair_files, without_masks
from ssl_swin.data.sources.tables import is_saved_dataset, open_parquet, open_saved_dataset
from ssl_swin.data.split_names import SPLIT_NAMES, read_split_names
from ssl_swin.errors import UserError


@dataclass
class OpenedData:
    """A data set, and what was found out about its layout.

    Attributes:
        splits: Data sets by split.
        classes_from: Where the classes are from, such as "the sub-folders of photos/train"; for a
            set without classes the reason.
        notes: Lines on what else was found: pairs of images and masks, files that are left out.
        left_out: Files that lie among the images and are not taken.
    """

    splits: dict[str, ImageDataset]
    classes_from: str = ""
    notes: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def classes_line(self) -> str:
        """Return one line on the classes and where they are from."""
        classes = next(iter(self.splits.values())).classes
        link = ", " if classes else ", since "
        origin = f"{link}{self.classes_from}" if self.classes_from else ""
        return shown(f"classes: {len(classes) or 'none'}{origin}")


def open_datasets(
    path: PathLike,
    labelled: bool = True,
    val_labels: PathLike | None = None,
) -> dict[str, ImageDataset]:
    """Recognise the layout of a data set on disk and open its splits; see `open_data`.

    Args:
        path: A folder or a file.
        labelled: Whether to take labels from it.
        val_labels: File with the class names of "val", see `open_data`.

    Returns:
        Sources by split: "train" always, "val" and "test" where the layout has them.
    """
    return open_data(path, Reading(labelled=labelled), val_labels).splits


@checked
def open_data(
    path: PathLike,
    reading: Reading = Reading(),  # noqa: B008 - it is frozen
    val_labels: PathLike | None = None,
    *,
    members: Collection[str] | None = None,
    any_split: bool = False,
) -> OpenedData:
    """Recognise the layout of a data set on disk and open its splits.

    - A folder of images is "train", with sub-folders as classes; sub-folders that are named like
      splits give a split each (`data/sources/layout.py`). Masks that lie beside images are members
      of their samples (`data/sources/pairing.py`).
    - ILSVRC2012_img_train.tar, a tar of one tar per class, is "train", as is a folder of one tar
      per class (ImageNet-22k). Any other tar of images has no labels. In a folder, a word of the
      tars' names may say the split: ILSVRC2012's two tars give "train" and "val".
    - Parquet files, and what `save_to_disk` of Hugging Face's `datasets` wrote, see
      `data/sources/tables.py`.
    - A list of images: a `.txt` of paths, or a `.csv` or `.tsv` with a column of them.
    - The binary versions of CIFAR-10 and CIFAR-100 give "train" and "val".
    - Shards are opened by their index, to be shuffled anew.

    Args:
        path: A folder or a file.
        reading: How to read it.
        val_labels: File with the class names of "val", or of "train" if it is alone, where the
            layout has none: one per line, in the order of the sorted names of the images.
        members: Names of the members to read of a folder of images; None reads all.
        any_split: Whether a set without images to train on will do.

    Raises:
        UserError: If nothing is there, it holds no image or is damaged, the splits' classes
            differ, there is no split to train on, names of folders contradict each other, or
            `val_labels` or a folder of masks does not fit.
    """
    root = Path(path)
    if not root.exists():
        raise UserError(f"{root} does not exist. Give a folder of images")
    is_file = root.is_file()
    opened = _open_file(root, reading) if is_file else _open_folder(root, reading, members)
    if is_file and "train" not in opened.splits and len(opened.splits) == 1:
        opened.splits = dict(zip(["train"], opened.splits.values(), strict=True))
    if "train" not in opened.splits and not any_split:
        raise UserError(
            f"{root} has no split to train on, only: {', '.join(opened.splits)}. To train on "
            "images that are named like ones for evaluation, give their own folder or file"
        )
    if val_labels is not None:
        _label_val(opened, reading, Path(val_labels))
    if isinstance(reading.masks, str):
        _check_is_folder(opened.splits, reading.masks, root)
    _check_members(opened.splits, members, root)
    common_classes(opened.splits)
    opened.notes += similar_classes(opened.splits)
    opened.notes = [shown(note) for note in opened.notes]
    return opened


def _check_is_folder(sources: Mapping[str, ImageDataset], masks: str, root: Path) -> None:
    if not all(isinstance(source, FolderDataset) for source in sources.values()):
        raise UserError(f"--masks {masks} is for a folder of images, which {root} is not")


def _check_members(
    sources: Mapping[str, ImageDataset], members: Collection[str] | None, root: Path
) -> None:
    for split, source in sources.items():
        if missing := sorted(set(members or ()) - set(source.members)):
            raise UserError(
                f"the samples of {split} in {root} have no member {missing[0]!r}, only: "
                f"{', '.join(source.members)}"
            )


def _label_val(opened: OpenedData, reading: Reading, file: Path) -> None:
    split = "val" if "val" in opened.splits else "train"
    if not reading.labelled:
        raise UserError("--val-labels is for images without labels, not beside --no-labels")
    if opened.splits[split].classes:
        raise UserError(
            f"--val-labels is for images without labels, and those of {split} have classes, from "
            f"{opened.classes_from or 'the data itself'}. Leave the option out"
        )
    classes = opened.splits["train"].classes
    opened.splits[split] = label_by_name(opened.splits[split], file, classes)
    if split == "train":
        opened.classes_from = f"the names in {file}"


def _open_file(path: Path, reading: Reading) -> OpenedData:
    if extension_of(path.name) == "parquet":
        _check_leaves_nothing_out(path, reading)
        return OpenedData({**open_parquet(path.parent, [path], reading.labelled)})
    if is_cifar_archive(path):
        return _open_cifar(path, reading)
    if extension_of(path.name) in LIST_EXTENSIONS:
        _check_leaves_nothing_out(path, reading)
        listed = ListedDataset(path, reading.labelled)
        return OpenedData(
            {"train": listed}, listed.classes_from if reading.labelled else UNLABELLED
        )
    if extension_of(path.name) != "tar":
        refuse_file(path)
    check_is_tar(path)
    if not reading.plain_tars and are_samples(path):
        raise UserError(
            f"{path} is a shard of samples. Give the folder of all shards; or, if it is a tar of "
            "images and other files: --plain-tars"
        )
    return _open_tars({"train": [path]}, reading)


def _open_cifar(path: Path, reading: Reading) -> OpenedData:
    _check_leaves_nothing_out(path, reading)
    splits = {s: CifarBinaryDataset(path, s, reading.labelled) for s in ("train", "val")}
    return OpenedData({**splits}, "the names in it" if reading.labelled else UNLABELLED)


def _open_folder(root: Path, reading: Reading, members: Collection[str] | None) -> OpenedData:
    if is_cifar(root):
        return _open_cifar(root, reading)
    if is_saved_dataset(root):
        _check_leaves_nothing_out(root, reading)
        return OpenedData({**open_saved_dataset(root, reading.labelled)})
    entries = scan_folder(root)
    folders = [entry.name for entry in entries if is_folder(entry)]
    files = [entry.name for entry in entries if not is_folder(entry)]
    if tables := _tables(root, folders, files):
        _check_leaves_nothing_out(root, reading)
        return OpenedData({**open_parquet(root, tables, reading.labelled)})
    tars = [
        root / name
        for name in files
        if extension_of(name) == "tar" and not is_left_out(name, reading.leave_out)
    ]
    if tars and not folders and not any(map(is_known_image, files)):
        return _open_folder_of_tars(root, files, tars, reading, members)
    return _open_image_folder(root, reading, members)


def _check_leaves_nothing_out(path: Path, reading: Reading) -> None:
    if reading.leave_out:
        raise UserError(
            f"{leaving_out(*reading.leave_out)}: what lies in {path} cannot be left out in part; "
            "that is for folders and tars of images"
        )


def _open_image_folder(root: Path, reading: Reading, members: Collection[str] | None) -> OpenedData:
    tree = read_folder(root, reading.leave_out)
    try:
        check_has_images(tree, root)
    except UserError:
        if shards := open_shards_below(root, reading.labelled):
            return OpenedData(shards)
        raise
    left_out = [file for folder in tree.walk() for file in folder.left_out]
    pairs = _paired(tree, root, reading)
    check_has_images(tree, root)
    parts = find_parts(tree, str(root), reading)
    splits: dict[str, ImageDataset] = {
        split: FolderDataset.of_groups(root, part.base, part.groups, members)
        for split, part in parts.items()
    }
    origin = (parts.get("train") or next(iter(parts.values()))).classes_from
    _check_stray_images(parts)
    notes = report_pairs(pairs) + _incomplete(tree, splits, members)
    if report := report_left_out(left_out):
        notes.append(report)
    return OpenedData(splits, origin, notes, left_out + pairs.left_out)


def _paired(tree: Folder, root: Path, reading: Reading) -> Pairs:
    if not isinstance(reading.masks, str):
        return pair_files(tree, root) if reading.masks else Pairs()
    folder = Path(reading.masks)
    if folder.is_dir() and folder.samefile(root):
        pairing = take_same_names(tree, root)
        pairs = pair_files(tree, root)
        pairs.pairings.insert(0, pairing)
        pairs.without = without_masks(tree)
        return pairs
    masks = take_folder(tree, root, folder)
    pairs = pair_files(tree, root)
    pair_with_folder(tree, root, masks, pairs, given=folder)
    return pairs


def _check_stray_images(parts: Mapping[str, Part]) -> None:
    """Refuse a split without classes beside one with them where a few images are the reason."""
    with_classes = [split for split, part in parts.items() if part.has_classes]
    for split, part in parts.items():
        if with_classes and part.has_stray_images:
            raise UserError(
                f"{split} has no classes, unlike {with_classes[0]}, since {part.classes_from}; or "
                "leave the labels out: --no-labels"
            )


def _incomplete(
    tree: Folder, splits: Mapping[str, ImageDataset], members: Collection[str] | None
) -> list[str]:
    """Return a line on images that are left out because they lack a member that is asked for."""
    number = tree.num_images() - sum(map(len, splits.values()))
    noun = "image" if number == 1 else "images"
    asked = " and ".join(sorted(set(members or ()) - {IMAGE}))
    return [f"left out: {number} {noun} without {asked}"] if number else []


def _open_folder_of_tars(
    root: Path,
    files: list[str],
    tars: list[Path],
    reading: Reading,
    members: Collection[str] | None,
) -> OpenedData:
    for tar in tars:
        check_is_tar(tar)
    has_index = bool({INDEX_NAME, PLAN_NAME} & set(files))
    if has_index or (not reading.plain_tars and are_samples(tars[0])):
        _check_leaves_nothing_out(root, reading)
        index = open_index(root)
        shards = {s: ShardDataset(index, s, members=members) for s in index.splits}
        if reading.labelled:
            return OpenedData({**shards}, "" if index.classes else "the shards name none")
        return OpenedData({s: RelabelledDataset(shards[s]) for s in shards}, UNLABELLED)
    names = read_split_names([tar.stem for tar in tars]) if reading.splits else None
    if names is not None and names.mixed:
        others = [tar.stem for tar in tars if tar.stem not in names.mixed]
        out = f"{(others or names.mixed)[0]}.tar"
        raise UserError(
            f"{root} has tars that are named like splits ({some(names.mixed)}) and others "
            f"({some(others)}): what are the others? Leave them out: {leaving_out(out)}; or, if "
            "the names mean no splits, take each tar for a class: --no-splits"
        )
    if names is None or not names.splits:
        return _open_tars({"train": tars}, reading, in_classes=True)
    splits: dict[str, list[Path]] = {}
    for tar in tars:
        splits.setdefault(names.splits[tar.stem], []).append(tar)
    return _open_tars(splits, reading)


def _open_tars(
    splits: Mapping[str, Sequence[Path]], reading: Reading, *, in_classes: bool = False
) -> OpenedData:
    """Open tars of images by split.

    Args:
        splits: The tars.
        reading: How to read them.
        in_classes: Whether each tar is a class, if none holds tars.
    """
    sources: dict[str, ImageDataset] = {}
    left_out: list[LeftOut] = []
    origin = UNLABELLED
    for split, paths in splits.items():
        inner = [part for path in paths for part in inner_tars(path)]
        labelled = reading.labelled and bool(inner or in_classes)
        source = TarDataset(
            inner or tar_parts(paths), labelled, splits=reading.splits and not inner
        )
        if reading.labelled:
            origin = source.classes_from if split == "train" or len(splits) == 1 else origin
        sources[split] = source
        left_out += source.left_out
    report = report_left_out(left_out)
    return OpenedData(sources, origin, [report] if report else [], left_out)


def _tables(root: Path, folders: list[str], files: list[str]) -> list[Path]:
    within = [root / name for name in folders if name.lower() in ("data", *SPLIT_NAMES)]
    here = [root / name for name in files if name.endswith(".parquet")]
    return here + [file for folder in within for file in sorted(folder.glob("*.parquet"))]

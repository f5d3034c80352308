"""Masks and other files that belong to images, found by their names and paired with them.

Three layouts are in use: a folder of masks beside a folder of images (`images/NAME.jpg`,
`masks/NAME.png`), also in the folder of a split or with split folders in both; a folder of masks
beside loose images; and a mask beside its image (`NAME.jpg`, `NAME_mask.png`).
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssl_swin.data.box_lists import BOXES
from ssl_swin.data.encoded import MASK
from ssl_swin.data.file_types import extension_of
from ssl_swin.data.sources.folder_tree import BOXES_ENDING, NO_FILE, Folder, Names
from ssl_swin.data.sources.left_out import LeftOut, leaving_out, shown, some
from ssl_swin.data.sources.mask_names import (
    FolderName,
    image_key,
    may_hold_masks,
    partners,
    read_folder_name,
    split_mask_name,
)
from ssl_swin.data.sources.pair_report import Pairing, Pairs
from ssl_swin.data.split_names import split_of_name
from ssl_swin.errors import UserError
from ssl_swin.quoting import shell_word

_NUM_LOOKED_AT = 3  # files, to see whether they are masks
MASK_EXTENSIONS = ("png", "npy")  # what `decode_sample` takes for a mask, the preferred first


def pair_files(tree: Folder, root: Path) -> Pairs:
    """Find what belongs to images, and move it from the folder's images to their `members`.

    Args:
        tree: The folder, which is changed.
        root: Where it lies.

    Raises:
        UserError: If a folder is one of masks by its name, but no name in it is that of an image;
            or if images and what looks like their masks have the same names.
    """
    for folder in tree.walk():
        _check_same_names(folder, root)
    pairs = Pairs()
    _pair_below(tree, pairs)
    if any(pairing.member == MASK for pairing in pairs.pairings):
        pairs.without = without_masks(tree)
    return pairs


def without_masks(tree: Folder) -> list[str]:
    """Return the paths of images without a mask."""
    found = []
    for folder in tree.walk():
        masks = folder.members.get(MASK)
        alone = folder.images if masks is None else folder.images[masks == NO_FILE]
        found += _paths(folder, alone)
    return found


def _pair_below(folder: Folder, pairs: Pairs) -> None:
    _pair_beside(folder, pairs)
    _pair_boxes(folder, pairs)
    for masks, images, member in _sibling_pairs(folder):
        _attach(masks, images, member, pairs, whole=images is not folder)
        folder.remove(masks)
    for other in folder.folders:
        _pair_below(other, pairs)


def _check_same_names(folder: Folder, root: Path) -> None:
    """Refuse NAME.jpg beside a NAME.png of indices for most images: masks that do not say so."""
    listed = b"\n".join(folder.images).lower()
    if b".png" not in listed or b".jp" not in listed:
        return
    names = [os.fsdecode(bytes(name)) for name in folder.images]
    png = {stem_of(name): name for name in names if extension_of(name) == "png"}
    others = {stem_of(name) for name in names if extension_of(name) != "png"}
    if len(png) < 2 or not png.keys() <= others or 2 * len(png) < len(others):
        return
    first = list(png.values())[:_NUM_LOOKED_AT]
    if all(_is_of_indices(root / folder.path / name) for name in first):
        pattern = join_path(folder.path, "*.png")
        raise UserError(
            f"each {pattern} has the name of an image beside it, and one channel ({some(first)}): "
            f"are these masks? Then say so: --masks {shell_word(str(root))}; or leave them out: "
            f"{leaving_out(pattern)}; or, if these are no masks: --no-masks"
        )


def _is_of_indices(path: Path) -> bool:
    """Return whether a PNG is of gray levels or a palette."""
    try:
        with path.open("rb") as file:
            header = file.read(26)
    except OSError:
        return False
    return header.startswith(b"\x89PNG") and header[25:26] in (b"\0", b"\3")


def _sibling_pairs(folder: Folder) -> list[tuple[Folder, Folder, str]]:
    """Find folders of masks, each with the folder of its images and the name of the member."""
    folders = folder.with_images()
    names = [read_folder_name(other.name) for other in folders]
    found: list[tuple[Folder, Folder, str]] = []
    taken: set[tuple[int, str]] = set()
    for number in sorted(range(len(folders)), key=lambda number: names[number].rank):
        name, masks = names[number], folders[number]
        if name.rank < 0:
            continue
        images = _partner(folder, list(zip(names, folders, strict=True)), name, masks)
        if images is None and not name.is_other:
            _check_is_class(masks, [other for other in folders if other is not masks])
        if images is None or (name.is_other and not images.is_of_images):
            continue
        member = name.member if name.is_other or (id(images), MASK) in taken else MASK
        taken.add((id(images), member))
        found.append((masks, images, member))
    return found


def _partner(
    folder: Folder,
    folders: Sequence[tuple[FolderName, Folder]],
    name: FolderName,
    masks: Folder,
) -> Folder | None:
    """Find the folder of the images that a folder of masks belongs to."""
    others = [(other, found) for other, found in folders if other.rank < 0]
    of_images = [(other, found) for other, found in others if other.is_of_images]
    fitting = [found for other, found in of_images if other.beside_images == name.rest]
    if not fitting and len(of_images) == 1 and not of_images[0][0].beside_images:
        fitting = [of_images[0][1]]
    if fitting:
        fitting[0].is_of_images = True
        return fitting[0]
    alike = [found for other, found in others if name.rest and other.rest == name.rest]
    if alike:
        return alike[0]
    if len(folder.images) and not name.rest:
        return folder
    only = others[0][1] if len(others) == 1 else None
    return only if only is not None and _look_like_masks(masks, only) else None


def _check_is_class(folder: Folder, others: Sequence[Folder]) -> None:
    """Refuse a folder named like masks that is no class, since only its files are of their type."""
    if others and all(_are_types_apart(folder, other) for other in others):
        raise UserError(
            f"{folder.path}/ is named like masks and holds what masks are stored as, unlike the "
            f"folders beside it ({some([other.name for other in others])}), but no folder is named "
            f"like the one of their images. Call that images/; or leave the masks out: "
            f"{leaving_out(folder.path)}; or, if these are no masks: --no-masks"
        )


def _look_like_masks(masks: Folder, images: Folder) -> bool:
    """Return whether all files are of a type of masks, unlike images of the same names."""
    stems, others = (
        {stem_of(name.rpartition("/")[2]) for name in _all_paths(folder)}
        for folder in (masks, images)
    )
    return _are_types_apart(masks, images) and 2 * len(stems & others) >= len(stems)


def _are_types_apart(masks: Folder, images: Folder) -> bool:
    types, others = (
        {extension_of(name) for name in _all_paths(folder)} for folder in (masks, images)
    )
    return types <= {*MASK_EXTENSIONS} and types.isdisjoint(others)


def _all_paths(folder: Folder) -> list[str]:
    return [os.fsdecode(bytes(path)) for path in folder.image_paths()]


def _attach(masks: Folder, images: Folder, member: str, pairs: Pairs, *, whole: bool) -> None:
    """Pair the files of a folder of masks with images of the same name, folder by folder.

    Args:
        masks: The folder of masks.
        images: The folder of images.
        member: Name of the member.
        pairs: Where the result is added.
        whole: Whether folders below `images` are meant as well; else only what lies directly in it.
    """
    places: dict[tuple[str, ...], Folder] = _by_place(images) if whole else {(): images}
    while not len(masks.images) and len(masks.with_images()) == 1:
        (only,) = masks.with_images()
        if _place(masks, only) in places:
            break
        masks = only  # as annotations/trimaps/
    num_files = num_paired = 0
    lost: list[LeftOut] = []
    for place, folder in _by_place(masks).items():
        num_files += len(folder.images)
        target = places.get(place)
        found, orphans = matched(folder, target)
        lost += orphans
        if target is not None and len(folder.images):
            target.members[member] = found
            num_paired += int((found != NO_FILE).sum())
    if num_paired == 0:
        raise UserError(_none_pairs(masks, images, lost))
    used = num_files - len(lost)
    pairs.pairings.append(Pairing(member, f"{masks.path}/", _title(images), used, num_paired))
    pairs.left_out += lost


def _by_place(folder: Folder) -> dict[tuple[str, ...], Folder]:
    """Return all folders below by their path, where split folders have the name of the split."""
    return {_place(folder, other): other for other in folder.walk()}


def _place(folder: Folder, other: Folder) -> tuple[str, ...]:
    parts = other.path.split("/")[len(folder.path.split("/")) :]
    return tuple(split_of_name(part) or part for part in parts)


def matched(masks: Folder, images: Folder | None) -> tuple[Names, list[LeftOut]]:
    """Find the mask of every image by name; also the masks that remain, with reasons.

    Args:
        masks: Their folder.
        images: That of the images; None if there is none.

    Returns:
        Paths of masks by image, and what belongs to none.
    """
    names = [os.fsdecode(bytes(name)) for name in masks.images]
    usable: dict[str, str] = {}
    orphans = []
    for name in sorted(names, key=_preference):
        if extension_of(name) not in MASK_EXTENSIONS:
            orphans.append(
                LeftOut(join_path(masks.path, name), "a mask must be a PNG or an .npy file")
            )
        elif stem_of(name) in usable:
            orphans.append(
                LeftOut(join_path(masks.path, name), "there is another mask of this name")
            )
        else:
            usable[stem_of(name)] = name
    stems = [] if images is None else [stem_of(os.fsdecode(bytes(n))) for n in images.images]
    mask_of = partners(list(usable), stems)
    found = [usable.get(mask_of.get(stem, ""), "") for stem in stems]
    used = set(mask_of.values())
    orphans += [
        LeftOut(join_path(masks.path, name), "a mask without an image")
        for stem, name in usable.items()
        if stem not in used
    ]
    return as_files([join_path(masks.path, name) if name else "" for name in found]), orphans


def _pair_beside(folder: Folder, pairs: Pairs) -> None:
    """Pair masks that lie beside their images."""
    if not may_hold_masks(b"\0".join(folder.images)):
        return
    names = [os.fsdecode(bytes(name)) for name in folder.images]
    split = [split_mask_name(stem_of(name)) for name in names]
    numbers = _numbers_of_images(names, split)
    endings = {found[1] for found in split if found is not None and found[0] in numbers}
    if not endings:
        if all(split):
            _check_not_only_masks(folder, names)
        return
    paths = [""] * len(names)
    for name, found in zip(names, split, strict=True):
        if found is None or found[1] not in endings:
            continue
        path = join_path(folder.path, name)
        if found[0] not in numbers:
            pairs.left_out.append(LeftOut(path, "a mask without an image"))
        elif extension_of(name) not in MASK_EXTENSIONS:
            pairs.left_out.append(LeftOut(path, "a mask must be a PNG or an .npy file"))
        else:
            paths[numbers[found[0]]] = path
    masks = as_files(paths)
    num_paired = int((masks != NO_FILE).sum())
    if num_paired:
        folder.members[MASK] = masks
        title = f"the files *_{sorted(endings)[0]}"
        pairs.pairings.append(Pairing(MASK, title, _title(folder), num_paired, num_paired))
    folder.keep_images(np.array([found is None or found[1] not in endings for found in split]))


def _numbers_of_images(
    names: Sequence[str], split: Sequence[tuple[str, str] | None]
) -> dict[str, int]:
    """Return the numbers of files that are no masks, by name without extension and with less."""
    numbers: dict[str, int] = {}
    for number, (name, found) in enumerate(zip(names, split, strict=True)):
        if found is None:
            numbers.setdefault(image_key(stem_of(name)), number)
            numbers[stem_of(name)] = number
    return numbers


def _check_not_only_masks(folder: Folder, names: Sequence[str]) -> None:
    if len(names) > 1 and {extension_of(name) for name in names} <= {*MASK_EXTENSIONS}:
        raise UserError(
            f"all {len(names)} files of {_title(folder)} are named like masks ({some(names)}), and "
            "their images are not there. Put each beside its image; or leave them out: "
            f"{leaving_out(join_path(folder.path, '*'))}; or, if these are no masks: --no-masks"
        )


def _pair_boxes(folder: Folder, pairs: Pairs) -> None:
    """Pair `NAME.boxes.json` with the image NAME."""
    if not len(folder.boxes):
        return
    names = [os.fsdecode(bytes(name)) for name in folder.boxes]
    stems = {name[: -len(BOXES_ENDING)]: name for name in names}
    images = [stem_of(os.fsdecode(bytes(name))) for name in folder.images]
    found = [join_path(folder.path, stems[stem]) if stem in stems else "" for stem in images]
    num_paired = sum(map(bool, found))
    for stem in sorted(stems.keys() - set(images)):
        path = join_path(folder.path, stems[stem])
        pairs.left_out.append(LeftOut(path, "boxes without an image"))
    if num_paired:
        folder.members[BOXES] = as_files(found)
        pairs.pairings.append(
            Pairing(BOXES, f"the files *{BOXES_ENDING}", _title(folder), num_paired, num_paired)
        )


def _none_pairs(masks: Folder, images: Folder, lost: Sequence[LeftOut]) -> str:
    names = images.image_paths()
    example = os.fsdecode(bytes(names[0])) if len(names) else "none"
    if all("PNG" in file.reason for file in lost):
        reason = f"holds no mask that can be read ({lost[0].name}: a mask must be a PNG or an .npy)"
    else:
        reason = f"is named like masks of {_title(images)}, but no names pair, such as "
        reason += f"{lost[0].name} and {example}"
    return (
        f"{masks.path}/ {reason}. Give each mask the name of its image; or leave the folder out: "
        f"{leaving_out(masks.path)}; or, if these are no masks: --no-masks"
    )


def _title(folder: Folder) -> str:
    return shown(f"{folder.path}/") if folder.path else "./"


def _paths(folder: Folder, names: Names) -> list[str]:
    return [join_path(folder.path, os.fsdecode(bytes(name))) for name in names]


def join_path(path: str, name: str) -> str:
    """Return the path of what lies in a folder, whose own may be ""."""
    return f"{path}/{name}" if path else name


def stem_of(name: str) -> str:
    """Return the name of a file without its last extension."""
    return os.path.splitext(name)[0]


def _preference(name: str) -> tuple[int, str]:
    extension = extension_of(name)
    known = extension in MASK_EXTENSIONS
    return (MASK_EXTENSIONS.index(extension) if known else len(MASK_EXTENSIONS), name)


def as_files(paths: Sequence[str]) -> Names:
    """Return paths as `Folder.members` holds them."""
    return np.array([os.fsencode(path) for path in paths], dtype=np.bytes_)

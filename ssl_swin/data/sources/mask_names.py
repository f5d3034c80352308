"""Names of masks: which folder is one of masks, and which mask has the name of which image."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from ssl_swin.data.split_names import IMAGE_WORDS, split_of_name, words_of

_MASK_WORDS = (  # in names of folders, the surest first
    "mask masks annotation annotations annot annots label labels segmentation segmentations "
    "seg segs semantic semantics gt ground groundtruth trimap trimaps matte mattes manual"
).split()
# Folders of other things per pixel; each is a member of its own name.
_OTHER_WORDS = (
    "instance instances instanceids object objects panoptic depth depths disparity normal normals "
    "edge edges"
).split()
_NO_MEANING = frozenset(
    "class truth ids raw png npy jpg jpeg tif tiff gif bmp st bit left 8 fine coarse".split()
)
_MASK_ENDING = re.compile(  # of the name of a mask that lies beside its image
    r"(.+?)(?:_gt(?:fine|coarse))?[._ -]+"
    r"(masks?|segmentation|seg|label_?map|label_?ids|labeltrainids|ground_?truth|gt|matte|trimap)",
    re.IGNORECASE,
)
_MASK_ENDING_HINTS = (b"mask", b"seg", b"map", b"ids", b"truth", b"gt", b"matte", b"trimap")
_IMAGE_ENDING = re.compile(r"[._ -](?:sat|image|img|rgb|leftimg8bit|original|input|0000)$", re.I)


class FolderName(NamedTuple):
    """What the name of a folder says of masks.

    Attributes:
        rank: How sure it is one of masks or of other things per pixel, the surest first; -1 if it
            is not.
        is_other: Whether it is one of other things than masks, such as instances.
        rest: Words that remain, where split words have the name of the split.
        member: Name of a member that is called like the folder.
    """

    rank: int
    is_other: bool
    rest: frozenset[str]
    member: str

    @property
    def is_of_images(self) -> bool:
        """Whether it says that the folder holds images."""
        return self.rank < 0 and not self.rest.isdisjoint(IMAGE_WORDS)

    @property
    def beside_images(self) -> frozenset[str]:
        """Words that are left without those for images."""
        return self.rest - IMAGE_WORDS


def read_folder_name(name: str) -> FolderName:
    """Return what the name of a folder says of masks."""
    words = words_of(name)
    masks = [_MASK_WORDS.index(word) for word in words if word in _MASK_WORDS]
    others = [_OTHER_WORDS.index(word) for word in words if word in _OTHER_WORDS]
    rest = {split_of_name(word) or word for word in words}
    rest -= {*_MASK_WORDS, *_OTHER_WORDS, *_NO_MEANING}
    rank = len(_MASK_WORDS) + others[0] if others else min(masks, default=-1)
    return FolderName(rank, bool(others), frozenset(rest), "_".join(words))


def is_named_like_masks(name: str) -> bool:
    """Return whether the name of a folder says that it holds masks or other things per pixel."""
    return read_folder_name(name).rank >= 0


def may_hold_masks(names: bytes) -> bool:
    """Return whether any of many file names, joined, may be that of a mask beside its image."""
    lower = names.lower()
    return any(hint in lower for hint in _MASK_ENDING_HINTS)


def split_mask_name(stem: str) -> tuple[str, str] | None:
    """Return the name of the image and the ending of a mask's name, such as ("0001", "mask").

    Args:
        stem: Name of the file without its extension.

    Returns:
        None for a name that has no such ending.
    """
    match = _MASK_ENDING.fullmatch(stem)
    return (match[1], match[2].lower()) if match else None


def image_key(stem: str) -> str:
    """Return the name of an image without endings such as "_sat" and "_rgb"."""
    return _IMAGE_ENDING.sub("", stem)


def partners(masks: Sequence[str], images: Sequence[str]) -> dict[str, str]:
    """Return the name of the mask by that of the image: equal, or with endings as in use.

    Args:
        masks: Names of masks without their extensions.
        images: Names of images without their extensions.
    """
    known = set(masks)
    equal = {stem: stem for stem in images if stem in known}
    if equal or not masks or not images:
        return equal
    split = {mask: split_mask_name(mask) for mask in masks}
    by_key = {mask: mask for mask in masks}
    by_key |= {found[0]: mask for mask, found in split.items() if found is not None}
    by_key |= _by_shared_ending(masks, images)
    keys = {stem: stem if stem in by_key else image_key(stem) for stem in images}
    return {stem: by_key[key] for stem, key in keys.items() if key in by_key}


def _by_shared_ending(masks: Sequence[str], images: Sequence[str]) -> dict[str, str]:
    """Return masks by the name of the image if one ending, such as "_L", makes them of all."""
    first = max((stem for stem in images if masks[0].startswith(stem)), key=len, default=None)
    if not first or masks[0] == first or masks[0][len(first)].isalnum():
        return {}
    ending = masks[0][len(first) :]
    return {mask.removesuffix(ending): mask for mask in masks if mask.endswith(ending)}

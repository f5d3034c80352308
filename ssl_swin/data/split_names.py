"""Which names mean which split of a data set."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

SPLIT_NAMES = {  # words in use, and the name of the split here
    "train": "train",
    "training": "train",
    "trainset": "train",
    "trainval": "train",
    "trn": "train",
    "val": "val",
    "vals": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "validationset": "val",
    "validset": "val",
    "valset": "val",
    "dev": "val",
    "devel": "val",
    "devset": "val",
    "eval": "val",
    "evaluate": "val",
    "evaluation": "val",
    "evalset": "val",
    "holdout": "val",
    "heldout": "val",
    "test": "test",
    "tests": "test",
    "tst": "test",
    "testing": "test",
    "testset": "test",
    "testdev": "test",
}
IMAGE_WORDS = frozenset(
    "image images img imgs jpegimages photo photos picture pictures pic pics rgb input inputs "
    "original originals frame frames leftimg".split()
)
# Words that say nothing of what a folder holds, so that a name of them and a split is the split.
_FILLERS = IMAGE_WORDS | frozenset(
    "a b c x y bit data dataset set sets split splits fold part parts stage folder files subset "
    "jpg jpeg png tif tiff hr lr px resized cropped new final public private".split()
)
_GLUED = re.compile(  # as in "trainannot", "valimages"
    "(train|val|test)(images?|imgs?|annots?|annotations?|masks?|labels?|gt|data)"
)
_SHORT = {"tr": "train", "ts": "test"}  # after "images" or "labels": "imagesTr"


class SplitNames(NamedTuple):
    """What the names of some folders or files that lie together say of splits.

    Either all of them are splits, or none is; `mixed` has the names of splits where neither holds.
    """

    splits: Mapping[str, str]  # by name; empty if they are not all splits
    mixed: Sequence[str]  # names that say a split among names that do not


def split_in_name(name: str) -> str | None:
    """Return the split that the first fitting word of a file name or path names.

    Args:
        name: A file name or a path, such as "imagenet1k-validation-00.tar".

    Returns:
        "train", "val" or "test"; None if no word of the name is the name of a split.
    """
    words = re.findall("[a-z]+", name.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


def words_of(name: str) -> tuple[str, ...]:
    """Return the words and numbers of a name in lower case.

    Words end at what is no letter, and where a small letter is followed by a capital one, so that
    "TrainImages" and "train_images" are the same.
    """
    found = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_]+", name)
    words: list[str] = []
    for word in map(str.lower, found):
        glued = _GLUED.fullmatch(word)
        if words and words[-1] in ("images", "labels"):
            word = _SHORT.get(word, word)
        words += glued.groups() if glued and word not in SPLIT_NAMES else (word,)
    return tuple(words)


def split_of_name(name: str, shared: Collection[str] = ()) -> str | None:
    """Return the split that a folder's name is, not only mentions.

    "train2017", "Training Images" and "val_set" are splits; "bullet train" and "test_tube" are not.

    Args:
        name: Name of the folder.
        shared: Words without a meaning, because all names beside this one have them as well.

    Returns:
        "train", "val" or "test"; None for every other name.
    """
    whole = SPLIT_NAMES.get(re.sub("[^a-z]", "", name.lower()))
    if whole is not None:
        return whole
    words = [word for word in words_of(name) if not word.isdigit()]
    found = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    others = {word for word in words if word not in SPLIT_NAMES} - _FILLERS - set(shared)
    return found.pop() if len(found) == 1 and not others else None


def read_split_names(names: Iterable[str]) -> SplitNames:
    """Find out whether names that lie together are those of splits.

    Names that only mention splits, where none is one, are mixed if training and evaluation are both
    mentioned, as in "dogs_train", "dogs_test", "cats", or if all of them mention evaluation.
    """
    names = list(names)
    words = [set(words_of(name)) - SPLIT_NAMES.keys() for name in names]
    shared = set.intersection(*words) if len(words) > 1 else set()
    splits = {name: split_of_name(name, shared) for name in names}
    known = {name: split for name, split in splits.items() if split is not None}
    if known and len(known) == len(names):
        return SplitNames(known, ())
    mentioned = {name: split_in_words(name) for name in names}
    kinds = {split == "train" for split in mentioned.values() if split is not None}
    if known:
        return SplitNames({}, list(known))
    if len(kinds) == 2 or (kinds == {False} and None not in mentioned.values()):
        return SplitNames({}, [name for name, split in mentioned.items() if split is not None])
    return SplitNames({}, ())


def split_in_words(name: str) -> str | None:
    """Return the split that the first fitting word of a folder's name mentions."""
    return next((SPLIT_NAMES[word] for word in words_of(name) if word in SPLIT_NAMES), None)

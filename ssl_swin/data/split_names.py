"""Which names mean which split of a data set."""

import re

SPLIT_NAMES = {  # names in use, and the name of the split here
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


def split_in_name(name: str) -> str | None:
    """Return the split that the first fitting word of a file name or path names.

    Args:
        name: A file name or a path, such as "imagenet1k-validation-00.tar".

    Returns:
        "train", "val" or "test"; None if no word of the name is the name of a split.
    """
    words = re.findall("[a-z]+", name.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)

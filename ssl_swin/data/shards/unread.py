"""What a folder of shards holds that is not read: labels, other images, other files."""

from collections.abc import Iterator

from ssl_swin.data.dataset import NO_LABEL
from ssl_swin.data.encoded import MASK, further_member_name, member_extension
from ssl_swin.data.file_types import IMAGE_EXTENSIONS
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.finding import find_compressed, find_shards, named_split, shards_below
from ssl_swin.data.shards.index_file import CLASSES_NAME, ShardIndex
from ssl_swin.data.shards.labels import label_keys
from ssl_swin.errors import UserError
from ssl_swin.quoting import shell_path

LABEL_WORDS = (
    "label", "labels", "class", "cls", "category", "target", "class_id", "class_name",
    "label_name", "class_label", "category_id", "category_name", "fine_label", "species",
)  # fmt: skip
_HELD_OUT = ("val", "valid", "validation", "test")  # names of folders
_MOST_LISTED = 5
_NUM_LOOKED_AT = 1000  # samples of a split that decide whether it has labels


def unread_at_start(index: ShardIndex) -> list[str]:
    """Return what a run is to be told of: labels and files that it does not read.

    Args:
        index: Index of shards that lie on this machine.
    """
    return [
        *_labels(index, f"ssl-swin index {shell_path(index.root)} --label-key KEY"),
        *_compressed(index),
    ]


def unread_after_indexing(index: ShardIndex, *, is_local: bool) -> list[str]:
    """Return what the indexing of a set is to tell of it, a line each.

    Args:
        index: The index.
        is_local: Whether the shards lie on this machine.
    """
    lines = [*_other_images(index), *_labels(index, "--label-key KEY")]
    lines += _names(index, "beside the shards" if is_local else "to --out")
    lines += _splits(index)
    if is_local:
        lines += [*_compressed(index), *_below(index)]
    return lines


def _other_images(index: ShardIndex) -> Iterator[str]:
    others = [
        extension
        for extension in index.members
        if member_extension(extension) in IMAGE_EXTENSIONS
        and further_member_name(extension) != MASK
    ]
    if others and index.layout.image is None:
        yield (
            f"samples hold other images than the first plain one: {_some(others)}; --image "
            f"EXTENSION, as --image {others[0]}, takes another"
        )


def _labels(index: ShardIndex, command: str) -> Iterator[str]:
    if index.layout.label_key is not None or _has_labels(index):
        return
    held = [e for e in index.members if {e, *e.split(".")} & set(LABEL_WORDS)]
    keys = _json_keys(index)
    named = [key for key in keys if key.rpartition(".")[2].lower() in LABEL_WORDS]
    if named:
        command = command.replace("KEY", named[0])
        yield f"labels are not read: samples hold .json files with the key {named[0]}: {command}"
    elif held:
        command = command.replace("KEY", f"{held[0]}:")
        yield f"labels are not read: samples hold .{held[0]} files: {command}"


def _has_labels(index: ShardIndex) -> bool:
    labels = (index.extents(split)["label"][:_NUM_LOOKED_AT] for split in index.splits)
    return any((of_split != NO_LABEL).any() for of_split in labels)


def _json_keys(index: ShardIndex) -> list[str]:
    """Return the keys in the JSON of the first sample; none where that cannot be read."""
    if "json" not in index.members:
        return []
    split = next(split for split in index.splits if index.num_samples(split))
    try:
        sample = ShardDataset(index, split, members=["json"])[0]
        return label_keys(sample.member("json").data)
    except (OSError, UserError):
        return []


def _names(index: ShardIndex, where: str) -> Iterator[str]:
    if not index.classes and _has_labels(index):
        highest = max(index.extents(split)["label"].max(initial=0) for split in index.splits)
        yield (
            f"labels are numbers up to {highest}, and their classes have no names: write "
            f"{CLASSES_NAME} {where}, a name per line, and index them anew"
        )


def _splits(index: ShardIndex) -> Iterator[str]:
    """Tell of images that are for training because nothing says otherwise."""
    names = [shard.name for shard in index.splits.get("train", ())]
    unnamed = [name for name in names if named_split(name) is None]
    if unnamed and (len(index.splits) > 1 or len(unnamed) < len(names)):
        yield f"train, as their names say no split: {_some(unnamed)}"
    elif list(index.splits) == ["train"] and index.root.name.lower() in _HELD_OUT:
        yield (
            f"the folder is called {index.root.name}, and its images are train; to have them as "
            f"another split, index the folder above: {index.root.parent}"
        )


def _compressed(index: ShardIndex) -> Iterator[str]:
    if names := find_compressed(index.root):
        yield (
            f"not read, being compressed: {_some(names)}; decompress what belongs to the set, and "
            f"index it anew: ssl-swin index {shell_path(index.root)}"
        )


def _below(index: ShardIndex) -> Iterator[str]:
    if not any("/" in name for name in find_shards(index.root)):
        if names := shards_below(index.root):
            yield f"not read, since shards lie above them: {_some(names)}"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_MOST_LISTED])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > _MOST_LISTED else shown

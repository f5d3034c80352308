"""Images to compute something of: whatever holds them, as one data set in its own order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import IMAGE
from ssl_swin.data.remote.dataset import open_remote
from ssl_swin.data.remote.fetch import is_remote
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.index import open_index
from ssl_swin.data.sources.labelled import RelabelledDataset
from ssl_swin.data.sources.layout import Reading
from ssl_swin.data.sources.opening import open_data
from ssl_swin.data.together import Together
from ssl_swin.errors import UserError


@dataclass(frozen=True)
class Images:
    """Images that were found.

    Attributes:
        dataset: All of them; with several splits, each is named SPLIT/NAME.
        notes: Lines on what was found out about their layout.
    """

    dataset: ImageDataset
    notes: tuple[str, ...] = ()


def open_images(
    place: str | Path,
    *,
    reading: Reading = Reading(),  # noqa: B008 - it is frozen
    split: str | None = None,
    index_dir: str | None = None,
    cache: Mapping[str, Any],
    with_members: bool = False,
) -> Images:
    """Open images, labelled or not.

    Args:
        place: Whatever `ssl-swin pack` takes, a folder of shards, or a URL or pipe of shards.
        reading: How a folder or file is read.
        split: The only split to take; None takes all.
        index_dir: Folder of the index of shards, where it does not lie beside them.
        cache: The other arguments of `open_remote`, for remote shards.
        with_members: Whether what belongs to an image, as a mask, is read too.

    Raises:
        UserError: If there are no images, or no such split.
    """
    members = None if with_members else (IMAGE,)
    splits, notes = _splits(place, reading, index_dir, cache, members)
    return together(splits, place, split, notes)


def together(
    splits: Mapping[str, ImageDataset],
    place: str | Path,
    split: str | None,
    notes: Sequence[str] = (),
) -> Images:
    """Return the images of splits as one data set.

    Args:
        splits: By name.
        place: Where they are, for messages.
        split: The only one to take; None takes all.
        notes: Lines on what was found out about them.

    Raises:
        UserError: If there are no images, or no such split.
    """
    if split is not None:
        if split not in splits:
            raise UserError(f"{place} has no split {split}, only: {', '.join(splits)}")
        splits = {split: splits[split]}
    splits = {name: each for name, each in splits.items() if len(each)}
    if not splits:
        raise UserError(f"{place} holds no image")
    if len(splits) > 1:
        return Images(Together(splits), tuple(notes))
    return Images(next(iter(splits.values())), tuple(notes))


def _splits(
    place: str | Path,
    reading: Reading,
    index_dir: str | None,
    cache: Mapping[str, Any],
    members: tuple[str, ...] | None,
) -> tuple[dict[str, ImageDataset], tuple[str, ...]]:
    shards: Mapping[str, ImageDataset]
    if is_remote(str(place)):
        shards = open_remote(str(place), index_dir=index_dir, members=members, **cache)
    elif index_dir is not None:
        index = open_index(Path(place), index_dir)
        shards = {s: ShardDataset(index, s, members=members) for s in index.splits}
    else:
        opened = open_data(Path(place), reading, members=members, any_split=True)
        return opened.splits, tuple(opened.notes)
    if reading.labelled:
        return dict(shards), ()
    return {name: RelabelledDataset(each) for name, each in shards.items()}, ()

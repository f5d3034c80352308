"""What a new index keeps of the one before: class names, and which files are image and label."""

from collections.abc import Sequence
from pathlib import Path

from ssl_swin.data.shards.index_file import CLASSES_NAME, INDEX_NAME, read_choices
from ssl_swin.data.shards.layout import SampleLayout
from ssl_swin.errors import UserError


def kept_layout(layout: SampleLayout, folders: Sequence[Path]) -> SampleLayout:
    """Return a layout, completed by that of the index before.

    Args:
        layout: What is asked for now.
        folders: Folders that may hold an index; the first one that does counts.

    Raises:
        UserError: If an index cannot be read.
    """
    for path in (folder / INDEX_NAME for folder in folders):
        if path.exists():
            before, _ = read_choices(path)
            return SampleLayout(layout.image or before.image, layout.label_key or before.label_key)
    return layout


def kept_classes(
    layout: SampleLayout, folders: Sequence[Path], within: Sequence[Path] = ()
) -> tuple[str, ...]:
    """Return class names from an index that exists, of any version, or from `classes.txt`.

    Args:
        layout: Where labels are read from; names of an index that read them elsewhere do not count.
        folders: Folders of the set and of its index. The first that has an index with names counts,
            else the first that has a list.
        within: Sub-folders of the set, where nothing is found in `folders`; they must agree.

    Raises:
        UserError: If a list is no text in UTF-8, an index cannot be read, or sub-folders differ.
    """
    for names_in in (_indexed_classes, _listed_classes):
        for folder in folders:
            if names := names_in(folder, layout):
                return names
    found = {
        names: folder
        for names_in in (_indexed_classes, _listed_classes)
        for folder in within
        if (names := names_in(folder, layout))
    }
    if len(found) > 1:
        (first, one), (second, other), *_ = found.items()
        raise UserError(
            f"the class names in {one} and in {other} differ ({len(first)} and {len(second)}), so "
            f"that labels mean different classes. Write {CLASSES_NAME} beside the folders, or give "
            "one of them"
        )
    return next(iter(found), ())


def _indexed_classes(folder: Path, layout: SampleLayout) -> tuple[str, ...]:
    path = folder / INDEX_NAME
    if not path.exists():
        return ()
    before, classes = read_choices(path)
    return classes if layout.label_key == before.label_key else ()


def _listed_classes(folder: Path, _: SampleLayout) -> tuple[str, ...]:
    path = folder / CLASSES_NAME
    try:
        lines = path.read_text("utf-8-sig").splitlines() if path.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the class names in {path}: {error}") from error
    return tuple(line.strip() for line in lines if line.strip())

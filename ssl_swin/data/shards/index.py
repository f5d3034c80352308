"""Opening the index of a folder of shards, so that a loss is noticed before a run starts."""

import os
import shlex
from pathlib import Path

from filelock import FileLock

from ssl_swin.data.shards.finding import find_shards
from ssl_swin.data.shards.index_file import (
    INDEX_NAME,
    ShardIndex,
    index_from_content,
    read_content,
)
from ssl_swin.data.shards.layout import CONVENTION, SampleLayout
from ssl_swin.errors import UserError
from ssl_swin.quoting import shell_path


def open_index(
    root: str | os.PathLike[str],
    index_dir: str | os.PathLike[str] | None = None,
    layout: SampleLayout = CONVENTION,
) -> ShardIndex:
    """Load the index of a folder of shards, after building it if there is none.

    An index of version 1, which does not list byte ranges, is built anew with its class names. Of
    several processes that come at once, one builds and the others wait.

    Args:
        root: Folder of the shards.
        index_dir: Folder of the index, which must exist; None is `root`.
        layout: Which files of a sample are the image and the label, where the user said so.

    Raises:
        UserError: If there is no folder, no shard or an unfinished packing, or the index was made
            with another layout; see also `load_index` and `build_index`.
    """
    from ssl_swin.data.shards.indexing import build_index, make_index_folder

    if not Path(root).is_dir():
        raise UserError(
            f"no shards: there is no folder {root}. Make it: ssl-swin pack IMAGES "
            f"{shell_path(root)}"
        )
    check_index_dir(root, index_dir)
    path = Path(index_dir or root) / INDEX_NAME
    if _must_be_built(path):
        with FileLock(make_index_folder(root, index_dir) / ".index.lock"):
            if _must_be_built(path):
                build_index(root, index_dir, layout=layout)
    index = load_index(root, index_dir)
    check_layout(index, layout, _command(root, index_dir))
    return index


def check_index_dir(root: str | os.PathLike[str], index_dir: str | os.PathLike[str] | None) -> None:
    """Refuse a folder for an index that is not there.

    Args:
        root: Folder or URL of the shards, for the message.
        index_dir: Folder of the index; None is that of the shards, and always right.

    Raises:
        UserError: If it is empty, or no folder.
    """
    if index_dir is None or (str(index_dir).strip() and Path(index_dir).is_dir()):
        return
    if not str(index_dir).strip():
        problem = "is empty"
    elif Path(index_dir).exists():
        problem = f"is no folder: {index_dir}"
    else:
        problem = f"names a folder that does not exist: {index_dir}"
    command = _command(root, str(index_dir).strip() or "DIR")
    raise UserError(
        f"data.index_dir {problem}. Make the index: {command}; or leave data.index_dir=null, which "
        "takes the one beside the shards"
    )


def check_layout(index: ShardIndex, layout: SampleLayout, command: str) -> None:
    """Refuse an index that took other files for image or label than the user says.

    Args:
        index: The index.
        layout: What the user says; what it leaves open is the index's choice.
        command: Command that makes the index anew.

    Raises:
        UserError: If the two differ.
    """
    held = index.layout
    for setting, option, asked, found, usual in (
        ("image", "--image", layout.image, held.image, "the first plain image (jpg, png, ...)"),
        ("label_key", "--label-key", layout.label_key, held.label_key, "the number in .cls"),
    ):
        if asked is not None and asked != found:
            raise UserError(
                f"data.{setting} is {asked}, but the index in {index.folder} was made with "
                f"{found or usual}.\nIndex the shards anew: {command} {option} {shlex.quote(asked)}"
                f"\nor leave data.{setting}=null, which takes what the index has"
            )


def load_index(
    root: str | os.PathLike[str],
    index_dir: str | os.PathLike[str] | None = None,
    *,
    check_shards: bool = True,
) -> ShardIndex:
    """Read `index.json`, and check that it lists every shard, each with its length on disk.

    Args:
        root: Folder of the shards.
        index_dir: Folder of the index; None is `root`.
        check_shards: Whether to look at the shards; not when they have yet to be fetched.

    Raises:
        UserError: If a shard is missing, has another size or is not listed, or the index is
            missing, damaged or of version 1.
    """
    folder = Path(index_dir or root)
    path = folder / INDEX_NAME
    command = _command(root, index_dir)
    if not path.exists():
        raise UserError(f"no index: there is no {path}. Make it: {command}")
    content = read_content(path)
    if content.get("version") == 1:
        raise UserError(
            f"{path} is of version 1, which does not say where in its shard an image lies. Index "
            f"the shards anew, which keeps the class names: {command}"
        )
    index = index_from_content(Path(root), folder, content)
    _check_arrays(index, command)
    if check_shards:
        shards = [shard for split in index.splits.values() for shard in split]
        for shard in shards:
            _check_size(index.root / shard.name, shard.num_bytes)
        _check_listed(index.root, {shard.name for shard in shards}, command)
    return index


def _command(root: str | os.PathLike[str], index_dir: str | os.PathLike[str] | None) -> str:
    out = f" --out {shell_path(index_dir)}" if index_dir else ""
    return f"ssl-swin index {shell_path(root)}{out}"


def _must_be_built(path: Path) -> bool:
    return not path.exists() or read_content(path).get("version") == 1


def _check_arrays(index: ShardIndex, command: str) -> None:
    for array in index.arrays:
        path = index.folder / array.file_name
        found = path.stat().st_size if path.exists() else 0
        if found != array.num_bytes:
            raise UserError(
                f"{path} has {found} bytes, {INDEX_NAME} beside it needs {array.num_bytes}: "
                f"missing, truncated or of another set. Index the shards anew: {command}"
            )


def _check_size(path: Path, expected: int) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise UserError(
            f"shard {path} is missing; the index lists it with {expected} bytes. Copy it anew"
        ) from None
    if size != expected:
        raise UserError(
            f"shard {path} has {size} bytes, the index says {expected}: truncated or rewritten. "
            "Copy it anew"
        )


def _check_listed(root: Path, listed: set[str], command: str) -> None:
    others = [name for name in find_shards(root) if name not in listed]
    if others:
        raise UserError(
            f"{root} holds {len(others)} shards that its {INDEX_NAME} does not list, the first is "
            f"{others[0]}. Move them away, or index the shards anew: {command}"
        )

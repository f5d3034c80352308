"""Which files of a folder are shards: tars in it, or else in its sub-folders."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ssl_swin.data.shards.index_file import INDEX_NAME, PLAN_NAME
from ssl_swin.data.shards.tar import BLOCK
from ssl_swin.data.split_names import split_in_name
from ssl_swin.errors import UserError
from ssl_swin.quoting import shell_path

_GZIP, _BZIP2, _XZ = ("gz", "gunzip"), ("bz2", "bunzip2"), ("xz", "unxz")
_ZSTD, _LZ4 = ("zst", "unzstd --rm"), ("lz4", "unlz4 --rm")  # usual ending, and what decompresses
_COMPRESS = ("Z", "gunzip")
_ENDINGS = {
    ".tar.gz": _GZIP, ".tgz": _GZIP, ".tar.z": _COMPRESS, ".tar.bz2": _BZIP2, ".tbz2": _BZIP2,
    ".tbz": _BZIP2, ".tar.xz": _XZ, ".txz": _XZ, ".tar.zst": _ZSTD, ".tzst": _ZSTD,
    ".tar.lz4": _LZ4,
}  # fmt: skip
_CONTENTS = {  # first bytes of what is no tar
    b"\x1f\x8b": _GZIP,
    b"\x1f\x9d": _COMPRESS,
    b"BZh": _BZIP2,
    b"\xfd7zXZ\0": _XZ,
    b"\x28\xb5\x2f\xfd": _ZSTD,
    b"\x04\x22\x4d\x18": _LZ4,
}
_OTHER_CONTENTS = {  # first bytes of what else comes under the name .tar, and what to do
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself. Get it: git lfs pull",
    b"PK\x03\x04": "a zip archive. Unpack it, and pack the folder: ssl-swin pack FOLDER OUT",
    b"<!DOCTYPE": "a web page, not a tar. Download the shard anew",
    b"<html": "a web page, not a tar. Download the shard anew",
}
_SYSTEM_FOLDERS = ("@eadir", "#recycle", "$recycle.bin", "lost+found", "__macosx")
_MOST_DEPTH = 4  # folders below the root that are searched


class CompressedShardError(UserError):
    """A shard that must be decompressed before its images can be found by their place."""


def find_shards(root: Path) -> list[str]:
    """List the shards of a set.

    Tars that lie directly in the folder are the set. If there is none, those in its sub-folders
    are. Hidden files and folders, and those that systems make, are passed over.

    Args:
        root: Folder of the set.

    Returns:
        Paths relative to `root`, sorted, with forward slashes.

    Raises:
        UserError: If sub-folders are sets of their own.
    """
    here = [name for name in _files(root) if name.endswith(".tar")]
    here = here or [name for name in _files(root) if name.lower().endswith(".tar")]
    below = [] if here else sorted(_below(root, (".tar",)))
    _refuse_sets(root, below)
    return sorted(here) or below


def find_compressed(root: Path) -> list[str]:
    """List the files that are compressed tars by their names, and do not lie there as tars too.

    Args:
        root: Folder of a set.

    Returns:
        Paths relative to `root`, sorted: those in the folder, or those in its sub-folders where
        no shard of any kind lies in it.
    """
    endings = tuple(_ENDINGS)
    files = _files(root)
    here = [name for name in files if name.lower().endswith(endings)]
    is_flat = here or any(name.lower().endswith(".tar") for name in files)
    found = sorted(here if is_flat else _below(root, endings))
    return [name for name in found if not (root / f"{_stem(name)}.tar").exists()]


def shards_below(root: Path) -> list[str]:
    """List the tars in sub-folders of a set whose shards lie in the folder itself."""
    return sorted(_below(root, (".tar",)))


def splits_of(names: Sequence[str]) -> list[str]:
    """Return the split of each shard: what its path names, or else train.

    Args:
        names: Paths relative to the folder of the set, such as "val/000.tar" or "train-000.tar".

    Raises:
        UserError: If the parts of a path name different splits, or some folders name splits and
            others do not.
    """
    named = {name: named_split(name) for name in names}
    unnamed = [name for name, split in named.items() if split is None and "/" in name]
    if unnamed and any(named.values()):
        folders = sorted({name.rpartition("/")[0] for name in unnamed})
        raise UserError(
            f"some folders of shards name a split and others do not: {', '.join(folders[:5])}. "
            "Images to be held out could be trained on: rename each to a split, as train, val or "
            "test, or move away what does not belong to the set"
        )
    return [split or "train" for split in named.values()]


def named_split(name: str) -> str | None:
    """Return the split that the path of a shard names; None without any word for it.

    Args:
        name: Path relative to the folder of the set.

    Raises:
        UserError: If its parts name different splits.
    """
    *folders, file = name.split("/")
    named = {part: split for part in (*folders, file) if (split := split_in_name(part))}
    if len(set(named.values())) > 1:
        told = ", ".join(f"{part} says {split}" for part, split in named.items())
        raise UserError(
            f"shard {name}: it is open which split it belongs to: {told}. Rename one of them, or "
            "give one folder of shards alone"
        )
    return next(iter(named.values()), None)


def refuse_other_content(path: Path) -> None:
    """Refuse a file that has the name of a tar, but is something else by its first bytes.

    Args:
        path: A file that cannot be read as a tar.

    Raises:
        CompressedShardError: If it is compressed.
        UserError: If it is of another kind that is known.
        OSError: If it cannot be read.
    """
    start = _first_bytes(path)
    for magic, (ending, command) in _CONTENTS.items():
        if start.startswith(magic):
            named = shell_path(f"{path}.{ending}")
            raise _compressed(path, "", f"mv {shell_path(path)} {named} && {command} {named}")
    for magic, told in _OTHER_CONTENTS.items():
        if start.startswith(magic):
            raise UserError(f"shard {path} is {told}")


def compressed_error(root: Path, names: list[str]) -> CompressedShardError:
    """Return the error about a folder whose shards are all compressed.

    Args:
        root: Folder of the set.
        names: Its compressed shards, relative to it.
    """
    ending = next(end for end in _ENDINGS if names[0].lower().endswith(end))
    others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    _, command = _ENDINGS[ending]
    first = root / names[0]
    files = shell_path(first)
    if others:
        files = f"{shell_path(first.parent)}/*{first.name[-len(ending) :]}"
    return _compressed(first, others, f"{command} {files}")


def is_compressed_name(name: str) -> bool:
    """Return whether a file is a compressed tar by its name."""
    return name.lower().endswith(tuple(_ENDINGS))


def is_compressed(path: Path) -> bool:
    """Return whether a file is compressed, by its first bytes."""
    start = _first_bytes(path)
    return start.startswith(tuple(_CONTENTS)) and start[257:262] != b"ustar"


def refuse_unstreamable(path: Path) -> None:
    """Refuse a shard that is compressed in a way that Python's tarfile cannot read.

    Raises:
        CompressedShardError: If it is.
    """
    start = _first_bytes(path)
    for magic, (ending, command) in _CONTENTS.items():
        if start.startswith(magic) and (ending, command) in (_ZSTD, _LZ4, _COMPRESS):
            raise CompressedShardError(
                f"shard {path} is compressed as .{ending}; data.reader=stream reads tars that are "
                f"plain, or compressed by gzip, bzip2 or xz. Decompress it: {command} "
                f"{shell_path(path)}"
            )


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(BLOCK)


def _compressed(path: Path, others: str, command: str) -> CompressedShardError:
    return CompressedShardError(
        f"shard {path}{others} is compressed, so that images in it have no place to be indexed.\n"
        f"Decompress it: {command}\n"
        "or read it from front to back, in a less exact order: data=shards data.reader=stream\n"
        "or unpack it, and pack the images anew: ssl-swin pack FOLDER OUT"
    )


def _stem(name: str) -> str:
    ending = next(end for end in _ENDINGS if name.lower().endswith(end))
    return name[: -len(ending)]


def _files(folder: Path) -> list[str]:
    return [entry.name for entry in _visible(folder) if entry.is_file()]


def _below(root: Path, endings: tuple[str, ...], prefix: str = "", depth: int = 0) -> Iterator[str]:
    """Yield the files with certain endings in sub-folders, relative to the root."""
    for entry in _visible(root / prefix):
        path = f"{prefix}{entry.name}"
        if not entry.is_dir():
            if depth and path.lower().endswith(endings):
                yield path
        elif depth < _MOST_DEPTH and not _is_loop(entry):
            yield from _below(root, endings, f"{path}/", depth + 1)


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror}") from error
    return [
        entry
        for entry in entries
        if not entry.name.startswith(".") and entry.name.lower() not in _SYSTEM_FOLDERS
    ]


def _is_loop(entry: os.DirEntry[str]) -> bool:
    path = Path(entry.path)
    return entry.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())


def _refuse_sets(root: Path, names: list[str]) -> None:
    """Refuse to join sets that were packed or indexed one by one, or are being packed."""
    folders = sorted({name.rpartition("/")[0] for name in names})
    for folder in folders:
        if (root / folder / PLAN_NAME).exists():
            raise UserError(
                f"{root / folder} holds an interrupted packing: the same ssl-swin pack command "
                "completes it"
            )
    sets = [
        folder
        for folder in folders
        if (root / folder / INDEX_NAME).exists() and not split_in_name(folder.rpartition("/")[2])
    ]
    if sets and len(folders) > 1:
        raise UserError(
            f"{root} holds {len(folders)} folders of shards, and some are sets of their own, with "
            f"an index: {', '.join(sets[:5])}. Give one of them, such as {root / sets[0]}; to join "
            "sets, move the shards into one folder"
        )

"""The index of shards that lie elsewhere: brought here, or made from one look at each."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from braceexpand import braceexpand
from filelock import FileLock

from ssl_swin.data.remote.fetch import PIPE, fetch, open_url
from ssl_swin.data.shards.finding import (
    CompressedShardError,
    is_compressed_name,
    named_split,
    splits_of,
)
from ssl_swin.data.shards.index_file import (
    INDEX_NAME,
    IndexArray,
    ShardIndex,
    index_from_content,
    read_content,
)
from ssl_swin.data.shards.indexing import make_index_folder, write_scans
from ssl_swin.data.shards.layout import CONVENTION, SampleLayout
from ssl_swin.data.shards.scanning import LabelledScan, scan_labelled
from ssl_swin.display.work import followed
from ssl_swin.errors import UserError
from ssl_swin.files import make_folder, removed_if_empty
from ssl_swin.quoting import shell_path

_NUM_TRIES = 5
_FIRST_WAIT_S = 0.5


class _DamagedShard(UserError):
    """What was fetched is no sound shard."""


def fetch_index(
    root: str, folder: Path, *, num_tries: int = _NUM_TRIES, first_wait_s: float = _FIRST_WAIT_S
) -> None:
    """Fetch the index that lies beside remote shards, if it differs from the one in `folder`.

    Of several processes that come at once, one fetches and the others wait.

    Args:
        root: URL or pipe of the set, as `fetch` takes it.
        folder: Folder for the files of the index; created if need be.
        num_tries: Number of tries of each transfer.
        first_wait_s: Wait before the second try; it doubles before each further one.

    Raises:
        UserError: If there is none, it does not come completely, or it is of an older version.
    """
    fetch_patiently = partial(fetch, root, num_tries=num_tries, first_wait_s=first_wait_s)
    with FileLock(make_folder(folder) / ".index.lock"):
        listing = folder / f"{INDEX_NAME}.part"
        try:
            fetch_patiently(INDEX_NAME, listing, num_bytes=None)
        except UserError as error:
            advice = f"If the set has no index, make one: {_how_to(root)}"
            raise UserError(f"{error}. {advice}") from error
        for array in _read_listing(root, listing).arrays:
            _fetch_array(root, folder, array, fetch_patiently)
        os.replace(listing, folder / INDEX_NAME)


def index_remote(
    root: str,
    names: Sequence[str],
    out: Path,
    *,
    classes: Sequence[str] = (),
    layout: SampleLayout = CONVENTION,
    num_workers: int = 0,
    progress: bool = True,
) -> ShardIndex:
    """Fetch each shard once to look into it, and write the index of all of them into `out`.

    Args:
        root: URL or pipe of the set, as `fetch` takes it.
        names: Names of the shards below `root`.
        out: Folder of the index; holds the shards at work meanwhile, one per worker.
        classes: Class names by label.
        layout: Which files of a sample are the image and the label.
        num_workers: Shards at a time; 0 is one.
        progress: Whether to show how far it is.

    Raises:
        UserError: If a shard cannot be fetched or is damaged, or `out` cannot be written to.
    """
    for name in names:
        if {"", ".", ".."} & set(name.split("/")):
            raise UserError(f"shards must lie below {root}, but {name!r} leads elsewhere")
    with removed_if_empty(out):
        scans = _look_into_all(
            root, names, make_index_folder(root, out), layout, num_workers, progress
        )
        if not any(scan.num_samples for shards in scans.values() for scan in shards):
            raise UserError(f"no images in the shards of {root}: {len(names)} tars hold none")
        return write_scans(out, classes, scans, layout=layout)


def _look_into_all(
    root: str,
    names: Sequence[str],
    out: Path,
    layout: SampleLayout,
    num_workers: int,
    progress: bool,
) -> dict[str, list[LabelledScan]]:
    """Return what is in the shards, by split; each is fetched into a folder of its own in `out`."""
    scans: dict[str, list[LabelledScan]] = {}
    with tempfile.TemporaryDirectory(dir=out, prefix=".shards-") as folder:
        pool = ThreadPoolExecutor(max(1, num_workers))
        try:
            looks = pool.map(lambda name: _look_into(root, name, Path(folder), layout), names)
            shown = followed(looks, "indexing", len(names), "shards", show=progress)
            for split, look in zip(splits_of(names), shown, strict=True):
                scans.setdefault(split, []).append(look)
        finally:
            pool.shutdown(cancel_futures=True)
    return scans


def expand_names(pattern: str) -> list[str]:
    """Expand "train-{000000..000099}.tar" to the names it means.

    Raises:
        UserError: If its braces do not match.
    """
    try:
        return list(braceexpand(pattern))
    except ValueError as error:
        raise UserError(f"cannot expand the shard names {pattern!r}: {error}") from error


def list_shards(root: str) -> list[str]:
    """List the tars of a remote set whose file system can list.

    Returns:
        Names below `root`: of the tars that lie directly there, or else of those in its folders.

    Raises:
        UserError: If it cannot list, there is none, or they are compressed.
    """
    if root.startswith(PIPE):
        raise UserError(f"a pipe cannot list its shards. Name them: {_how_to(root)}")
    try:
        files, folders = _entries(root)
        if not _tars(files):
            files += [
                f"{folder}/{name}" for folder in folders for name in _entries(root, folder)[0]
            ]
    except Exception as error:  # every file system has exceptions of its own
        raise UserError(
            f"cannot list {root} ({type(error).__name__}: {error}). Name the shards: "
            f"{_how_to(root)}"
        ) from error
    if tars := _tars(files):
        _check_folders(root, tars)
        return tars
    if compressed := sorted(name for name in files if is_compressed_name(name)):
        raise UserError(
            f"the shards of {root} are compressed, such as {compressed[0]}: images in them have no "
            "place to be indexed.\nDecompress them there, or read them from front to back, in a "
            "less exact order: data=shards data.reader=stream data.num_samples=N "
            f"'data.root=\"{root.rstrip('/')}/{compressed[0]}\"'"
        )
    raise UserError(f"{root} lists no *.tar. Name the shards: {_how_to(root)}")


def _check_folders(root: str, tars: Sequence[str]) -> None:
    """Refuse folders of tars that may be sets of their own."""
    others = sorted({tar.rpartition("/")[0] for tar in tars if "/" in tar and not named_split(tar)})
    if others:
        raise UserError(
            f"{root} lists no *.tar itself, but folders that do and name no split: "
            f"{', '.join(others[:5])}. Give one of them, such as {root.rstrip('/')}/{others[0]}, "
            "or name the shards by --shards"
        )


def _tars(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if name.endswith(".tar")})


def _entries(root: str, folder: str = "") -> tuple[list[str], list[str]]:
    """List the files and the folders that lie directly in a folder of a remote set, by name."""
    file_system, path = open_url("/".join([root.rstrip("/"), *filter(None, [folder]), ""]))
    is_http = root.startswith(("http://", "https://"))
    files: list[str] = []
    folders: list[str] = []
    for entry in file_system.ls(path, detail=True):
        name = unquote(urlsplit(entry["name"]).path) if is_http else str(entry["name"])
        is_folder = entry["type"] == "directory" or name.endswith("/")
        name = name.rstrip("/").rpartition("/")[2]
        if is_http and is_folder and not entry["name"].startswith(path):
            continue  # a link to the folder above, or to elsewhere
        (folders if is_folder else files).append(name)
    return files, folders


def _how_to(root: str) -> str:
    return f"ssl-swin index {shell_path(root)} --out DIR --shards 'train-{{000000..000099}}.tar'"


def _read_listing(root: str, path: Path) -> ShardIndex:
    """Read an `index.json` that was fetched."""
    try:
        return index_from_content(Path(root), path.parent, read_content(path))
    except UserError as error:
        raise UserError(
            f"{INDEX_NAME} of {root} is damaged or of an older version. Make one here: "
            f"{_how_to(root)}"
        ) from error


def _fetch_array(
    root: str, folder: Path, array: IndexArray, fetch_patiently: Callable[..., None]
) -> None:
    """Fetch a file that belongs to an index, unless `folder` holds it."""
    if _holds(folder / array.file_name, array.sha256):
        return
    part = folder / f"{array.file_name}.part"
    fetch_patiently(array.file_name, part, num_bytes=array.num_bytes)
    if not _holds(part, array.sha256):
        raise UserError(
            f"{array.file_name} of {root} is not the one that its {INDEX_NAME} was written "
            "with. Copy both there anew"
        )
    os.replace(part, folder / array.file_name)


def _holds(path: Path, digest: str) -> bool:
    if not path.exists():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == digest


def _look_into(root: str, name: str, folder: Path, layout: SampleLayout) -> LabelledScan:
    path = folder / name.replace("/", "%2F")
    try:
        try:
            return _fetch_and_scan(root, name, path, layout)
        except _DamagedShard:  # or a transfer that ended in silence, which looks the same
            return _fetch_and_scan(root, name, path, layout)
    finally:
        path.unlink(missing_ok=True)


def _fetch_and_scan(root: str, name: str, path: Path, layout: SampleLayout) -> LabelledScan:
    fetch(root, name, path, num_bytes=None, num_tries=_NUM_TRIES, first_wait_s=_FIRST_WAIT_S)
    try:
        return scan_labelled(path, layout, name)
    except CompressedShardError:
        raise UserError(
            f"shard {name} of {root} is compressed: images in it have no place to be indexed. "
            "Decompress it there, or read the set from front to back: data=shards "
            "data.reader=stream data.num_samples=N"
        ) from None
    except UserError as error:
        raise _DamagedShard(f"fetched from {root}: {error}") from error

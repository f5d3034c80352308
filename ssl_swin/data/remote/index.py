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
from tqdm import tqdm

from ssl_swin.data.remote.fetch import PIPE, fetch, open_url
from ssl_swin.data.shards.index_file import (
    INDEX_NAME,
    IndexArray,
    ScannedShard,
    ShardIndex,
    index_from_content,
    read_content,
    write_index,
)
from ssl_swin.data.shards.indexing import scan_shard, split_of
from ssl_swin.errors import UserError
from ssl_swin.files import make_folder
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
    num_workers: int = 0,
    progress: bool = True,
) -> ShardIndex:
    """Fetch each shard once to look into it, and write the index of all of them into `out`.

    Args:
        root: URL or pipe of the set, as `fetch` takes it.
        names: File names of the shards.
        out: Folder of the index; holds the shards at work meanwhile, one per worker.
        classes: Class names by label.
        num_workers: Shards at a time; 0 is one.
        progress: Whether to show a progress bar.

    Raises:
        UserError: If a shard cannot be fetched or is damaged, or `out` cannot be written to.
    """
    for name in names:
        if Path(name).name != name:
            raise UserError(f"shards must lie directly in {root}, but {name!r} names a sub-folder")
    scanned: dict[str, list[ScannedShard]] = {}
    with tempfile.TemporaryDirectory(dir=make_folder(out), prefix=".shards-") as folder:
        pool = ThreadPoolExecutor(max(1, num_workers))
        try:
            looks = pool.map(lambda name: _look_into(root, name, Path(folder)), names)
            bar = tqdm(looks, "indexing", len(names), unit="shard", disable=not progress)
            for name, look in zip(names, bar, strict=True):
                scanned.setdefault(split_of(name), []).append(look)
        finally:
            pool.shutdown(cancel_futures=True)
    return write_index(out, classes, scanned)


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

    Raises:
        UserError: If it cannot, or there is none.
    """
    if root.startswith(PIPE):
        raise UserError(f"a pipe cannot list its shards. Name them: {_how_to(root)}")
    try:
        file_system, path = open_url(root.rstrip("/") + "/")
        entries = file_system.ls(path, detail=False)
    except Exception as error:  # every file system has exceptions of its own
        raise UserError(
            f"cannot list {root} ({type(error).__name__}: {error}). Name the shards: "
            f"{_how_to(root)}"
        ) from error
    is_http = root.startswith(("http://", "https://"))
    paths = [unquote(urlsplit(entry).path) for entry in entries] if is_http else entries
    names = sorted({path.rpartition("/")[2] for path in paths if path.endswith(".tar")})
    if not names:
        raise UserError(f"{root} lists no *.tar. Name the shards: {_how_to(root)}")
    return names


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


def _look_into(root: str, name: str, folder: Path) -> ScannedShard:
    path = folder / name
    try:
        try:
            return _fetch_and_scan(root, path)
        except _DamagedShard:  # or a transfer that ended in silence, which looks the same
            return _fetch_and_scan(root, path)
    finally:
        path.unlink(missing_ok=True)


def _fetch_and_scan(root: str, path: Path) -> ScannedShard:
    fetch(root, path.name, path, num_bytes=None, num_tries=_NUM_TRIES, first_wait_s=_FIRST_WAIT_S)
    try:
        return scan_shard(path)
    except UserError as error:
        raise _DamagedShard(f"fetched from {root}: {error}") from error

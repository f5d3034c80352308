"""Features on disk: computed once per encoder, images and view, then read where they lie."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssl_swin.errors import UserError
from ssl_swin.files import atomic_path, write_atomically
from ssl_swin.probing.features import Features, PooledBatch, Tap

Append = Callable[[Tensor], None]
Extract = Callable[[Sequence[Tap]], Iterable[PooledBatch]]
FACTS, LABELS = "facts.json", "labels.npy"


def weights_fingerprint(module: nn.Module) -> str:
    """Hashes the names, types, shapes and values of all weights and buffers to 16 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def store_folder(root: str | Path, facts: Mapping[str, Any]) -> Path:
    """Names the folder under `root` for features of which `facts`, as JSON, says everything."""
    text = json.dumps(facts, sort_keys=True)
    folder = Path(root) / hashlib.sha256(text.encode()).hexdigest()[:16]
    write_atomically(folder / FACTS, json.dumps(facts, indent=2, sort_keys=True) + "\n")
    return folder


def stored_features(
    folder: Path, taps: Sequence[Tap], extract: Extract, *, dtype: Literal["float32", "float16"]
) -> dict[Tap, Features]:
    """Returns the features at all taps, mapped from files; those that are missing are made first.

    One array `stage{i}_{pooling}.npy` (N, C) per tap and `labels.npy` (N,) are written batch by
    batch under temporary names, and named at the end, the labels last. So a folder with labels is
    whole, and an extraction that was stopped leaves nothing that counts.

    Args:
        folder: Folder of one encoder, split and view; see `store_folder`.
        taps: What is asked for.
        extract: Computes the features at the taps that it is given; called at most once.
        dtype: Data type of the files. float16 halves them and rounds to 11 bits.

    Raises:
        UserError: If a value is too large for float16, or now other images can be read than when
            the folder's first features were made.
    """
    labels_known = (folder / LABELS).exists()
    missing = [tap for tap in taps if not (labels_known and _path(folder, tap).exists())]
    if missing:
        _write(folder, extract(missing), np.dtype(dtype))
    labels = _mapped(folder / LABELS)
    return {tap: Features(_mapped(_path(folder, tap)), labels) for tap in taps}


def _path(folder: Path, tap: Tap) -> Path:
    return folder / f"stage{tap.stage}_{tap.pooling}.npy"


def _mapped(path: Path) -> Tensor:
    # Copy on write: the file stays as it is, and torch gets the writable memory that it insists on.
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def _write(folder: Path, batches: Iterable[PooledBatch], dtype: np.dtype[Any]) -> None:
    pending = iter(batches)
    first = next(pending)
    labels: list[NDArray[np.int64]] = []
    with ExitStack() as files:
        append = {
            tap: files.enter_context(_growing_array(_path(folder, tap), rows.shape[1], dtype))
            for tap, rows in first.features.items()
        }
        for batch in chain([first], pending):
            labels.append(batch.labels.numpy())
            for tap, rows in batch.features.items():
                append[tap](rows)
        _check_same_labels(folder, np.concatenate(labels))
    with atomic_path(folder / LABELS) as temporary, temporary.open("wb") as file:
        np.save(file, np.concatenate(labels))


@contextmanager
def _growing_array(path: Path, width: int, dtype: np.dtype[Any]) -> Iterator[Append]:
    """Yields a function that appends rows (B, width) to an .npy file, which appears at the end."""
    num_rows = 0
    with atomic_path(path) as temporary, temporary.open("wb") as file:

        def append(rows: Tensor) -> None:
            nonlocal num_rows
            file.write(in_dtype(rows.numpy(), dtype, "set features.dtype=float32").tobytes())
            num_rows += len(rows)

        _write_header(file, (0, width), dtype)
        yield append
        file.seek(0)  # numpy's header leaves room for the first axis to grow
        _write_header(file, (num_rows, width), dtype)


def _write_header(file: BinaryIO, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def in_dtype(rows: NDArray[Any], dtype: np.dtype[Any], way_out: str) -> NDArray[Any]:
    """Return features in another type.

    Args:
        rows: Of floats, not empty.
        dtype: float32 or float16.
        way_out: What to do where float16 is too small.

    Raises:
        UserError: If a value does not fit, or is not finite.
    """
    largest = float(np.abs(rows).max())
    if not largest <= float(np.finfo(dtype).max):
        way_out = way_out if dtype == np.float16 else "check the weights"
        raise UserError(f"a feature of {largest:g} does not fit {dtype}: {way_out}")
    return rows.astype(dtype)


def _check_same_labels(folder: Path, labels: NDArray[np.int64]) -> None:
    path = folder / LABELS
    if path.exists() and not np.array_equal(np.load(path, allow_pickle=False), labels):
        raise UserError(
            f"{folder} holds features of other images than can be read now: delete that folder, "
            "and run again"
        )

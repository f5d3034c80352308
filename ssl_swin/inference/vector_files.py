"""Files of vectors with the names of their images: written part by part, and read again."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from ssl_swin.data.dataset import NO_LABEL
from ssl_swin.data.sources.table_rows import ParquetRows, pyarrow
from ssl_swin.errors import UserError
from ssl_swin.inference.parts import Parts
from ssl_swin.inference.vectors import Rows
from ssl_swin.probing.feature_store import in_dtype

_WAY_OUT = "write float32, or leave --dtype out"
_SAFE_TYPES = {"float32": "F32", "float16": "F16"}
_LARGEST_HEADER = 100_000_000  # bytes that readers of safetensors take
BAD_HEADER = ("name", "reason")
_DAMAGE = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, StopIteration),
    *(csv.Error, UserError, NotImplementedError),
)


class Vectors(NamedTuple):
    """Vectors that were read from a file.

    Attributes:
        names: N, of the images.
        labels: N names of classes, "" for none.
        vectors: float32 (N, D).
    """

    names: list[str]
    labels: list[str]
    vectors: NDArray[np.float32]


class Shape(NamedTuple):
    """What is to be written: how many vectors, of which type, and the classes of their labels."""

    dtype: np.dtype[Any]
    classes: tuple[str, ...]


def names_beside(out: Path) -> Path:
    """Return the table of names that belongs to an .npy file."""
    return out.with_name(f"{out.stem}.names.csv")


def bad_beside(out: Path) -> Path:
    """Return the list of images that could not be read for a file."""
    return out.with_name(f"{out.name}.bad.csv")


def check_vector_file(out: Path) -> None:
    """Refuse the name of a file of vectors whose kind is not known, or not installed.

    Raises:
        UserError: If it is so.
    """
    if out.suffix.lower() not in _WRITERS:
        raise UserError(
            f"{out}: the ending says how vectors are written, and it must be one of "
            f"{', '.join(_WRITERS)}"
        )
    if out.suffix.lower() == ".parquet":
        pyarrow()


def write_vectors(parts: Parts, shape: Shape) -> int:
    """Write the file of some parts, and what lies beside it.

    Args:
        parts: All are whole.
        shape: Type and classes.

    Returns:
        Number of vectors.

    Raises:
        UserError: If a value does not fit the type.
    """
    write_bad(parts)
    return _WRITERS[parts.out.suffix.lower()](parts, shape)


def write_bad(parts: Parts) -> None:
    """List the images that could not be read; of an earlier file, no such list stays."""
    bad = bad_rows(parts)
    if not bad:
        bad_beside(parts.out).unlink(missing_ok=True)
    else:
        with parts.whole(bad_beside(parts.out)) as path:
            write_csv(path, BAD_HEADER, bad)


def bad_rows(parts: Parts) -> list[list[str]]:
    """Return the name of each image that could not be read, and why."""
    bad = [sample for part in parts.without_values() for sample in part.bad_samples]
    return [[in_utf8(name), in_utf8(reason)] for name, reason in bad]


def read_vectors(path: Path) -> Vectors:
    """Read a file that `ssl-swin embed` wrote.

    Raises:
        UserError: If it is none, or damaged.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path} is no file of vectors: it must end in {', '.join(_READERS)}")
    try:
        names, labels, vectors = reader(path)
        vectors = vectors.astype(np.float32)
    except _DAMAGE as error:
        problem = str(error) or type(error).__name__
        raise UserError(f"cannot read the vectors in {path}: {problem}") from error
    if vectors.ndim != 2 or not len(names) == len(labels) == len(vectors) > 0:
        raise UserError(f"{path} has {len(names)} names for vectors of shape {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise UserError(f"{path} holds vectors with values that are not finite")
    if not all(isinstance(text, str) for text in (*names, *labels)):
        raise UserError(f"{path} has names or labels that are no text")
    return Vectors(names, labels, vectors)


def is_vector_file(path: Path) -> bool:
    """Return whether a path is that of a file of vectors; other safetensors may be weights."""
    if path.suffix.lower() not in _READERS or not path.is_file():
        return False
    if path.suffix.lower() != ".safetensors":
        return True
    try:
        with safe_open(path, "np") as file:
            return "names" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def in_utf8(name: str) -> str:
    """Return a name as every reader takes it: bytes that are no UTF-8 are written as escapes."""
    raw = name.encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "backslashreplace")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table with a header, in UTF-8."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def labels_of(part: Rows, classes: Sequence[str]) -> list[str | None]:
    """Return the class names of a part's images, None for none."""
    return [None if label == NO_LABEL else classes[label] for label in part.labels.tolist()]


def _chunks(parts: Parts, shape: Shape) -> Iterator[tuple[Rows, NDArray[Any]]]:
    for part in parts:
        if part.names:
            yield part, in_dtype(part.values["vectors"].numpy(), shape.dtype, _WAY_OUT)


def _size(parts: Parts) -> tuple[int, int]:
    number = sum(len(part.names) for part in parts.without_values())
    first = next(part for part in parts if part.names)
    return number, first.values["vectors"].shape[1]


def _write_npy(parts: Parts, shape: Shape) -> int:
    header = ["name", "label"] if shape.classes else ["name"]
    with parts.whole(names_beside(parts.out)) as path:
        named = (row for part in parts.without_values() for row in _named(part, shape))
        write_csv(path, header, (row[: len(header)] for row in named))
    size = _size(parts)
    with parts.whole(parts.out) as path, path.open("wb") as file:
        described = {"descr": shape.dtype.str, "fortran_order": False, "shape": size}
        np.lib.format.write_array_header_1_0(file, described)
        _write_values(file, parts, shape)
    return size[0]


def _write_values(file: BinaryIO, parts: Parts, shape: Shape) -> None:
    for _, vectors in _chunks(parts, shape):
        file.write(vectors.tobytes())


def _named(part: Rows, shape: Shape) -> list[list[str]]:
    labels = labels_of(part, shape.classes)
    return [[in_utf8(name), label or ""] for name, label in zip(part.names, labels, strict=True)]


def _write_csv(parts: Parts, shape: Shape) -> int:
    number, width = _size(parts)
    rows = (
        [*named, *map(str, vector)]
        for part, vectors in _chunks(parts, shape)
        for named, vector in zip(_named(part, shape), vectors, strict=True)
    )
    with parts.whole(parts.out) as path:
        write_csv(path, ["name", "label", *(f"e{i}" for i in range(width))], rows)
    return number


def _write_safetensors(parts: Parts, shape: Shape) -> int:
    size = _size(parts)
    named = [row for part in parts.without_values() for row in _named(part, shape)]
    num_bytes = size[0] * size[1] * shape.dtype.itemsize
    tensor = {"dtype": _SAFE_TYPES[shape.dtype.name], "shape": [*size]}
    told = {"names": json.dumps([n for n, _ in named]), "labels": json.dumps([c for _, c in named])}
    header = json.dumps(
        {"__metadata__": told, "vectors": {**tensor, "data_offsets": [0, num_bytes]}}
    ).encode()
    header += b" " * (-len(header) % 8)
    if len(header) > _LARGEST_HEADER:
        raise UserError(
            f"{parts.out}: the names of {size[0]:,} images do not fit the header of a safetensors "
            "file; write .parquet or .npy"
        )
    with parts.whole(parts.out) as path, path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        _write_values(file, parts, shape)
    return size[0]


def _write_parquet(parts: Parts, shape: Shape) -> int:
    number, width = _size(parts)
    arrow = pyarrow()
    of_values = arrow.float16() if shape.dtype == np.float16 else arrow.float32()
    texts = [("name", arrow.string()), ("label", arrow.string())]
    schema = arrow.schema([*texts, ("embedding", arrow.list_(of_values, width))])
    with parts.whole(parts.out) as path, arrow.parquet.ParquetWriter(path, schema) as file:
        for part, vectors in _chunks(parts, shape):
            values = arrow.array(vectors.reshape(-1), of_values)
            lists = arrow.FixedSizeListArray.from_arrays(values, width)
            names = [in_utf8(name) for name in part.names]
            columns = [names, labels_of(part, shape.classes), lists]
            file.write_table(arrow.table(dict(zip(schema.names, columns, strict=True)), schema))
    return number


_WRITERS: dict[str, Callable[[Parts, Shape], int]] = {
    ".npy": _write_npy,
    ".parquet": _write_parquet,
    ".safetensors": _write_safetensors,
    ".csv": _write_csv,
}


def _read_npy(path: Path) -> tuple[list[str], list[str], NDArray[Any]]:
    vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    with names_beside(path).open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    labels = [row[1] for row in rows] if "label" in header else [""] * len(rows)
    return [row[0] for row in rows], labels, vectors


def _read_csv(path: Path) -> tuple[list[str], list[str], NDArray[Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        if next(rows)[:3] != ["name", "label", "e0"]:
            raise ValueError("its columns are not name, label, e0, ...")
        found = [(name, label, np.array(values, np.float32)) for name, label, *values in rows]
    names, labels, vectors = zip(*found, strict=True)
    return list(names), list(labels), np.stack(vectors)


def _read_safetensors(path: Path) -> tuple[list[str], list[str], NDArray[Any]]:
    try:
        with safe_open(path, "np") as file:
            told = file.metadata() or {}
            names, labels = json.loads(told["names"]), json.loads(told["labels"])
            vectors = file.get_tensor("vectors")
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    if not isinstance(names, list) or not isinstance(labels, list):
        raise ValueError("its names or labels are no lists")
    return names, labels, vectors


def _read_parquet(path: Path) -> tuple[list[str], list[str], NDArray[Any]]:
    rows = ParquetRows(path)
    lists = rows.values("embedding").combine_chunks()
    widths = pyarrow().compute.list_value_length(lists)
    if widths.null_count or len(widths.unique()) > 1:
        raise ValueError("its vectors are not all there, or of unlike widths")
    vectors = lists.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), -1)
    labels = [label or "" for label in rows.values("label").to_pylist()]
    return rows.values("name").to_pylist(), labels, vectors


_READERS: dict[str, Callable[[Path], tuple[list[str], list[str], NDArray[Any]]]] = {
    ".npy": _read_npy,
    ".parquet": _read_parquet,
    ".safetensors": _read_safetensors,
    ".csv": _read_csv,
}

"""Files of vectors that are damaged, or of something else: one sentence, never a traceback."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ssl_swin.errors import UserError
from ssl_swin.inference.vector_files import read_vectors

VECTORS = np.arange(6, dtype=np.float32).reshape(2, 3)


def npy(array: Any = VECTORS, names: str = "name\na\nb\n") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.save(folder / "v.npy", array)
        (folder / "v.names.csv").write_text(names)
        return folder / "v.npy"

    return write


def raw(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def tensors(names: Any, vectors: Any = VECTORS) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        told = {"names": json.dumps(names), "labels": json.dumps(["", ""])}
        save_file({"vectors": vectors}, folder / "v.safetensors", metadata=told)
        return folder / "v.safetensors"

    return write


def parquet(lists: list[Any], names: list[Any]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        arrow = pytest.importorskip("pyarrow")
        table = arrow.table({"name": names, "label": [None] * len(names), "embedding": lists})
        pytest.importorskip("pyarrow.parquet").write_table(table, folder / "v.parquet")
        return folder / "v.parquet"

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (raw("v.npy", b""), "cannot read the vectors"),
        (raw("v.npy", b"\x93NUMPY\x01\x00"), "cannot read the vectors"),
        (npy(names="name\na\n"), "1 names for vectors of shape (2, 3)"),
        (npy(names=""), "cannot read the vectors"),
        (npy(names="name,label\na\nb\n"), "cannot read the vectors"),
        (npy(names="name\n\n\n"), "cannot read the vectors"),
        (npy(array=np.array([["x", "y"], ["z", "w"]])), "cannot read the vectors"),
        (npy(array=np.array([[1, np.nan], [0, 1]])), "not finite"),
        (npy(array=np.array([[1, np.inf], [0, 1]])), "not finite"),
        (npy(array=VECTORS[0]), "2 names for vectors of shape (3,)"),
        (raw("v.csv", b""), "cannot read the vectors"),
        (raw("v.csv", b"a,b\n1,2\n"), "its columns are not name, label, e0"),
        (raw("v.csv", b"name,label,e0\n"), "cannot read the vectors"),
        (raw("v.csv", b"name,label,e0\na,,1\nb\n"), "cannot read the vectors"),
        (raw("v.csv", b"name,label,e0,e1\na,,1,2\nb,,1\n"), "cannot read the vectors"),
        (raw("v.csv", b"name,label,e0\na,,x\n"), "cannot read the vectors"),
        (raw("v.csv", b"name,label,e0\na,,\x00\xff\n"), "cannot read the vectors"),
        (raw("v.csv", b"name,label,e0\n" + b"a" * 200_000 + b",,1\n"), "cannot read the vectors"),
        (raw("v.safetensors", b"junk"), "cannot read the vectors"),
        (tensors("ab"), "its names or labels are no lists"),
        (tensors({"a": 1, "b": 2}), "its names or labels are no lists"),
        (tensors([1, 2]), "names or labels that are no text"),
        (parquet([[1.0, 2.0, 3.0], [4.0]], ["a", "b"]), "cannot read the vectors"),
        (parquet([[1.0, 2.0], None], ["a", "b"]), "cannot read the vectors"),
        (parquet(["x", "y"], ["a", "b"]), "cannot read the vectors"),
        (parquet([[1.0], [2.0]], [None, "b"]), "names or labels that are no text"),
        (parquet([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0]], ["a", "b"]), "of unlike widths"),
        (raw("v.parquet", b"PAR1"), "v.parquet"),
        (raw("v.txt", b"a"), "it must end in .npy, .parquet, .safetensors, .csv"),
    ],
)
def test_read_vectors__refuses(write: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        read_vectors(write(tmp_path))


def test_read_vectors__takes_a_sound_file(tmp_path: Path) -> None:
    for write in (npy(), npy(VECTORS.astype(np.float16)), tensors(["a", "b"])):
        found = read_vectors(write(tmp_path))
        assert found.names == ["a", "b"] and found.labels == ["", ""]
        np.testing.assert_array_equal(found.vectors, VECTORS)
    path = parquet(VECTORS.tolist(), ["a", "b"])(tmp_path)
    np.testing.assert_array_equal(read_vectors(path).vectors, VECTORS)

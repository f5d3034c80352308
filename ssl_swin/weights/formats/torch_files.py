"""Files of `torch.save` from anywhere: their tensors and plain values, and nothing that runs.

Reads both of its formats, the archive and the older stream, at any pickle protocol.
"""

import struct
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import torch

from ssl_swin.errors import UserError
from ssl_swin.weights.formats.inert_pickle import PickleReader, Storage

_MAGIC = 0x1950A86A20F9469CFC6C  # at the start of the older format
_WAY_OUT = (
    "refused, nothing was executed. Where you trust the file, load it in the program that wrote "
    'it, and save the weights alone: torch.save({"model": model.state_dict()}, FILE)'
)
_MAX_NAMES_SHOWN = 4


def read_torch_file(file: Path) -> Any:
    """Returns what a file of `torch.save` holds, tensors on the CPU.

    Objects that are not plain data come back as `Inert`: nothing of them is run.

    Raises:
        UserError: If it cannot be read, is damaged or no such file, or would call something.
    """
    try:
        content, refused = _read_archive(file) if zipfile.is_zipfile(file) else _read_stream(file)
    except UserError:
        raise
    except PermissionError as error:
        raise UserError(f"no permission to read {file}") from error
    except Exception as error:  # a damaged pickle can fail as anything
        raise UserError(
            f"{file} is truncated, damaged, or not a checkpoint as torch.save writes it"
        ) from error
    if refused:
        names = ", ".join(repr(name) for name in refused[:_MAX_NAMES_SHOWN])
        more = f" and {len(refused) - _MAX_NAMES_SHOWN} more" if refused[_MAX_NAMES_SHOWN:] else ""
        raise UserError(
            f"{file} contains Python objects that are not data ({names}{more}): {_WAY_OUT}"
        )
    return content


def _read_archive(file: Path) -> tuple[Any, list[str]]:
    with zipfile.ZipFile(file) as archive:
        _check_entries(file, archive)
        (pickled,) = (n for n in archive.namelist() if n.endswith("/data.pkl"))
        root = pickled.removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist():
            _check_byte_order(file, archive.read(f"{root}byteorder") == b"little")
        storages: dict[str, bytearray] = {}

        def storage(dtype: torch.dtype, identity: Any) -> Storage:
            key = str(identity[2])
            if key not in storages:
                storages[key] = bytearray(archive.read(f"{root}data/{key}"))
            return Storage(storages[key], dtype)

        reader = PickleReader(BytesIO(archive.read(pickled)), storage)
        return reader.read(), reader.refused


def _check_entries(file: Path, archive: zipfile.ZipFile) -> None:
    """Refuses archives that `torch.save` does not write: other programs', or ones that swell.

    Raises:
        UserError: Saying which.
    """
    entries = archive.infolist()
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise UserError(
            f"{file} is a TorchScript program, which is not run. Save its weights alone, where you "
            "trust it: torch.save(torch.jit.load(FILE).state_dict(), NEW)"
        )
    if sum(entry.file_size for entry in entries) > file.stat().st_size:
        raise UserError(
            f"{file} is compressed: it would unpack to "
            f"{sum(entry.file_size for entry in entries):,} bytes. torch.save does not compress; "
            "pack it again without"
        )
    if not any(entry.filename.endswith("/data.pkl") for entry in entries):
        shown = ", ".join(entry.filename for entry in entries[:_MAX_NAMES_SHOWN])
        raise UserError(
            f"{file} is a zip archive of {shown or 'nothing'}, not one that torch.save wrote"
        )


def _read_stream(file: Path) -> tuple[Any, list[str]]:
    with file.open("rb") as stream:
        if tarfile.is_tarfile(file):
            raise UserError(f"{file} is a tar archive, not a file of torch.save: unpack it first")
        _check_header(file, stream)
        size = file.stat().st_size
        storages: dict[str, tuple[bytearray, torch.dtype]] = {}

        def storage(dtype: torch.dtype, identity: Any) -> Storage:
            key, num_bytes = str(identity[2]), int(identity[4]) * dtype.itemsize
            if key not in storages:
                if num_bytes > size:
                    raise ValueError("a storage is larger than the file")
                storages[key] = bytearray(num_bytes), dtype
            content, _ = storages[key]
            view = identity[5] if len(identity) > 5 else None
            if view is not None:
                raise ValueError("views of storages are of torch before 0.4")
            return Storage(content, dtype)

        reader = PickleReader(stream, storage)
        content = reader.read()
        for key in PickleReader(stream, storage).read():
            _fill(*storages[str(key)], stream)
        return content, reader.refused


def _check_header(file: Path, stream: IO[bytes]) -> None:
    def no_storage(dtype: torch.dtype, identity: Any) -> Storage:
        raise ValueError("the header has no storages")

    magic, _, system = (PickleReader(stream, no_storage).read() for _ in range(3))
    if magic != _MAGIC:
        raise ValueError("not the older format")
    _check_byte_order(file, bool(system["little_endian"]))


def _check_byte_order(file: Path, is_little: bool) -> None:
    if not is_little:
        raise UserError(
            f"{file} was written on a big-endian machine, whose numbers are not read here"
        )


def _fill(content: bytearray, dtype: torch.dtype, stream: IO[bytes]) -> None:
    (count,) = struct.unpack("<q", stream.read(8))
    if count * dtype.itemsize != len(content) or stream.readinto(content) != len(content):  # type: ignore[attr-defined]
        raise ValueError("a storage is not as long as it says")

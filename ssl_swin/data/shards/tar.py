"""Where the bytes of each member of a tar lie, found by a walk that trusts nothing.

Python's `tarfile` takes a bad header after the first member for the end of the archive, so a
truncated or overwritten shard silently loses samples. This walk reads headers only and reports
every such damage. Formats: ustar, pax, GNU tar.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

BLOCK = 512  # bytes; a header is one block, data is padded to whole blocks
_MAX_PADDING = 1 << 20  # bytes of zeros from the end marker on; tar writes up to 10 KiB by default

# Type flags. Data of a member with any other flag is stepped over.
_FILES = (b"\0", b"0", b"7")
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders
_LONG_NAME, _PAX, _SPARSE = b"L", b"x", b"S"
_ABOUT_OTHERS = (b"K", b"g")  # long link target, global pax header: no bearing on the next name

_KEY_AND_EXTENSION = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", flags=re.DOTALL)
_METADATA = re.compile(r"__[^/]*__(/|$)")


class TarMember(NamedTuple):
    """One regular file in a tar."""

    name: str
    offset: int  # of its first data byte, from the start of the tar
    size: int  # bytes


class TarScan(NamedTuple):
    """What a tar holds, up to its first damage."""

    num_bytes: int
    members: list[TarMember]  # complete ones only
    problem: str | None  # a sentence naming the byte; None for a sound tar


class _Damage(Exception):
    """Carries the sentence for `TarScan.problem`."""


def scan_tar(
    path: str | os.PathLike[str], *, start: int = 0, num_bytes: int | None = None
) -> TarScan:
    """List the regular files of an uncompressed tar, reading one header for each.

    Args:
        path: The file that holds the tar.
        start: First byte of the tar, where it is a member of another.
        num_bytes: Length of the tar; None takes all that follows `start`.

    Returns:
        The members' offsets, and the bytes that a problem names, count from the start of the file.

    Raises:
        OSError: If the file cannot be opened or read; damage is reported, not raised.
    """
    members: list[TarMember] = []
    problem = None
    with Path(path).open("rb") as file:
        length = os.fstat(file.fileno()).st_size - start if num_bytes is None else num_bytes
        try:
            for member in _walk(file, start, start + length):
                members.append(member)
        except _Damage as damage:
            problem = str(damage)
    return TarScan(length, members, problem)


def group_samples(
    members: Iterable[TarMember],
) -> list[tuple[str, dict[str, tuple[int, int]]]]:
    """Join adjacent members into samples by WebDataset's naming convention.

    The key is the path up to the first dot of its last part, the rest is the extension. Names
    without a dot, hidden files and metadata (`__name__`) belong to no sample.

    Returns:
        In file order: key, and for each extension (lower case) the member's offset and size. A
        key whose members are not adjacent, or that has an extension twice, appears twice.
    """
    samples: list[tuple[str, dict[str, tuple[int, int]]]] = []
    for name, offset, size in members:
        match = _KEY_AND_EXTENSION.fullmatch(name)
        if match is None or _METADATA.match(name):
            continue
        key, extension = match[1], match[2].lower()
        if not samples or samples[-1][0] != key or extension in samples[-1][1]:
            samples.append((key, {}))
        samples[-1][1][extension] = (offset, size)
    return samples


def header_name(header: bytes) -> str:
    """Return the name in a header; a long one is truncated, as an extended header holds it."""
    name = _text(header[:100])
    is_ustar = header[257:263] == b"ustar\0"  # GNU tar keeps other things in the prefix field
    prefix = _text(header[345:500]) if is_ustar else ""
    return f"{prefix}/{name}" if prefix else name


def _walk(file: BinaryIO, position: int, end: int) -> Iterator[TarMember]:
    extended: dict[str, str] = {}  # what extended headers say of the next member
    while (header := _read_header(file, position, end)) is not None:
        flag, data = header[156:157], position + BLOCK
        try:
            size = 0 if flag in _WITHOUT_DATA else _member_size(header, extended)
            name = extended.get("path") or header_name(header)
            if data + size > end:
                raise _Damage(
                    f"member {name!r} ends at byte {data + size}, file has {end}: truncated"
                )
            if flag in (_LONG_NAME, _PAX):
                extended |= _read_extended(flag, _read(file, data, size))
        except ValueError:
            raise _bad_header(position, end) from None
        if flag == _SPARSE:
            raise _Damage(f"member {name!r} at byte {position} is a sparse file: not supported")
        if flag in _FILES and not name.endswith("/"):
            yield TarMember(name, data, size)
        if flag not in (_LONG_NAME, _PAX, *_ABOUT_OTHERS):
            extended = {}
        position = data + -(-size // BLOCK) * BLOCK


def _read_header(file: BinaryIO, position: int, end: int) -> bytes | None:
    """Read and check one header; None at a sound end of the archive."""
    header = _read(file, position, max(0, min(BLOCK, end - position)))
    if not header:
        raise _Damage(
            f"no end-of-archive marker, the file ends at byte {end}: cut at a member boundary"
        )
    if len(header) < BLOCK:
        raise _Damage(f"header at byte {position} ends at byte {end}: truncated")
    if not any(header):
        _check_end(file, position, end)
        return None
    try:
        stored = _number(header[148:156])
    except ValueError:
        raise _bad_header(position, end) from None
    if stored != sum(header[:148]) + 8 * ord(" ") + sum(header[156:]):
        raise _bad_header(position, end)
    return header


def _check_end(file: BinaryIO, position: int, end: int) -> None:
    """Distinguish the end marker from a hole of zeros and from an appended archive."""
    rest = end - position
    if rest > _MAX_PADDING or any(_read(file, position, rest)):
        raise _Damage(f"end-of-archive marker at byte {position} of {end}: more data follows")


def _bad_header(position: int, end: int) -> _Damage:
    return _Damage(f"bad tar header at byte {position} of {end}")


def _member_size(header: bytes, extended: dict[str, str]) -> int:
    if "size" not in extended:
        return _number(header[124:136])
    if not re.fullmatch("[0-9]+", extended["size"]):
        raise ValueError("not a decimal number")
    return int(extended["size"])


def _read_extended(flag: bytes, content: bytes) -> dict[str, str]:
    return {"path": _text(content)} if flag == _LONG_NAME else dict(_pax_records(content))


def _pax_records(content: bytes) -> Iterator[tuple[str, str]]:
    """Split records of the form `LENGTH KEY=VALUE` + newline; LENGTH counts all its bytes."""
    while content.strip(b"\0"):
        start = re.match(rb"(\d{1,9}) ([^=\n]+)=", content)
        end = int(start[1]) if start else 0
        if start is None or end <= start.end() or content[end - 1 : end] != b"\n":
            raise ValueError("not a pax record")
        yield _text(start[2]), _text(content[start.end() : end - 1])
        content = content[end:]


def _number(field: bytes) -> int:
    """Read octal digits, or GNU's base-256 where the first bit is set."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip()
    if not re.fullmatch(rb"[0-7]*", digits):
        raise ValueError("not an octal number")
    return int(digits or b"0", 8)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="surrogateescape")


def _read(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)

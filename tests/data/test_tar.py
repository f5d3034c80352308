import io
import tarfile
from pathlib import Path

import pytest
from webdataset.tariterators import base_plus_ext

from ssl_swin.data.shards.tar import BLOCK, TarMember, group_samples, header_name, scan_tar


def write_tar(path: Path, files: dict[str, bytes], tar_format: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=tar_format) as archive:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def header(name: str, size: int, flag: bytes = tarfile.REGTYPE) -> bytearray:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, flag
    return bytearray(info.tobuf(tarfile.USTAR_FORMAT))


def sign(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Header, 700 bytes in 2 blocks, header, 1 byte in 1 block, header, 512 bytes; end at 3584."""
    return write_tar(tmp_path / "a.tar", {"x.jpg": b"x" * 700, "x.cls": b"7", "y.jpg": b"y" * 512})


def test_scan_tar__offsets_by_hand(sound: Path) -> None:
    assert scan_tar(sound) == (
        sound.stat().st_size,
        [("x.jpg", 512, 700), ("x.cls", 2048, 1), ("y.jpg", 3072, 512)],
        None,
    )


@pytest.mark.parametrize(
    "tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
def test_scan_tar__equals_tarfile(tmp_path: Path, tar_format: int) -> None:
    path = tmp_path / "a.tar"
    names = ["a.jpg", "folder/b.jpg", "p" * 90 + "/" + "n" * 60 + ".jpg", "ü.jpg", "empty.cls"]
    if tar_format != tarfile.USTAR_FORMAT:  # which ends at 255 characters
        names += ["q" * 300 + ".jpg", "after.jpg"]
    with tarfile.open(path, "w", format=tar_format) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 0 if name == "empty.cls" else 300 * number + 1
            archive.addfile(info, io.BytesIO(bytes(info.size)))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "a.jpg" * (1 if len(names) == 5 else 60)
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("last.txt"))
    with tarfile.open(path) as archive:
        expected = [(m.name, m.offset_data, m.size) for m in archive if m.isreg()]
    assert len(expected) == len(names) + 1
    assert scan_tar(path) == (path.stat().st_size, expected, None)


def test_scan_tar__base_256_size(tmp_path: Path) -> None:
    block = header("a.jpg", 0)
    block[124:136] = b"\x80" + (600).to_bytes(11, "big")
    path = tmp_path / "a.tar"
    path.write_bytes(sign(block) + bytes(1024) + sign(header("b.jpg", 0)) + bytes(1024))
    assert scan_tar(path).members == [("a.jpg", 512, 600), ("b.jpg", 2048, 0)]


def test_scan_tar__pax_size_overrides_header(tmp_path: Path) -> None:
    record = b"12 size=600\n"
    path = tmp_path / "a.tar"
    path.write_bytes(
        sign(header("pax", len(record), tarfile.XHDTYPE))
        + record.ljust(BLOCK, b"\0")
        + sign(header("a.jpg", 0))
        + bytes(1024)
        + sign(header("b.jpg", 0))
        + bytes(1024)
    )
    assert scan_tar(path).members == [("a.jpg", 1536, 600), ("b.jpg", 3072, 0)]
    assert scan_tar(path).problem is None


@pytest.mark.parametrize(
    ("num_bytes", "num_members", "problem"),
    [
        (0, 0, "no end-of-archive marker, the file ends at byte 0: cut at a member boundary"),
        (300, 0, "header at byte 0 ends at byte 300: truncated"),
        (1000, 0, "member 'x.jpg' ends at byte 1212, file has 1000: truncated"),
        (1212, 1, "no end-of-archive marker, the file ends at byte 1212: cut at a member boundary"),
        (1536, 1, "no end-of-archive marker, the file ends at byte 1536: cut at a member boundary"),
        (1800, 1, "header at byte 1536 ends at byte 1800: truncated"),
        (3200, 2, "member 'y.jpg' ends at byte 3584, file has 3200: truncated"),
        (3584, 3, "no end-of-archive marker, the file ends at byte 3584: cut at a member boundary"),
    ],
)
def test_scan_tar__cut(sound: Path, num_bytes: int, num_members: int, problem: str) -> None:
    sound.write_bytes(sound.read_bytes()[:num_bytes])
    scan = scan_tar(sound)
    assert (scan.num_bytes, len(scan.members), scan.problem) == (num_bytes, num_members, problem)


def test_scan_tar__every_cut_is_noticed(sound: Path) -> None:
    content = sound.read_bytes()
    for num_bytes in range(0, 3584 + 1, 64):  # the end marker starts at 3584
        sound.write_bytes(content[:num_bytes])
        assert scan_tar(sound).problem is not None, num_bytes


@pytest.mark.parametrize("place", [1536, 1536 + 100, 1536 + 150, 1536 + 511])
def test_scan_tar__garbage_header(sound: Path, place: int) -> None:
    content = bytearray(sound.read_bytes())
    content[place] ^= 0x5A
    sound.write_bytes(content)
    scan = scan_tar(sound)
    assert scan.members == [("x.jpg", 512, 700)]
    assert scan.problem == f"bad tar header at byte 1536 of {len(content)}"


@pytest.mark.parametrize(
    ("field", "value"), [(slice(124, 136), b"99999999999\0"), (slice(124, 136), b"\xff" * 12)]
)
def test_scan_tar__signed_nonsense(tmp_path: Path, field: slice, value: bytes) -> None:
    block = header("a.jpg", 0)
    block[field] = value
    path = tmp_path / "a.tar"
    path.write_bytes(sign(block) + bytes(1024))
    assert scan_tar(path).problem == "bad tar header at byte 0 of 1536"


@pytest.mark.parametrize(
    "record", [b"3 size=1\n", b"0 a=b\n", b"11 size=-1\n", b"99 path=a\n", b"x\n"]
)
def test_scan_tar__pax_nonsense(tmp_path: Path, record: bytes) -> None:
    path = tmp_path / "a.tar"
    pax = sign(header("pax", len(record), tarfile.XHDTYPE)) + record.ljust(BLOCK, b"\0")
    path.write_bytes(pax + sign(header("a.jpg", 0)) + bytes(1024))
    scan = scan_tar(path)
    assert scan.members == []
    assert scan.problem is not None and scan.problem.startswith("bad tar header at byte")


def test_scan_tar__inside_another(tmp_path: Path, sound: Path) -> None:
    inner = sound.read_bytes()
    outer = write_tar(tmp_path / "outer.tar", {"first": b"1" * 600, "inner.tar": inner})
    (_, (_, start, size)) = scan_tar(outer).members
    assert (start, size) == (2048, len(inner))
    scan = scan_tar(outer, start=start, num_bytes=size)
    assert scan == (
        size,
        [(name, 2048 + offset, length) for name, offset, length in scan_tar(sound).members],
        None,
    )
    assert scan_tar(outer, start=start, num_bytes=3584).problem == (
        "no end-of-archive marker, the file ends at byte 5632: cut at a member boundary"
    )


def test_scan_tar__sparse_member(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(sign(header("a.jpg", 0, tarfile.GNUTYPE_SPARSE)) + bytes(1024))
    assert scan_tar(path).problem == "member 'a.jpg' at byte 0 is a sparse file: not supported"


def test_scan_tar__hole_of_zeros(sound: Path) -> None:
    content = bytearray(sound.read_bytes())
    content[1536:3072] = bytes(1536)
    sound.write_bytes(content)
    expected = f"end-of-archive marker at byte 1536 of {len(content)}: more data follows"
    assert scan_tar(sound).problem == expected


def test_scan_tar__zeros_to_the_end(sound: Path) -> None:
    sound.write_bytes(sound.read_bytes()[:1536] + bytes(2 << 20))
    assert "more data follows" in str(scan_tar(sound).problem)


def test_scan_tar__archive_appended(sound: Path) -> None:
    sound.write_bytes(sound.read_bytes() * 2)
    scan = scan_tar(sound)
    assert len(scan.members) == 3
    assert "end-of-archive marker at byte 3584" in str(scan.problem)


def test_scan_tar__not_a_tar(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"<html>" * 200)
    assert scan_tar(path) == (1200, [], "bad tar header at byte 0 of 1200")


@pytest.mark.parametrize(
    ("name", "tar_format", "stored"),
    [
        ("a/b.jpg", tarfile.USTAR_FORMAT, "a/b.jpg"),
        (
            "p" * 90 + "/" + "n" * 60 + ".jpg",
            tarfile.USTAR_FORMAT,
            "p" * 90 + "/" + "n" * 60 + ".jpg",
        ),
        ("n" * 120 + ".jpg", tarfile.GNU_FORMAT, "n" * 100),  # the rest stands in a header before
        ("n" * 120 + ".jpg", tarfile.PAX_FORMAT, "n" * 100),
    ],
)
def test_header_name__of_the_block_before_the_data(
    tmp_path: Path, name: str, tar_format: int, stored: str
) -> None:
    path = write_tar(tmp_path / "a.tar", {name: b"data"}, tar_format)
    (member,) = scan_tar(path).members
    assert member.name == name
    assert header_name(path.read_bytes()[member.offset - BLOCK : member.offset]) == stored


NAMES = ["a.jpg", "d/a.jpg", "d.e/a.seg.png", "./a.JPG", "README", "d.e/README", "a/b.c/d.tar.gz"]


@pytest.mark.parametrize("name", NAMES)
def test_group_samples__splits_names_as_webdataset(name: str) -> None:
    key, extension = base_plus_ext(name)
    expected = [] if key is None else [(key, {extension.lower(): (5, 6)})]
    assert group_samples([TarMember(name, 5, 6)]) == expected


def test_group_samples__joins_neighbours() -> None:
    names = ["a.jpg", "a.cls", "__meta__/x.jpg", "d/.hidden", "b.jpg", "a.txt", "a.txt"]
    members = [TarMember(name, 1000 * place, place) for place, name in enumerate(names)]
    assert group_samples(members) == [
        ("a", {"jpg": (0, 0), "cls": (1000, 1)}),
        ("b", {"jpg": (4000, 4)}),
        ("a", {"txt": (5000, 5)}),
        ("a", {"txt": (6000, 6)}),
    ]

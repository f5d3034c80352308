"""Which files of a folder or tar are images, and how the others are reported."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_swin.data.images.decode import decode_image
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.sources import folder_tree
from ssl_swin.data.sources.folder_tree import read_folder
from ssl_swin.data.sources.layout import Reading
from ssl_swin.data.sources.left_out import LeftOut, report_left_out
from ssl_swin.data.sources.opening import open_data
from ssl_swin.errors import UserError

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0heicmif1"
BINARY = bytes(range(1, 32)) * 20


def encoded(kind: str, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).convert(mode).save(file, kind)
    return file.getvalue()


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


ENDINGS = [
    ("pgm", "PPM", "L"),
    ("pbm", "PPM", "1"),
    ("pnm", "PPM", "RGB"),
    ("pfm", "PPM", "F"),
    ("avif", "AVIF", "RGB"),
    ("jp2", "JPEG2000", "RGB"),
    ("j2k", "JPEG2000", "RGB"),
    ("jfif", "JPEG", "RGB"),
    ("jpe", "JPEG", "RGB"),
    ("JPG", "JPEG", "RGB"),
    ("tga", "TGA", "RGB"),
    ("qoi", "QOI", "RGB"),
    ("mpo", "MPO", "RGB"),
    ("dib", "DIB", "RGB"),
]


@pytest.mark.parametrize(("ending", "kind", "mode"), ENDINGS)
def test_images__by_ending(tmp_path: Path, ending: str, kind: str, mode: str) -> None:
    opened = open_data(write(tmp_path, {f"face.{ending}": encoded(kind, mode)}))
    (sample,) = (opened.splits["train"][index] for index in range(1))
    assert (sample.name, sample.extension) == (f"face.{ending}", ending.lower())
    pixels = decode_image(sample.data, PixelFormat(3, "float32"), name=sample.name)
    assert pixels.shape == (3, 8, 8)
    assert (opened.notes, opened.left_out) == ([], [])


@pytest.mark.parametrize("name", ["face", "face.jpg_large", "face.img1", "face.php", "3", "a.b c"])
@pytest.mark.parametrize(
    ("kind", "extension"), [("JPEG", "jpg"), ("PNG", "png"), ("AVIF", "avif"), ("PPM", "ppm")]
)
def test_images__by_content(tmp_path: Path, name: str, kind: str, extension: str) -> None:
    opened = open_data(write(tmp_path, {name: encoded(kind)}))
    sample = opened.splits["train"][0]
    assert (sample.name, sample.extension, sample.data) == (name, extension, encoded(kind))


def test_known_endings__are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        f"{number}.{ending}": b"x" for number, ending in enumerate(("jpg", "PNG", "npy", "tif"))
    }
    others = {"a.dcm": b"x", "b.txt": b"x", "c.json": b"x", "d.zip": b"x", "e.NEF": b"x"}
    write(tmp_path, files | others | {"f.odd": encoded("PNG")})
    opened = []
    head = folder_tree._head
    monkeypatch.setattr(
        folder_tree, "_head", lambda entry: opened.append(entry.name) or head(entry)
    )
    tree = read_folder(tmp_path)
    assert opened == ["f.odd"]
    assert tree.num_images() == 5


def test_others__are_counted_by_kind(tmp_path: Path) -> None:
    files = {
        "a.jpg": b"x",
        "b.heic": HEIC,
        "sub/c.HEIC": HEIC,
        "sub/d.dcm": BINARY,
        "e": BINARY,
        "f.nef": BINARY,
        "h.tar.gz": BINARY,
        "empty": b"",
        "README": b"what this is",
        "notes.txt": b"",
        "table.xyz": b"1 2 3\n",
        "Thumbs.db": BINARY,
        ".hidden": BINARY,
        "page.php": b"<html>",
    }
    opened = open_data(write(tmp_path, files))
    assert opened.notes == [
        "left out: 7 files that are no images: 2 without an ending (e), 2 .heic (b.heic, read with "
        "pip install pillow-heif), 1 .dcm (sub/d.dcm), 1 .nef (f.nef, raw data of a camera: "
        "convert it), 1 .tar.gz (h.tar.gz, compressed: unpack it)"
    ]
    assert [file.name for file in opened.left_out] == [
        "b.heic", "e", "empty", "f.nef", "h.tar.gz", "sub/c.HEIC", "sub/d.dcm",
    ]  # fmt: skip
    reasons = {file.name: file.reason for file in opened.left_out}
    assert (
        reasons["b.heic"] == "no image that can be read here; with pip install pillow-heif it can"
    )


def test_report_left_out__many_kinds() -> None:
    files = [LeftOut(f"x.k{kind}", "") for kind in range(8)]
    assert report_left_out(files).endswith("1 .k4 (x.k4), 3 of 3 other kinds")
    assert report_left_out([]) == ""


def test_system_folders_and_files(tmp_path: Path) -> None:
    system = "@eaDir #recycle $RECYCLE.BIN lost+found __MACOSX .thumbnails @Recycle".split()
    system += ["System Volume Information", "Recycler"]
    files = {f"{folder}/a/x.jpg": b"x" for folder in system}
    files |= {f"cats/{folder}/x.jpg": b"x" for folder in system}
    files |= {
        "cats/0.jpg": b"x",
        "dogs/1.jpg": b"x",
        "dogs/._1.jpg": b"x",
        "desktop.ini": b"\xff\xfe",
    }
    opened = open_data(write(tmp_path, files))
    source = opened.splits["train"]
    assert source.classes == ("cats", "dogs")
    assert [source[index].name for index in range(len(source))] == ["cats/0.jpg", "dogs/1.jpg"]
    assert (opened.notes, opened.left_out) == ([], [])


def test_pipes__are_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": b"x"})
    for name in ("pipe.jpg", "pipe"):
        os.mkfifo(tmp_path / name)
    opened = open_data(tmp_path)
    assert len(opened.splits["train"]) == 1
    assert [file.name for file in opened.left_out] == ["pipe", "pipe.jpg"]


def test_link_to_nowhere__is_found_when_it_is_read(tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": b"x"})
    (tmp_path / "b.jpg").symlink_to(tmp_path / "absent")
    source = open_data(tmp_path).splits["train"]
    assert len(source) == 2
    with pytest.raises(FileNotFoundError):
        source[1]


def test_links_in_a_circle(tmp_path: Path) -> None:
    """Neither leads to a folder above it."""
    write(tmp_path, {"a/0.jpg": b"x", "b/1.jpg": b"x"})
    (tmp_path / "a/link").symlink_to(tmp_path / "b")
    (tmp_path / "b/link").symlink_to(tmp_path / "a")
    with pytest.raises(UserError) as caught:
        open_data(tmp_path)
    assert str(caught.value) == (
        "a/link/link/link/... holds folders in folders, 38 levels deep: do links lead in a "
        "circle? Leave it out: --leave-out a"
    )


@pytest.mark.parametrize(
    ("leave_out", "names"),
    [
        (["b"], ["a/0.jpg", "a/x/1.jpg"]),
        (["b/"], ["a/0.jpg", "a/x/1.jpg"]),
        (["a/x", "b"], ["a/0.jpg"]),
        (["*/x"], ["a/0.jpg", "b/2.jpg"]),
        (["*1.jpg"], ["a/0.jpg", "b/2.jpg"]),
    ],
)
def test_leave_out(tmp_path: Path, leave_out: list[str], names: list[str]) -> None:
    write(tmp_path, {name: b"x" for name in ("a/0.jpg", "a/x/1.jpg", "b/2.jpg")})
    source = open_data(tmp_path, Reading(leave_out=leave_out)).splits["train"]
    assert [source[index].name for index in range(len(source))] == names


def test_leave_out__what_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, {"cats/0.jpg": b"x", "dogs/1.jpg": b"x"})
    with pytest.raises(UserError) as caught:
        open_data(tmp_path, Reading(leave_out=["dogs", "birds"]))
    assert str(caught.value) == (
        f"nothing in {tmp_path} is called 'birds', which was to be left out. Give paths below it, "
        "or patterns such as '*/previews'; it holds: cats, dogs"
    )


@pytest.mark.parametrize("kind", ["tar", "cifar", "parquet", "shards"])
def test_leave_out__of_what_is_one(tmp_path: Path, kind: str) -> None:
    if kind == "tar":
        path = write_tar(tmp_path / "0.tar", "a.jpg").parent
        with pytest.raises(UserError, match=f"^no images in {tmp_path} and its sub-folders"):
            open_data(path, Reading(leave_out=["0.tar"]))
        return
    names = {"cifar": "batches.meta.txt", "parquet": "0.parquet", "shards": "index.json"}
    write(tmp_path, {names[kind]: b"x"})
    write_tar(tmp_path / "0.tar", "0.jpg", "0.cls")
    with pytest.raises(UserError) as caught:
        open_data(tmp_path, Reading(leave_out=["my cat"]))
    assert str(caught.value) == (
        f"--leave-out 'my cat': what lies in {tmp_path} cannot be left out in part; that is for "
        "folders and tars of images"
    )


def test_names__are_shown_without_control_codes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["a\x1b[31m.heic", "b\nc.dcm", os.fsdecode(b"caf\xe9.nef")]
    opened = open_data(write(tmp_path, {name: BINARY for name in names} | {"0.jpg": b"x"}))
    print(*opened.notes)
    shown = capsys.readouterr().out
    assert shown.count("\n") == 1
    for name in (r"a\x1b[31m.heic", r"b\nc.dcm", r"caf\udce9.nef"):
        assert f"({name}" in shown


def test_tars_below__are_named(tmp_path: Path) -> None:
    write(tmp_path, {"train/0.tar": b"x", "val/1.tar": b"x"})
    with pytest.raises(UserError) as caught:
        open_data(tmp_path)
    assert str(caught.value) == (
        f"no images in {tmp_path} and its sub-folders, but 2 tars (train/0.tar, val/1.tar): give "
        f"one folder of tars: {tmp_path}/train"
    )


# Tars and other files


def write_tar(path: Path, *names: str, mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name in names:
            content = encoded("JPEG") if "picture" in name else b"\1\2\3"
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def sample_names(root: Path, **options: object) -> list[str]:
    source = open_data(root, Reading(**options)).splits["train"]  # type: ignore[arg-type]
    return [source[index].name for index in range(len(source))]


def test_tar_of_pictures__with_dots_in_their_names(tmp_path: Path) -> None:
    names = [f"album/photo{n}{e}.jpg" for n in range(6) for e in ("", ".edited")]
    path = write_tar(tmp_path / "photos.tar", *names)
    assert sample_names(path) == [f"photos.tar/{name}" for name in names]


@pytest.mark.parametrize(
    "extensions", [("jpg", "cls"), ("jpg", "json", "txt"), ("jpg", "mask.png")]
)
def test_shard__is_known_and_can_be_insisted_on(
    tmp_path: Path, extensions: tuple[str, ...]
) -> None:
    path = write_tar(tmp_path / "s.tar", *(f"{n}.{e}" for n in range(4) for e in extensions))
    with pytest.raises(UserError) as caught:
        open_data(path)
    assert str(caught.value) == (
        f"{path} is a shard of samples. Give the folder of all shards; or, if it is a tar of "
        "images and other files: --plain-tars"
    )
    assert sample_names(path, plain_tars=True)[0] == "s.tar/0.jpg"


def test_tar__with_one_other_file_is_no_shard(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", "a.jpg", "a.txt", "b.jpg", "c.jpg")
    assert sample_names(path) == ["s.tar/a.jpg", "s.tar/b.jpg", "s.tar/c.jpg"]


def test_tar__files_by_content_and_what_is_left_out(tmp_path: Path) -> None:
    names = ["x/0.jpg", "x/@eaDir/0.jpg", "__MACOSX/x/1.jpg", "y/picture", "z.heic", "README.md"]
    opened = open_data(write_tar(tmp_path / "s.tar", *names))
    source = opened.splits["train"]
    found = [(source[index].name, source[index].extension) for index in range(len(source))]
    assert found == [("s.tar/x/0.jpg", "jpg"), ("s.tar/y/picture", "jpg")]
    assert opened.notes == [
        "left out: 1 file that is no image: 1 .heic (s.tar/z.heic, read with pip install "
        "pillow-heif)"
    ]
    assert opened.classes_line() == (
        "classes: none, since images in a tar have none; for its folders as classes, unpack it"
    )


def test_tar__with_evaluation_images(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", "x/Training/0.jpg", "x/Testing/1.jpg")
    with pytest.raises(UserError) as caught:
        open_data(path)
    assert str(caught.value) == (
        f"{path} holds the folder x/Testing, which is named like a split for evaluation, and all "
        "images of a tar are one split. Unpack it, and give the folder; or, if the name means no "
        "split: --no-splits"
    )
    assert len(sample_names(path, splits=False)) == 2


def test_tars__mixture_of_splits_and_others(tmp_path: Path) -> None:
    for name in ("extra", "train", "val"):
        write_tar(tmp_path / f"{name}.tar", f"{name}.jpg")
    with pytest.raises(UserError) as caught:
        open_data(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} has tars that are named like splits (train, val) and others (extra): what are "
        "the others? Leave them out: --leave-out extra.tar; or, if the names mean no splits, take "
        "each tar for a class: --no-splits"
    )
    assert sample_names(tmp_path, leave_out=["extra.tar"]) == ["train.tar/train.jpg"]
    assert len(sample_names(tmp_path, splits=False)) == 3


@pytest.mark.parametrize(
    ("mode", "kind", "command"),
    [("w:gz", "gzip", "gunzip -k"), ("w:bz2", "bzip2", "bunzip2 -k"), ("w:xz", "xz", "unxz -k")],
)
@pytest.mark.parametrize("name", ["train-000.tar.gz", "train-000.tar"])
def test_compressed_tar(tmp_path: Path, mode: str, kind: str, command: str, name: str) -> None:
    path = write_tar(tmp_path / name, "0.jpg", "0.cls", mode=mode)
    message = (
        f"{path} is compressed ({kind} file), and images are read in place. Unpack it first: "
        f"{command} {path}"
    )
    with pytest.raises(UserError) as caught:
        open_data(path)
    assert str(caught.value) == message
    if path.suffix == ".tar":
        with pytest.raises(UserError) as caught:
            open_data(tmp_path)
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "my images.zip",
            b"PK\x03\x04",
            "{} is a ZIP archive, which is not read in place. Unpack it (unzip '{}'), and give the "
            "folder",
        ),
        (
            "a.7z",
            b"7z\xbc\xaf\x27\x1c",
            "{} is a 7z archive, which is not read in place. Unpack it (7z x {}), and give the "
            "folder",
        ),
        (
            "a.rar",
            b"Rar!\x1a\x07\0",
            "{} is a RAR archive, which is not read in place. Unpack it (unrar x {}), and give the "
            "folder",
        ),
        ("a.png", b"", "{} is one image. Give the folder that it lies in"),
        ("a", b"\x89PNG\r\n\x1a\n\0", "{} is one image. Give the folder that it lies in"),
        ("a.dat", b"PAR1", "{} is a parquet file: give it the ending .parquet"),
        (
            "a.notes",
            b"hello",
            "{} is neither a folder of images nor a tar, a parquet file or the binary archive of "
            "CIFAR. What can be given: ssl-swin pack --help",
        ),
    ],
)
def test_file_that_is_no_tar(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        open_data(path)
    assert str(caught.value) == message.format(path, path)

"""Files of a folder or tar that are not taken: which ones matter, and how they are reported."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from ssl_swin.data.file_types import (
    IMAGE_EXTENSIONS,
    container_of_content,
    extension_of,
    extension_of_content,
)
from ssl_swin.data.pillow_formats import missing_package, readable_extensions
from ssl_swin.quoting import shell_word

HEAD_BYTES = 512  # of a file, enough to know what it is
MOST_KINDS = 5  # in a message

# Documents, tables and programs: nobody expects them to be images.
_NO_IMAGES = frozenset(
    "txt md markdown rst log json jsonl ndjson geojson yaml yml toml ini cfg conf xml xsd csv tsv "
    "html htm xhtml css js ts py pyc ipynb sh bat ps1 m r c h cpp hpp java go rs rb pl lua tex bib "
    "pdf doc docx odt rtf xls xlsx ods ppt pptx odp lock sha256 sha1 md5 sum sig asc url webloc "
    "lnk cls lst info cff gitignore gitattributes xmp thm aae".split()
)
_RAW = frozenset(
    "dng nef nrw cr2 cr3 crw arw sr2 srf raf orf rw2 pef dcr kdc mrw x3f 3fr iiq erf mef mos rwl "
    "srw gpr raw".split()
)
# What is not opened to see whether it is an image: it is none that training should see, or of a
# kind that nothing here reads.
_OTHERS = _RAW | frozenset(
    "ico cur icns svg svgz eps ai wmf emf dcm dicom nii mha mhd nrrd img hdr svs ndpi scn mrxs "
    "tar gz tgz bz2 tbz2 xz txz zst lz4 zip 7z rar h5 hdf5 hdf mat pkl pickle pt pth ckpt bin "
    "safetensors onnx tfrecord tfrecords rec idx mdb lmdb db sqlite parquet arrow feather mp4 m4v "
    "mov avi mkv webm mpg mpeg wmv flv mp3 wav flac ogg part crdownload download tmp partial bak "
    "old orig swp exe dll so iso xcf kra".split()
)
_SYSTEM_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"))
_SYSTEM_FOLDERS = frozenset(
    "@eadir #recycle #snapshot @recycle @recently-snapshot @sharebin @tmp $recycle.bin recycler "
    "recycled lost+found __macosx found.000 found.001 __pycache__ msocache".split()
) | {"system volume information", "network trash folder", "temporary items"}
_SYSTEM_NAMES = _SYSTEM_FILES | _SYSTEM_FOLDERS

_COMPRESSED = dict.fromkeys("gz tgz bz2 tbz2 xz txz zst lz4".split(), ", compressed: unpack it")
_ARCHIVES = dict.fromkeys("zip 7z rar".split(), ", an archive: unpack it")
_WAYS = _COMPRESSED | _ARCHIVES | dict.fromkeys(_RAW, ", raw data of a camera: convert it")


class LeftOut(NamedTuple):
    """A file that is not taken."""

    name: str
    reason: str


def is_system_name(name: str) -> bool:
    """Return whether a file or folder is hidden, or one that systems make for themselves."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def is_system_folder(name: str) -> bool:
    """Return whether a folder is one that systems make for themselves."""
    return name.lower() in _SYSTEM_FOLDERS


def is_known_image(name: str) -> bool:
    """Return whether the name says that a file is an image that can be read here."""
    return extension_of(name) in readable_extensions()


def must_be_opened(name: str) -> bool:
    """Return whether only its content says what a file is."""
    extension = extension_of(name)
    return extension not in _NO_IMAGES | _OTHERS and extension not in IMAGE_EXTENSIONS


def is_no_image(name: str) -> bool:
    """Return whether the name says that a file is obviously no image."""
    return extension_of(name) in _NO_IMAGES


def is_image_content(head: bytes) -> bool:
    """Return whether a file that begins with `head` is an image that can be read here."""
    kind = extension_of_content(head)
    return (
        kind not in ("tga", "npz", "xbm") and kind in readable_extensions() and not _is_text(head)
    )


def is_no_image_content(head: bytes) -> bool:
    """Return whether a file that begins with `head` is obviously no image: a text."""
    return len(head) > 0 and extension_of_content(head) == "" and _is_text(head)


def why_left_out(name: str) -> str:
    """Return the reason for which a file is left out, by its name."""
    extension = extension_of(name)
    package = missing_package(extension)
    if package is not None:
        return f"no image that can be read here; with pip install {package} it can"
    if extension in _RAW:
        return "raw data of a camera; convert it to TIFF or JPEG"
    return "no image that can be read"


def shown(text: str) -> str:
    """Return a text that holds names of files for a message: one line, without control codes."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def some(names: Sequence[str], most: int = 3) -> str:
    """Return the first of some names for a message, and how many there are if not all are shown."""
    first = ", ".join(map(shown, names[:most])) or "none"
    return f"{first}, ... ({len(names)} in all)" if len(names) > most else first


def leaving_out(*paths: str) -> str:
    """Return the options that leave paths out."""
    return " ".join(f"--leave-out {shell_word(path)}" for path in paths)


def report_left_out(files: Sequence[LeftOut]) -> str:
    """Return one line that counts files by kind, with an example of each; "" without any."""
    if not files:
        return ""
    kinds: dict[str, list[LeftOut]] = {}
    for file in files:
        kinds.setdefault(_kind(file.name), []).append(file)
    ordered = sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))
    shown = [_describe(extension, group) for extension, group in ordered[:MOST_KINDS]]
    if len(ordered) > MOST_KINDS:
        rest = sum(len(group) for _, group in ordered[MOST_KINDS:])
        shown.append(f"{rest} of {len(ordered) - MOST_KINDS} other kinds")
    noun = "file that is no image" if len(files) == 1 else "files that are no images"
    return f"left out: {len(files)} {noun}: {', '.join(shown)}"


def _kind(name: str) -> str:
    """Return the ending of a file, with the one before it where a file is compressed."""
    extension = extension_of(name)
    inner = extension_of(name[: -len(extension) - 1]) if extension in _COMPRESSED else ""
    return f"{inner}.{extension}" if inner in ("tar", "nii") else extension


def _describe(extension: str, group: Sequence[LeftOut]) -> str:
    kind = f".{extension}" if extension else "without an ending"
    package = missing_package(extension)
    way = f", read with pip install {package}" if package else _WAYS.get(extension, "")
    way = _WAYS["gz"] if extension.startswith("tar.") else way
    return f"{len(group)} {kind} ({shown(group[0].name)}{way})"


def _is_text(head: bytes) -> bool:
    """Return whether there are no control characters but those of texts, and no known format."""
    if re.match(rb"P[1-6Ff]\s", head) or container_of_content(head) is not None:
        return False
    return all(byte >= 32 or byte in b"\t\n\r\f\x1b" for byte in head)

"""An XML file of Pascal VOC, read without trust: one that refers to anything is refused."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from ssl_swin.errors import UserError

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocObject(NamedTuple):
    """An object, with the corners of its box as the file has them."""

    name: str
    corners: tuple[float, float, float, float]  # x_min, y_min, x_max, y_max
    difficult: bool


class VocFile(NamedTuple):
    """What a file holds."""

    path: Path
    image: str  # last part of the image's name; empty where the file names none
    size_px: tuple[int, int]
    objects: list[VocObject]


def read_voc_file(path: Path) -> VocFile:
    """Read a file.

    Args:
        path: The file.

    Raises:
        UserError: If it cannot be read, or is no annotation of boxes.
    """
    try:
        root = _parsed(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (expat.ExpatError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no XML that can be read: {error}") from error
    if root.tag != "annotation":
        raise UserError(f"{path} is no annotation of Pascal VOC: it begins with <{root.tag}>")
    image = _text(root, "filename").replace("\\", "/").rpartition("/")[2]
    return VocFile(path, image, _size(root, path), list(_objects(root, path)))


def _parsed(data: bytes) -> Element:
    """Parse XML that declares no entities, which could read other files or grow without end."""
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.Parse(data, True)
    return builder.close()


def _refuse_doctype(*declared: object) -> None:
    raise ValueError("it declares a document type, which annotations do not need")


def _size(root: Element, path: Path) -> tuple[int, int]:
    texts = [_text(root, f"size/{side}") for side in ("height", "width")]
    try:
        height_px, width_px = (int(float(text)) for text in texts)
    except (ValueError, OverflowError):
        height_px = width_px = 0
    if height_px < 1 or width_px < 1:
        raise UserError(
            f"{path} has no size of its image: its height is {texts[0]!r} and its width "
            f"{texts[1]!r}. Write <size><width>PX</width><height>PX</height></size>"
        )
    return height_px, width_px


def _objects(root: Element, path: Path) -> Iterator[VocObject]:
    for number, element in enumerate(root.findall("object"), start=1):
        title = f"{path}: object {number}"
        name = _text(element, "name")
        if not name:
            raise UserError(f"{title} has no name")
        texts = [_text(element, f"bndbox/{corner}") for corner in _CORNERS]
        try:
            x_min, y_min, x_max, y_max = map(float, texts)
        except ValueError:
            x_min = y_min = x_max = y_max = math.nan
        corners = (x_min, y_min, x_max, y_max)
        if not all(map(math.isfinite, corners)):
            held = ", ".join(f"{c} {text!r}" for c, text in zip(_CORNERS, texts, strict=True))
            raise UserError(f"{title} ({name}) has no box of four finite numbers: {held}")
        yield VocObject(name, corners, _text(element, "difficult") in ("1", "true", "True"))


def _text(element: Element, place: str) -> str:
    return (element.findtext(place) or "").strip()

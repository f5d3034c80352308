"""A JSON file of COCO: its lists, and the objects of its images."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ssl_swin.data.sources.boxes.masks import polygons_of
from ssl_swin.data.sources.boxes.objects import Objects, Tally, fitted
from ssl_swin.data.sources.boxes.reading import is_number
from ssl_swin.data.sources.left_out import LeftOut, some
from ssl_swin.errors import UserError

_LISTS = ("images", "annotations", "categories")


class CocoFile(NamedTuple):
    """What a file lists."""

    path: Path
    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    names: dict[int, str]  # of the categories by their id, in ascending order


def read_coco_file(path: Path) -> CocoFile:
    """Read a file, and check what does not depend on the images.

    Args:
        path: The file.

    Raises:
        UserError: If it cannot be read, or is no file of COCO with boxes.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(
            f"{path} is no file of COCO: it holds no object with {' and '.join(_LISTS)}"
        )
    for name in _LISTS:
        entries = content.get(name)
        if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
            held = some([str(key) for key in content], 5)
            raise UserError(f"{path} is no file of COCO: it has no list {name!r}, but {held}")
    if not content["images"]:
        raise UserError(f"{path} lists no image")
    names = _category_names(content["categories"], path)
    return CocoFile(path, content["images"], content["annotations"], names)


def _category_names(categories: list[dict[str, Any]], path: Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for category in categories:
        number, name = category.get("id"), category.get("name")
        if type(number) is not int or not isinstance(name, str) or not name:
            raise UserError(f"{path}: a category has no id or no name: {category}")
        if number in names or name in names.values():
            raise UserError(f"{path}: two categories have the id {number} or the name {name!r}")
        names[number] = name
    return dict(sorted(names.items()))


def image_entries(file: CocoFile) -> dict[Any, tuple[str, tuple[int, int]]]:
    """Return the file name, height and width of every image by its id.

    Args:
        file: The file.

    Raises:
        UserError: If an image lacks one of them, or two are the same.
    """
    found: dict[Any, tuple[str, tuple[int, int]]] = {}
    for entry in file.images:
        number, name = entry.get("id"), entry.get("file_name") or entry.get("coco_url")  # LVIS's
        if not isinstance(number, int | str) or not isinstance(name, str) or not name:
            raise UserError(f"{file.path}: an image has no id or no file_name: {entry}")
        size = entry.get("height"), entry.get("width")
        if not all(type(side) is int and side > 0 for side in size):
            raise UserError(
                f"{file.path}: the image {name} has the height {size[0]} and the width {size[1]}; "
                "both must be whole numbers of px"
            )
        if number in found:
            raise UserError(f"{file.path}: two images have the id {number}, the second is {name}")
        height_px, width_px = map(int, size)  # type: ignore[arg-type]
        found[number] = name.replace("\\", "/").removeprefix("./"), (height_px, width_px)
    names = [name for name, _ in found.values()]
    if len(set(names)) < len(names):
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise UserError(f"{file.path} lists the image {twice} twice")
    return found


def fill_objects(
    file: CocoFile,
    images: Mapping[Any, Objects],
    labels: Mapping[int, int | None],
    tally: Tally,
    *,
    masks: bool,
) -> None:
    """Add the annotations of a file to the images that they belong to.

    Args:
        file: The file.
        images: The images by id; boxes of other ones are passed over if the file lists these.
        labels: Label of each category by its id; None for one whose boxes are left out.
        tally: Where boxes that are left out are written down.
        masks: Whether masks are wanted.

    Raises:
        UserError: Naming the annotation that is none, and what is wrong with it.
    """
    listed = {entry["id"] for entry in file.images}
    for number, annotation in enumerate(file.annotations):
        title = f"{file.path}: annotation {annotation.get('id', f'number {number}')}"
        image = annotation.get("image_id")
        if not isinstance(image, int | str) or image not in listed:
            tally.unlisted.append(LeftOut(f"image_id {image}", "its image is not listed"))
            continue
        label = _label(annotation.get("category_id"), labels, title)
        box = _corners(annotation.get("bbox"), title)
        if label is None:
            category = file.names[annotation["category_id"]]
            tally.other_class.append(LeftOut(category, "data.classes does not name it"))
        elif image in images:
            _add(images[image], annotation, box, label, tally, title, masks=masks)


def _add(
    objects: Objects,
    annotation: dict[str, Any],
    box: list[float],
    label: int,
    tally: Tally,
    title: str,
    *,
    masks: bool,
) -> None:
    assert objects.size_px is not None
    height_px, width_px = objects.size_px
    inside = fitted(box, width_px, height_px)
    if inside is None:
        text = f"{objects.name} {annotation['bbox']}"
        tally.empty.append(LeftOut(text, "a box that is empty or outside its image"))
        return
    area = annotation.get("area")
    if area is not None and not (is_number(area) and math.isfinite(area)):
        raise UserError(f"{title} has the area {area!r}, which is no number")
    shape = annotation.get("segmentation") if masks else None
    objects.add(
        inside,
        label,
        crowd=bool(annotation.get("iscrowd", 0)),
        area=area if area else None,
        shape=shape if isinstance(shape, dict) else polygons_of(shape),
    )


def _label(category: Any, labels: Mapping[int, int | None], title: str) -> int | None:
    if type(category) is not int or category not in labels:
        known = some([str(number) for number in labels], 5)
        raise UserError(f"{title} has the category_id {category}, none of its categories: {known}")
    return labels[category]


def _corners(bbox: Any, title: str) -> list[float]:
    """Return x_min, y_min, x_max, y_max of a box as COCO has it."""
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(is_number, bbox)):
        raise UserError(f"{title} has the bbox {bbox}; it must be x, y, width and height in px")
    if not all(map(math.isfinite, bbox)):
        raise UserError(f"{title} has the bbox {bbox}, whose numbers are not all finite")
    x, y, width, height = bbox
    return [x, y, x + width, y + height]

"""Pictures of squares and disks, with their boxes and masks in every form that is read."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

CLASSES = ("box", "disk")
NUMBER = {"train": 8, "val": 4}  # pictures; the second of each split shows nothing


class Drawn(NamedTuple):
    """A picture, and what is in it."""

    pixels: np.ndarray  # uint8 (H, W, 3)
    boxes: list[list[int]]  # x_min, y_min, x_max, y_max
    labels: list[int]
    masks: list[np.ndarray]  # bool (H, W)


def drawn(split: str, number: int) -> Drawn:
    """Draw a picture of its own shapes: a bright square at the left, a disk at the right."""
    generator = np.random.default_rng([len(split), number])
    height, width = (48, 64) if number % 2 else (64, 64)
    pixels = generator.integers(50, 80, (height, width, 3)).astype(np.uint8)
    picture = Drawn(pixels, [], [], [])
    rows, columns = np.mgrid[:height, :width]
    for label in range(2) if number != 1 else ():
        side = int(generator.integers(16, 26))
        x_min = int(generator.integers(0, 32 - side)) + 32 * label
        y_min = int(generator.integers(0, height - side))
        centre = y_min + side / 2, x_min + side / 2
        across = np.abs(columns + 0.5 - centre[1]), np.abs(rows + 0.5 - centre[0])
        far = np.hypot(*across) if label else np.maximum(*across)
        mask = far < side / 2
        pixels[mask] = (230, 60, 60) if label else (60, 60, 230)
        ys, xs = mask.nonzero()
        corners = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        picture.boxes.append([int(corner) for corner in corners])
        picture.labels.append(label)
        picture.masks.append(mask)
    return picture


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """Return a mask as COCO has it."""
    values = np.concatenate([[False], mask.T.flatten()])
    ends = np.append(np.flatnonzero(values[1:] != values[:-1]), mask.size)
    return {"size": list(mask.shape), "counts": np.diff(ends, prepend=0).tolist()}


def png(pixels: np.ndarray) -> bytes:
    """Return the file of a picture."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def pictures() -> list[tuple[str, str, Drawn]]:
    """Return split, name and picture of all."""
    return [
        (split, f"{split}_{number}", drawn(split, number))
        for split, count in NUMBER.items()
        for number in range(count)
    ]


def write_shards(root: Path, *, masks: bool = True) -> None:
    """Write tar files with the members that detection reads; to be indexed."""
    for split in NUMBER:
        (root / split).mkdir(parents=True)
        with tarfile.open(root / split / "000000.tar", "w") as tar:
            for at, name, picture in pictures():
                if at == split:
                    content: dict[str, Any] = {"boxes": picture.boxes, "labels": picture.labels}
                    if masks:
                        content["masks"] = [run_lengths(mask) for mask in picture.masks]
                    _add(tar, f"{name}.png", png(picture.pixels))
                    _add(tar, f"{name}.boxes.json", json.dumps(content).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def write_coco(root: Path, *, masks: bool = True) -> None:
    """Write images and `instances.json` of each split; the ids of categories have gaps."""
    for split in NUMBER:
        told: dict[str, list[Any]] = {"images": [], "annotations": []}
        for at, name, picture in pictures():
            if at != split:
                continue
            _write(root / split / f"{name}.png", png(picture.pixels))
            height, width = picture.pixels.shape[:2]
            number = len(told["images"]) + 1
            entry = {"id": number, "file_name": f"{name}.png", "height": height, "width": width}
            told["images"].append(entry)
            for box, label, mask in zip(picture.boxes, picture.labels, picture.masks, strict=True):
                x_min, y_min, x_max, y_max = box
                annotation = {
                    "id": len(told["annotations"]) + 1,
                    "image_id": number,
                    "category_id": 3 + 4 * label,
                    "bbox": [x_min, y_min, x_max - x_min, y_max - y_min],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                }
                if masks:
                    annotation["segmentation"] = run_lengths(mask)
                told["annotations"].append(annotation)
        categories = [{"id": 3 + 4 * label, "name": name} for label, name in enumerate(CLASSES)]
        content = json.dumps({**told, "categories": categories})
        _write(root / split / "instances.json", content.encode())


def write_voc(root: Path) -> None:
    """Write VOC's folders; corners count from 1, and the last one belongs to the object."""
    for split, name, picture in pictures():
        objects = "".join(
            f"<object><name>{CLASSES[label]}</name><difficult>0</difficult><bndbox>"
            f"<xmin>{box[0] + 1}</xmin><ymin>{box[1] + 1}</ymin>"
            f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
            for box, label in zip(picture.boxes, picture.labels, strict=True)
        )
        height, width = picture.pixels.shape[:2]
        size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{name}.png</filename>{size}{objects}</annotation>"
        _write(root / "JPEGImages" / f"{name}.png", png(picture.pixels))
        _write(root / "Annotations" / f"{name}.xml", text.encode())
        listed = root / "ImageSets" / "Main" / f"{split}.txt"
        before = listed.read_text() if listed.exists() else ""
        _write(listed, f"{before}{name}\n".encode())


def write_yolo(root: Path) -> None:
    """Write images, labels relative to their size, and data.yaml."""
    for split, name, picture in pictures():
        height, width = picture.pixels.shape[:2]
        lines = [
            f"{label} {(box[0] + box[2]) / 2 / width} {(box[1] + box[3]) / 2 / height} "
            f"{(box[2] - box[0]) / width} {(box[3] - box[1]) / height}\n"
            for box, label in zip(picture.boxes, picture.labels, strict=True)
        ]
        _write(root / "images" / split / f"{name}.png", png(picture.pixels))
        _write(root / "labels" / split / f"{name}.txt", "".join(lines).encode())
    names = json.dumps(list(CLASSES))
    _write(root / "data.yaml", f"train: images/train\nval: images/val\nnames: {names}\n".encode())


WRITERS: dict[str, Callable[..., None]] = {
    "coco": write_coco,
    "voc": write_voc,
    "yolo": write_yolo,
}


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)

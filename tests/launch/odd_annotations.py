"""Images whose masks or boxes are not as they should be, for the table of command lines."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NUMBER = 4
HEIGHT_PX, WIDTH_PX = 40, 48
ALL = list(range(NUMBER))


def write_odd_annotations(root: Path) -> None:
    """Write a folder for each thing that can be wrong; the second image of it is the one."""
    rng = np.random.default_rng(0)
    good = rng.integers(0, 2, (HEIGHT_PX, WIDTH_PX)).astype(np.uint8)
    strange, other_size = good.copy(), good.T.copy()
    strange[3, 4] = 7
    _masked(root / "size", [good, other_size, good, good])
    _masked(root / "value", [good, strange, good, good])
    _masked(root / "damaged", [good, good, good, good])
    (root / "damaged/masks/1.png").write_bytes(_png(good)[:60])
    _masked(root / "lone", [good, None, good, good])
    _masked(root / "empty_class", [good * 0] * NUMBER)
    _masked(root / "lossy", [good] * NUMBER)
    for path in sorted((root / "lossy/masks").iterdir()):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    for name in ("size", "value", "damaged", "lone"):
        _as_shards(root / name, root / f"{name}_shards")
    box = {"image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 20]}
    for name, annotations in {
        "boxes": [box],
        "outside": [{**box, "bbox": [100, 100, 20, 20]}],
        "thin": [{**box, "bbox": [4, 4, 0, 20]}],
        "category": [{**box, "category_id": 9}],
        "no_boxes": [],
        "no_image": [{**box, "image_id": 99}],
    }.items():
        _coco(root / f"coco/{name}.json", annotations)
    _coco(root / "coco/other_set.json", [box], names="elsewhere_{}.png")
    _boxes(root / "labels_shards", {"boxes": [[4, 4, 20, 20]], "labels": [9]})
    _boxes(root / "xywh_shards", {"boxes": [[20, 20, 4, 4]], "labels": [0]})


def _image(number: int) -> bytes:
    pixels = np.random.default_rng([1, number]).integers(0, 255, (HEIGHT_PX, WIDTH_PX, 3))
    return _png(pixels.astype(np.uint8))


def _png(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _masked(folder: Path, masks: list[np.ndarray | None]) -> None:
    for number, mask in enumerate(masks):
        _write(folder / "images" / f"{number}.png", _image(number))
        if mask is not None:
            _write(folder / "masks" / f"{number}.png", _png(mask))


def _as_shards(folder: Path, shards: Path) -> None:
    """Write what another program might make of it."""
    files = {}
    for number in ALL:
        files[f"{number}.png"] = (folder / f"images/{number}.png").read_bytes()
        if (mask := folder / f"masks/{number}.png").exists():
            files[f"{number}.mask.png"] = mask.read_bytes()
    _tar(shards, files)


def _boxes(shards: Path, of_second: dict[str, Any]) -> None:
    files = {}
    for number in ALL:
        files[f"{number}.png"] = _image(number)
        boxes = of_second if number == 1 else {"boxes": [[1, 1, 30, 30]], "labels": [0]}
        files[f"{number}.boxes.json"] = json.dumps(boxes).encode()
    _tar(shards, files)


def _tar(shards: Path, files: dict[str, bytes]) -> None:
    for split in ("train", "val"):
        shards.mkdir(parents=True, exist_ok=True)
        with tarfile.open(shards / f"{split}-0.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for name, content in files.items():
                header = tarfile.TarInfo(name)
                header.size = len(content)
                archive.addfile(header, io.BytesIO(content))
    (shards / "classes.txt").write_text("cat\ndog\n")


def _coco(path: Path, annotations: list[dict[str, Any]], names: str = "{}.png") -> None:
    images = [
        {"id": n, "file_name": names.format(n), "height": HEIGHT_PX, "width": WIDTH_PX} for n in ALL
    ]
    categories = [{"id": 1, "name": "cat"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    _write(path, json.dumps(content).encode())

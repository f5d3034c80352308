"""Small data sets with boxes, written as people have them."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Write = Callable[..., Path]


@pytest.fixture
def image(tmp_path) -> Write:
    """Writes an image below the folder, of 20 x 30 px (height x width), each of its own."""

    def write(name: str, size: Sequence[int] = (20, 30)) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        level = sum(path.name.encode()) % 256
        Image.fromarray(np.full(size, level, dtype=np.uint8)).save(path)
        return path

    return write


@pytest.fixture
def text(tmp_path) -> Write:
    """Writes a text file, or JSON, below the folder."""

    def write(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


@pytest.fixture
def coco() -> Callable[..., dict[str, Any]]:
    """The content of a COCO file."""

    def content(
        images: Mapping[str, Sequence[Any]],
        categories: Mapping[int, str] = {7: "cat", 3: "dog"},
        /,
        **changes: Any,
    ) -> dict[str, Any]:
        """By name of the image, its annotations: (category_id, bbox) or the entry itself."""
        annotations = [
            {"image_id": number}
            | (
                each
                if isinstance(each, dict)
                else dict(zip(("category_id", "bbox"), each, strict=True))
            )
            for number, entries in enumerate(images.values())
            for each in entries
        ]
        found = {
            "images": [
                {"id": number, "file_name": name, "height": 20, "width": 30}
                for number, name in enumerate(images)
            ],
            "annotations": [{"id": 100 + n} | each for n, each in enumerate(annotations)],
            "categories": [{"id": key, "name": name} for key, name in categories.items()],
        }
        return found | changes

    return content


@pytest.fixture
def voc() -> Callable[..., str]:
    """The content of an XML file."""

    def content(name: str, objects: Sequence[Any] = (), size: str | None = None) -> str:
        size = "<size><width>30</width><height>20</height></size>" if size is None else size
        parts = [
            f"<object><name>{label}</name><difficult>{int(difficult)}</difficult><bndbox>"
            + "".join(
                f"<{corner}>{value}</{corner}>"
                for corner, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
            )
            + "</bndbox></object>"
            for label, box, difficult in objects
        ]
        inner = f"<filename>{name}</filename>{size}{''.join(parts)}"
        return f"<annotation>{inner}</annotation>"

    return content

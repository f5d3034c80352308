"""Masks of objects: polygons become run lengths, as COCO's own tools make them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssl_swin.errors import UserError

LEAST_NUMBERS = 6  # of a polygon: three corners
FARTHEST = 10  # times the longer side of its image that a corner may be away


def polygons_of(shape: Any) -> list[list[float]] | None:
    """Return the polygons of a COCO `segmentation`; None if it holds none that has an area.

    Args:
        shape: A list of polygons x, y, x, y, ..., or one polygon.
    """
    if not isinstance(shape, list):
        return None
    if shape and all(not isinstance(part, list) for part in shape):
        shape = [shape]
    parts = [part for part in shape if isinstance(part, list)]
    sound = [part for part in parts if len(part) >= LEAST_NUMBERS and len(part) % 2 == 0]
    return sound or None


def check_polygons_can_be_drawn() -> None:
    """Refuse polygons where the package is missing that turns them into masks.

    Raises:
        UserError: If it is missing.
    """
    _coco_masks()


def run_lengths(shapes: Sequence[Any], size_px: tuple[int, int]) -> list[dict[str, Any]]:
    """Return masks as run lengths.

    Args:
        shapes: Run lengths, which stay as they are, or lists of polygons in px.
        size_px: Height and width of the image.

    Raises:
        ValueError: If a polygon cannot be drawn.
    """
    return [_drawn(shape, size_px) if isinstance(shape, list) else shape for shape in shapes]


def _drawn(polygons: list[list[float]], size_px: tuple[int, int]) -> dict[str, Any]:
    coco = _coco_masks()
    height_px, width_px = size_px
    corners = [_corners(polygon, FARTHEST * max(size_px)) for polygon in polygons]
    try:
        rle = coco.merge(coco.frPyObjects(corners, height_px, width_px))
    except Exception as error:  # of a compiled extension
        raise ValueError(f"a polygon cannot be drawn: {error}") from error
    return {"size": [height_px, width_px], "counts": rle["counts"].decode("ascii")}


def _corners(polygon: list[float], farthest_px: float) -> list[float]:
    """Return the numbers of a polygon; to draw it takes memory by its length, also outside.

    Raises:
        ValueError: If one is no number, or too far from the image.
    """
    try:
        corners = np.asarray(polygon, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"a polygon has a corner that is no number: {error}") from error
    if corners.ndim != 1 or not (np.abs(corners) <= farthest_px).all():
        raise ValueError(f"a polygon has a corner far from its image: {polygon!r:.200}")
    found: list[float] = corners.tolist()
    return found


def _coco_masks() -> Any:
    try:
        from faster_coco_eval.core import mask
    except ImportError as error:
        raise UserError(
            "masks that are polygons need faster-coco-eval: pip install 'ssl_swin[detection]'; or "
            "set data.masks=false to read boxes alone"
        ) from error
    return mask

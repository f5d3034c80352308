"""Views of an image that know how they came about, as a 3x3 matrix of places in px.

A place is (x, y) in px, (0, 0) being the outer corner of the first pixel; a matrix acts on the
column (x, y, 1). Matrices are float64 where they are made, in the processes that load data.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import InterpolationMode

from ssl_swin.data.geometry import Size, flip, resize
from ssl_swin.data.sample import Sample

Matrix = NDArray[np.float64]  # (3, 3)
_FULL_SCALE = {torch.uint8: 255, torch.uint16: 65535}


class View(NamedTuple):
    """An image, and where in it the places of another image are."""

    pixels: Tensor  # uint8, uint16 or float32 (C, H, W)
    matrix: Matrix  # from a place of the other image to one of this image

    @property
    def size_px(self) -> Size:
        """Height and width."""
        height, width = self.pixels.shape[-2:]
        return height, width


def untouched(pixels: Tensor) -> View:
    """Return an image as a view of itself."""
    return View(pixels, np.eye(3))


def resized(view: View, size_px: Size) -> View:
    """Return a view of another size, bilinear and with antialiasing."""
    (height, width), (new_height, new_width) = view.size_px, size_px
    pixels = resize(Sample(view.pixels), size_px, InterpolationMode.BILINEAR).pixels
    scaling = np.diag([new_width / width, new_height / height, 1.0])
    return View(pixels, scaling @ view.matrix)


def mirrored(view: View) -> View:
    """Return a view from right to left."""
    mirroring = np.array([[-1.0, 0, view.size_px[1]], [0, 1, 0], [0, 0, 1]])
    return View(flip(Sample(view.pixels)).pixels, mirroring @ view.matrix)


def warped(view: View, change: Matrix) -> View:
    """Return a view of the same size whose places are moved.

    Pixels are bilinear; places that come from outside take the mean of the view, each channel's.

    Args:
        view: The view.
        change: From a place before to the place after, in px.
    """
    pixels = view.pixels.float()
    height, width = view.size_px
    mean = pixels.mean(dim=(1, 2), keepdim=True)
    y, x = (torch.arange(side, dtype=torch.float64) + 0.5 for side in (height, width))
    back = np.linalg.inv(change)
    from_x = back[0, 0] * x + back[0, 1] * y[:, None] + back[0, 2]
    from_y = back[1, 0] * x + back[1, 1] * y[:, None] + back[1, 2]
    grid = torch.stack([2 * from_x / width - 1, 2 * from_y / height - 1], dim=-1).float()
    moved = functional.grid_sample((pixels - mean)[None], grid[None], align_corners=False)[0]
    return View(_as_stored(moved + mean, view.pixels.dtype), change @ view.matrix)


def translation(x: float, y: float) -> Matrix:
    """Return the matrix that moves places by px."""
    return np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])


def rotation(degrees: float, size_px: Size) -> Matrix:
    """Return the matrix that turns an image around its centre, from x towards y."""
    angle = math.radians(degrees)
    cosine, sine = math.cos(angle), math.sin(angle)
    return _around_centre(np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]]), size_px)


def shear(x_degrees: float, y_degrees: float, size_px: Size) -> Matrix:
    """Return the matrix that shears an image along x and along y, its centre staying."""
    along_x, along_y = (math.tan(math.radians(angle)) for angle in (x_degrees, y_degrees))
    return _around_centre(np.array([[1, along_x, 0], [along_y, 1, 0], [0, 0, 1.0]]), size_px)


def move_boxes(boxes: Tensor, matrix: Tensor, size_px: Size) -> Tensor:
    """Return boxes of one view in another: what encloses their corners, cut to the image.

    Args:
        boxes: Float32 (N, 4) as x_min, y_min, x_max, y_max in px.
        matrix: From a place of the one to a place of the other, float32 (3, 3).
        size_px: Height and width of the other.

    Returns:
        Float32 (N, 4); one that lies outside has no area.
    """
    matrix = matrix.to(boxes)
    x, y = boxes[:, [0, 2, 2, 0]], boxes[:, [1, 1, 3, 3]]
    moved_x = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]
    moved_y = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]
    height, width = size_px
    moved_x, moved_y = moved_x.clamp(0, width), moved_y.clamp(0, height)
    corners = [moved_x.amin(1), moved_y.amin(1), moved_x.amax(1), moved_y.amax(1)]
    return torch.stack(corners, dim=1)


def _around_centre(matrix: Matrix, size_px: Size) -> Matrix:
    x, y = size_px[1] / 2, size_px[0] / 2
    return translation(x, y) @ matrix @ translation(-x, -y)


def _as_stored(values: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype not in _FULL_SCALE:
        return values.to(dtype)
    return values.round_().clamp_(0, _FULL_SCALE[dtype]).to(torch.int32).to(dtype)

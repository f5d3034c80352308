"""Synthetic images, drawn by the project itself, so that a first run needs no data.

A scene is one large solid in front of a few smaller ones, on a patterned ground and under one
light. Its class is the shape of the large solid; colours, patterns, sizes, places and angles are
drawn without looking at it.
"""

import cmath
import hashlib
import io
import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.synthetic import shapes
from ssl_swin.data.synthetic.paint import (
    Solid,
    draw_pattern,
    paint_ground,
    paint_solid,
    pixel_centres,
    rgb,
)
from ssl_swin.errors import UserError

SHAPES = tuple(shapes.SHAPES)
MIN_SIZE_PX = 32

_VERSION = 1  # to be raised when the same arguments begin to draw other pictures
_MARGIN = 0.07  # least distance of the main solid to the frame, in half sides of the picture


class SyntheticDataset(ImageDataset):
    """Synthetic scenes by index: image `index` depends on `seed`, `size_px` and `index` alone.

    Classes alternate: image `index` shows class `index % 10`.

    Args:
        num_images: Length of the source, at least 1.
        size_px: Side of the square images, at least 32.
        seed: An integer from 0 on.

    Raises:
        UserError: If an argument is out of its range.
    """

    def __init__(self, num_images: int, size_px: int, seed: int) -> None:
        _check_at_least(1, "num_images", num_images)
        _check_at_least(MIN_SIZE_PX, "size_px", size_px)
        _check_at_least(0, "seed", seed)
        self.num_images = num_images
        self.size_px = size_px
        self.seed = seed
        self.classes = SHAPES
        text = f"demo v{_VERSION}: {num_images} images, {size_px} px, seed {seed}"
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]

    def labels(self) -> NDArray[np.int64]:
        """Return the label of every image; draws none."""
        return np.arange(self.num_images) % len(SHAPES)

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, index: int) -> EncodedSample:
        if not 0 <= index < self.num_images:
            raise IndexError(f"there is no image {index} among {self.num_images}")
        label = index % len(SHAPES)
        pixels = draw_scene(np.random.default_rng((self.seed, index)), self.size_px, label)
        return EncodedSample.of_image(_encode_png(pixels), "png", label, f"demo image {index}")


def draw_scene(generator: Generator, size_px: int, label: int) -> NDArray[np.uint8]:
    """Draw one scene.

    Args:
        generator: Source of all randomness; in the same state it draws the same ground, light,
            colours and places for every label.
        size_px: Side of the picture, at least 32.
        label: Index into `SHAPES` of the main solid, which is completely in the frame.

    Returns:
        RGB pixels of shape (size_px, size_px, 3).

    Raises:
        UserError: If `size_px` or `label` is out of its range.
    """
    _check_at_least(MIN_SIZE_PX, "size_px", size_px)
    if not 0 <= label < len(SHAPES):
        raise UserError(f"label is {label}: it must lie in 0 to {len(SHAPES) - 1}")
    hue = generator.uniform(0, math.tau)
    light = cmath.rect(1, generator.uniform(-2.4, -0.7))  # from above, where people expect it
    grid = pixel_centres(size_px)
    canvas = _draw_ground(generator, hue, light, grid)
    for solid in reversed(arrange_solids(generator, label, hue)):
        paint_solid(canvas, grid, solid, light)
    return np.ascontiguousarray((canvas.clip(0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))


def arrange_solids(generator: Generator, label: int, hue: float) -> list[Solid]:
    """Draw the solids of a scene, front to back: the main one, then 1 to 4 smaller around it.

    Args:
        generator: Source of all randomness.
        label: Index into `SHAPES` of the main solid; the others have other shapes.
        hue: Hue of the ground, in radians; the main solid gets about its complement.
    """
    radius = generator.uniform(0.54, 0.74)
    reach = 1 - _MARGIN - radius
    centre = complex(*generator.uniform(-reach, reach, 2))
    main_hue = hue + math.pi + generator.uniform(-0.7, 0.7)
    solids = [_draw_solid(generator, label, centre, radius, main_hue)]

    num_others = 1 + int(generator.binomial(3, 0.25))
    steps = generator.permutation(len(SHAPES) - 1)[:num_others] + 1
    bearing = generator.uniform(0, math.tau)
    for step in steps.tolist():
        bearing += math.tau / num_others * generator.uniform(0.8, 1.2)
        other_radius = generator.uniform(0.3, 0.44)
        away = 0.85 * radius + other_radius * generator.uniform(0, 0.6)
        place = centre + cmath.rect(away, bearing)
        place = complex(min(max(place.real, -0.85), 0.85), min(max(place.imag, -0.85), 0.85))
        other_hue = hue + generator.uniform(0.9, 1.8) * _sign(generator)
        other_label = (label + step) % len(SHAPES)
        solids.append(_draw_solid(generator, other_label, place, other_radius, other_hue))
    return solids


def _draw_solid(
    generator: Generator, label: int, centre: complex, radius: float, hue: float
) -> Solid:
    lightness = generator.uniform(0.58, 0.74)
    second_lightness = lightness + 0.16 * _sign(generator)
    second_hue = hue + generator.uniform(-0.5, 0.5)
    return Solid(
        shape=SHAPES[label],
        centre=centre,
        radius=radius,
        turn=cmath.rect(1, generator.uniform(0, math.tau)),
        bevel=generator.uniform(0.4, 1),
        colours=(rgb(lightness, 0.15, hue), rgb(second_lightness, 0.11, second_hue)),
        pattern=draw_pattern(generator, period=generator.uniform(0.3, 0.5)),
    )


def _draw_ground(
    generator: Generator, hue: float, light: complex, grid: shapes.Points
) -> NDArray[np.float32]:
    lightness = 0.58 + 0.2 * _sign(generator) + generator.uniform(-0.05, 0.05)
    second_hue = hue + generator.uniform(-0.6, 0.6)
    colours = (rgb(lightness, 0.05, hue), rgb(lightness + 0.1, 0.07, second_hue))
    pattern = draw_pattern(generator, period=generator.uniform(0.35, 0.65))
    return paint_ground(grid, colours, pattern, light)


def _sign(generator: Generator) -> int:
    return 1 if generator.random() < 0.5 else -1


def _encode_png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _check_at_least(least: int, name: str, value: int) -> None:
    if value < least:
        raise UserError(f"{name} is {value}: it must be at least {least}")

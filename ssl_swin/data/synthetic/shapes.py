"""Signed distance functions of the ten demo shapes (L1, numpy only).

Points are complex numbers in the shape's own frame: the shape lies inside the unit circle and
touches it. Distances are in the same unit, negative inside. They are exact, except inside the
flower, where the outline may be further away.
"""

import cmath
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.complexfloating[Any, Any]]
Distances = NDArray[np.floating[Any]]

_HEART_RADIUS = 0.5 / (1.5 - math.sqrt(0.5))  # circumscribed, where notch and tip are 1 apart


def disc(z: Points) -> Distances:
    """The unit disc."""
    return abs(z) - 1


def ring(z: Points) -> Distances:
    """A ring whose hole has radius 0.44."""
    return abs(abs(z) - 0.72) - 0.28


def crescent(z: Points) -> Distances:
    """The unit disc less a disc of radius 0.8 around 0.5."""
    half = _upper_half(z)
    tip = cmath.rect(1, math.acos(0.61))  # where the two circles meet
    outline = np.minimum(_arc_distance(half, 0, tip), _arc_distance(half, 0.5, tip))
    return _signed(outline, (abs(z) < 1) & (abs(z - 0.5) > 0.8))


def triangle(z: Points) -> Distances:
    """An equilateral triangle with a corner at 1."""
    return _radial_polygon(z, corners=3, waist=0.5)


def square(z: Points) -> Distances:
    """A square with a corner at 1."""
    return _radial_polygon(z, corners=4, waist=math.sqrt(0.5))


def star(z: Points) -> Distances:
    """A five-pointed star with a point at 1."""
    return _radial_polygon(z, corners=5, waist=0.5)


def flower(z: Points) -> Distances:
    """Five round petals, one of them reaching 1, around a disc."""
    wedge = _fold(z, sectors=5)
    distance: Distances = np.minimum(abs(wedge - 0.66) - 0.34, abs(wedge) - 0.6)
    return distance


def heart(z: Points) -> Distances:
    """A square standing on its tip at -1, with a half disc on each of the two upper sides."""
    half = _upper_half(z + 1) * _HEART_RADIUS
    lobe, notch, shoulder = 0.75 + 0.25j, 1, 0.5 + 0.5j
    outline = np.minimum(
        _path_distance(half, 0, shoulder),
        _arc_distance(half, lobe, notch),
    )
    on_square = half.real + half.imag < 1
    in_lobe = abs(half - lobe) < abs(notch - lobe)
    inside = np.where(on_square, half.real > half.imag, in_lobe)
    return _signed(outline, inside) / _HEART_RADIUS


def cross(z: Points) -> Distances:
    """A plus with bars 0.56 wide and 1.92 long, along the axes."""
    x, y = abs(z.real), abs(z.imag)
    x, y = np.maximum(x, y), np.minimum(x, y)
    outline = _path_distance(x + 1j * y, 0.96, 0.96 + 0.28j, 0.28 + 0.28j)
    return _signed(outline, (x < 0.96) & (y < 0.28))


def arrow(z: Points) -> Distances:
    """An arrow with its tip at 1."""
    half = _upper_half(z)
    x, y = half.real, half.imag
    outline = _path_distance(half, 1, 0.05 + 0.78j, 0.05 + 0.3j, -0.95 + 0.3j, -0.95)
    in_head = y < (1 - x) * (0.78 / 0.95)
    in_shaft = (y < 0.3) & (x > -0.95)
    return _signed(outline, np.where(x > 0.05, in_head, in_shaft))


SHAPES: dict[str, Callable[[Points], Distances]] = {
    shape.__name__: shape
    for shape in (disc, square, triangle, star, ring, cross, heart, crescent, flower, arrow)
}


def _upper_half(z: Points) -> Points:
    """Mirrors the plane onto the side where the imaginary part is not negative."""
    return z.real + 1j * abs(z.imag)


def _fold(z: Points, sectors: int) -> Points:
    """Mirrors and turns the plane onto the wedge of angles [0, pi / sectors]."""
    sector = math.tau / sectors
    angle = abs((np.angle(z) + sector / 2) % sector - sector / 2)
    direction: Points = np.cos(angle) + 1j * np.sin(angle)
    return abs(z) * direction


def _radial_polygon(z: Points, corners: int, waist: float) -> Distances:
    """A star or regular polygon: corners on the unit circle, `waist` the radius halfway between."""
    wedge = _fold(z, corners)
    end = cmath.rect(waist, math.pi / corners)
    inside = ((wedge - 1) / (end - 1)).imag > 0
    return _signed(_path_distance(wedge, 1, end), inside)


def _path_distance(z: Points, *path: complex) -> Distances:
    """Unsigned distance to the straight segments from each point of `path` to the next."""
    nearest = np.full(z.shape, np.inf, np.float32)
    for start, end in pairwise(path):
        along = ((z - start) / (end - start)).real.clip(0, 1)
        np.minimum(nearest, abs(z - start - along * (end - start)), out=nearest)
    return nearest


def _arc_distance(z: Points, centre: complex, start: complex) -> Distances:
    """Unsigned distance to an arc that runs anticlockwise from `start` for half a turn at most.

    For points that are not nearer to its end than to the rest of the outline.
    """
    spoke = start - centre
    beside = ((z - centre) / spoke).imag > 0
    return np.where(beside, abs(abs(z - centre) - abs(spoke)), abs(z - start))


def _signed(outline: Distances, inside: NDArray[np.bool_]) -> Distances:
    return np.where(inside, -outline, outline)

"""Paints the surfaces of the demo scenes: colours, patterns, light and shadow (L1, numpy only).

Lengths are in picture units: a picture spans -1 to 1 along both axes of the complex plane, x to the
right and y downwards, so a scene looks the same at every size. Canvases are RGB, (3, H, W), float.
"""

import cmath
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ssl_swin.data.synthetic.shapes import SHAPES, Distances, Points

Floats = NDArray[np.floating[Any]]
Pattern = Callable[[Points], Floats]  # points to the share of the second colour, in [0, 1]

_LIGHT_HEIGHT = 0.75  # z of the unit vector towards the light
_AMBIENT, _DIFFUSE, _GLOSS = 0.5, 0.65, 0.4
_SHADOW, _SHADOW_BLUR = 0.5, 0.16
_ROUNDING = 0.06  # corner radius of a solid of radius 1

# OKLab to linear sRGB (Ottosson 2020, "A perceptual color space for image processing").
_LAB_TO_LMS = np.array(
    [
        [1, +0.3963377774, +0.2158037573],
        [1, -0.1055613458, -0.0638541728],
        [1, -0.0894841775, -1.2914855480],
    ]
)
_LMS_TO_RGB = np.array(
    [
        [+4.0767416621, -3.3077115913, +0.2309699292],
        [-1.2684380046, +2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, +1.7076147010],
    ]
)


class Solid(NamedTuple):
    """A rounded, patterned piece of some shape, lying on the ground."""

    shape: str
    centre: complex
    radius: float
    turn: complex  # unit number that takes picture axes to the solid's own
    bevel: float  # share of the way from the outline to the innermost point that slopes, in (0, 1]
    colours: tuple[Floats, Floats]
    pattern: Pattern

    def distance(self, grid: Points) -> Distances:
        """Signed distance of points of the picture to the outline, negative inside."""
        rounding = self.radius * _ROUNDING
        core = self.radius - rounding
        points = (grid - self.centre) * (self.turn / core)
        return SHAPES[self.shape](points) * core - rounding


def pixel_centres(size_px: int) -> Points:
    """Pixel centres of a picture, (size_px, size_px)."""
    axis = (np.arange(size_px, dtype=np.float32) + 0.5) * (2 / size_px) - 1
    return axis + 1j * axis[:, None]


def rgb(lightness: float, chroma: float, hue: float) -> Floats:
    """An sRGB colour, (3,) in [0, 1], of even perceived lightness over all hues (OKLCh).

    Args:
        lightness: Lightness from 0, black, to 1, white.
        chroma: Chroma from 0, grey, to about 0.2; what sRGB cannot show is clipped.
        hue: Hue in radians.
    """
    lab = np.array((lightness, chroma * math.cos(hue), chroma * math.sin(hue)))
    linear: Floats = (_LMS_TO_RGB @ (_LAB_TO_LMS @ lab) ** 3).clip(0, 1)
    srgb = np.where(linear < 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return srgb.astype(np.float32)


def draw_pattern(generator: Generator, period: float) -> Pattern:
    """Draw a kind of pattern, its angle and its phase; `period` is its length of repetition."""
    kind = _PATTERNS[generator.integers(len(_PATTERNS))]
    turn = cmath.rect(1 / period, generator.uniform(0, math.tau))
    phase = complex(*generator.uniform(0, 1, 2))
    return lambda points: kind(points * turn + phase)


def paint_ground(
    grid: Points, colours: tuple[Floats, Floats], pattern: Pattern, light: complex
) -> Floats:
    """A new canvas with the patterned ground, brighter towards the light."""
    glow = 0.9 + 0.24 * (grid * light.conjugate()).real
    return _mix(colours, pattern(grid)) * glow


def paint_solid(canvas: Floats, grid: Points, solid: Solid, light: complex) -> None:
    """Paint a solid and the shadow it casts over what is on `canvas`, in place.

    Args:
        canvas: The whole picture.
        grid: Pixel centres of the picture.
        solid: The solid to paint.
        light: Unit vector in the picture's plane, towards the light.
    """
    lift = 0.04 + 0.12 * solid.radius
    window = _window(len(grid), solid.centre, solid.radius + lift + _SHADOW_BLUR / 2)
    pixel = 2 / len(grid)
    canvas, grid = canvas[:, *window], grid[window]

    shadow = (0.5 - solid.distance(grid + light * lift) / _SHADOW_BLUR).clip(0, 1)
    canvas *= 1 - _SHADOW * shadow * shadow * (3 - 2 * shadow)

    distance = solid.distance(grid)
    diffuse, gloss = _shade(distance, pixel, solid.bevel, light)
    surface = _mix(solid.colours, solid.pattern((grid - solid.centre) * solid.turn))
    surface = surface * (_AMBIENT + _DIFFUSE * diffuse) + _GLOSS * gloss
    canvas += (surface - canvas) * (0.5 - distance / pixel).clip(0, 1)


def _window(size_px: int, centre: complex, reach: float) -> tuple[slice, slice]:
    """Rows and columns of the pixels within `reach` of `centre`."""

    def span(middle: float) -> slice:
        first, last = ((middle + side * reach + 1) * size_px / 2 for side in (-1, 1))
        return slice(max(math.floor(first), 0), min(math.ceil(last), size_px))

    return span(centre.imag), span(centre.real)


def _shade(
    distance: Distances, pixel: float, bevel: float, light: complex
) -> tuple[Floats, Floats]:
    """Diffuse and specular light on a quarter-round edge that levels out towards the middle."""
    lean = 1 + (distance / (-distance.min() * bevel)).clip(-1, 0)
    down, right = np.gradient(distance, pixel)
    planar = math.sqrt(1 - _LIGHT_HEIGHT**2)
    facing = lean * (right * (light.real * planar) + down * (light.imag * planar))
    level = np.sqrt(1 - lean * lean)
    diffuse = (facing + level * _LIGHT_HEIGHT).clip(0)
    halfway = (facing + level * (1 + _LIGHT_HEIGHT)) / math.sqrt(2 + 2 * _LIGHT_HEIGHT)  # Blinn
    return diffuse, halfway.clip(0) ** 40


def _mix(colours: tuple[Floats, Floats], share: Floats) -> Floats:
    """From the first colour where `share` is 0 to the second where it is 1, (3, H, W)."""
    first, second = (colour[:, None, None] for colour in colours)
    return first + (second - first) * share


def _sine(phase: Floats) -> Floats:
    """A sine between 0 and 1, its period 1."""
    sine: Floats = np.sin(math.tau * phase)
    return 0.5 + 0.5 * sine


def _gradient(z: Points) -> Floats:
    return (0.5 + 0.25 * z.real).clip(0, 1)


def _stripes(z: Points) -> Floats:
    return (0.5 + 5 * (abs(z.real % 1 - 0.5) - 0.25)).clip(0, 1)


def _waves(z: Points) -> Floats:
    return _sine(z.real + 0.4 * _sine(z.imag / 2))


def _checks(z: Points) -> Floats:
    return 0.5 + 2 * (_stripes(z) - 0.5) * (_stripes(1j * z) - 0.5)


def _dots(z: Points) -> Floats:
    return (1.5 - 5 * abs(z.real % 1 - 0.5 + 1j * (z.imag % 1 - 0.5))).clip(0, 1)


def _clouds(z: Points) -> Floats:
    across = _sine(0.5 * z.real + 0.6 * _sine(0.3 * z.imag))
    along = _sine(0.4 * z.imag + 0.6 * _sine(0.3 * z.real))
    return (across + along) / 2


_PATTERNS: tuple[Pattern, ...] = (_gradient, _stripes, _waves, _checks, _dots, _clouds)

"""Views whose colours stay as they are, for objectives that want some."""

from typing import Any

from ssl_swin.data.views import ColorViews

NO_COLORS: dict[str, Any] = {
    "color_jitter": None,
    "color_jitter_probability": 0.8,
    "grayscale_probability": None,
    "blur_radius_px": (0.1, 2.0),
    "blur_probability": None,
    "solarize_probability": None,
}


def plain_views() -> ColorViews:
    """Of any number of views, of images of any kind."""
    return ColorViews(**NO_COLORS)

"""What pixels are to be, and how image files are read to become it: the settings of `data`."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from ssl_swin.data.images.pixel_values import DTYPES, TooLarge
from ssl_swin.errors import UserError

AXES = ("first", "last")
MAX_IMAGE_PIXELS = 10**9
MAX_IMAGE_BYTES = 3 * 10**9  # that many pixels of 8-bit RGB


@dataclass(frozen=True)
class PixelFormat:
    """What a decoded image is, and what of its file is read.

    The settings of a run are those of the group `data` with the same names.

    Attributes:
        channels: Number of channels; None for as many as the file holds.
        dtype: uint8, uint16 or float32; None for the file's own if it is one of these, and else
            float32.
        bands: Channels of the file to read, counted from 0, in this order; None reads all.
        nodata: Stored values that mark pixels without data. NaN and infinity always do.
        fill: Stored value to put in the place of pixels without data, or one for each channel;
            None refuses images that have such pixels.
        channel_axis: "first" or "last", the axis of arrays of three axes that holds the channels;
            None finds it where only one can.
        exif_rotation: Whether to turn images as their EXIF orientation says.
        max_image_pixels: Largest height times width; a larger image is refused by its header.
        max_image_bytes: Largest number of bytes of the decoded image, in the type of the file.

    Raises:
        UserError: If a value is not allowed, or two contradict each other.
    """

    channels: int | None = None
    dtype: str | None = None
    bands: tuple[int, ...] | None = None
    nodata: tuple[float, ...] = ()
    fill: float | tuple[float, ...] | None = None
    channel_axis: str | None = None
    exif_rotation: bool = False
    max_image_pixels: int = MAX_IMAGE_PIXELS
    max_image_bytes: int = MAX_IMAGE_BYTES

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in DTYPES:
            raise UserError(f"data.dtype must be one of {', '.join(DTYPES)}; it is {self.dtype}")
        if self.channels is not None and self.channels < 1:
            raise UserError(f"data.channels must be at least 1; it is {self.channels}")
        if self.channel_axis not in (None, *AXES):
            raise UserError(
                f"data.channel_axis must be first, last or null; it is {self.channel_axis!r}"
            )
        for name in ("max_image_pixels", "max_image_bytes"):
            if getattr(self, name) < 1:
                raise UserError(f"data.{name} must be at least 1; it is {getattr(self, name)}")
        self._check_bands()
        self._check_fill()

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "PixelFormat":
        """Return the format that the group `data` of a configuration asks for.

        Args:
            settings: The group; what it lacks has its default, what else it holds is ignored.

        Raises:
            UserError: If a value is not allowed.
        """
        names = {field.name for field in fields(cls)} - {"bands", "nodata", "fill"}
        given = {name: settings[name] for name in names if name in settings}
        fill = settings.get("fill")
        return cls(
            **given,
            bands=_tuple_or_none(settings.get("bands")),
            nodata=_numbers(settings.get("nodata")),
            fill=fill if fill is None or isinstance(fill, int | float) else tuple(fill),
        )

    def check_size(self, shape: tuple[int, int, int], num_bytes: int) -> None:
        """Refuse an image that is larger than allowed.

        Args:
            shape: Number of channels, height and width.
            num_bytes: Number of bytes of the decoded image.

        Raises:
            TooLarge: If it is larger.
        """
        _, height_px, width_px = shape
        size = f"is {height_px} x {width_px} px (height x width)"
        if height_px * width_px > self.max_image_pixels:
            raise TooLarge(_too_large(size, "max_image_pixels", self.max_image_pixels))
        if num_bytes > self.max_image_bytes:
            size += f" of {shape[0]} channels, {num_bytes} bytes in memory"
            raise TooLarge(_too_large(size, "max_image_bytes", self.max_image_bytes))

    def _check_bands(self) -> None:
        if self.bands is None:
            return
        if not self.bands or not all(_is_index(band) for band in self.bands):
            raise UserError(
                "data.bands must be a list of whole numbers from 0, such as [0,1,2]; it is "
                f"{list(self.bands)}"
            )
        if self.channels is not None and len(self.bands) != self.channels:
            raise UserError(
                f"data.bands={list(self.bands)} chooses {len(self.bands)} bands, and data.channels "
                f"is {self.channels}: set data.channels={len(self.bands)}, with as many values in "
                "data.mean and data.std"
            )

    def _check_fill(self) -> None:
        if self.fill is None:
            if self.nodata:
                raise UserError(
                    f"data.nodata={_shown(self.nodata)} marks pixels without data; give the value "
                    "to put in their place, such as data.fill=0"
                )
            return
        values = (self.fill,) if isinstance(self.fill, int | float) else self.fill
        if not values or not all(_is_number(value) and math.isfinite(value) for value in values):
            raise UserError(
                "data.fill must be a finite number, or a list of one for each channel; it is "
                f"{_shown(values)}"
            )
        is_list = isinstance(self.fill, tuple)
        if is_list and self.channels is not None and len(values) != self.channels:
            raise UserError(
                f"data.fill must be one number or one for each channel: it has {len(values)}, and "
                f"data.channels is {self.channels}"
            )


def _too_large(size: str, setting: str, limit: int) -> str:
    option = "--" + setting.replace("_", "-")
    return (
        f"{size}; {setting} is {limit} (raise it by data.{setting}=N for a run, {option} N for "
        "ssl-swin pack, check and stats; or leave the image out)"
    )


def _tuple_or_none(values: Iterable[int] | None) -> tuple[int, ...] | None:
    if values is None:
        return None
    if isinstance(values, int) or not isinstance(values, Iterable) or isinstance(values, str):
        raise UserError(
            f"data.bands must be a list of whole numbers from 0, such as [0,1,2]; it is {values!r}"
        )
    return tuple(values)


def _numbers(values: float | Iterable[float] | None) -> tuple[float, ...]:
    if values is None:
        return ()
    listed = (values,) if isinstance(values, int | float | str) else tuple(values)
    if not all(_is_number(value) for value in listed):
        raise UserError(
            f"data.nodata must be a number, a list of numbers, or null; it is {_shown(listed)}"
        )
    return tuple(value for value in listed if math.isfinite(value))  # others always mark no data


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(values: Iterable[object]) -> str:
    listed = [f"{value:.9g}" if isinstance(value, float) else str(value) for value in values]
    return listed[0] if len(listed) == 1 else f"[{','.join(listed)}]"

"""What must be set, or might be, for the images of a set: judged by a few of them."""

from collections import Counter

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.images.axes import AmbiguousAxes
from ssl_swin.data.images.decode import (
    AS_STORED,
    ImageInfo,
    named_nodata,
    orientation_of,
    probe_image,
)
from ssl_swin.data.images.orientation import UPRIGHT
from ssl_swin.data.images.pixel_format import PixelFormat

NUM_LOOKED_AT = 16


def advice_on_pixels(
    source: ImageDataset, *, num_images: int = NUM_LOOKED_AT, pixels: PixelFormat = AS_STORED
) -> list[str]:
    """Return what should be known of images other than 8-bit colour, judging by the first ones.

    Args:
        source: The data set.
        num_images: Number of images to look at.
        pixels: Says where arrays have their channels, and how large an image may be.

    Returns:
        One line for each thing to set; none for upright 8-bit colour.
    """
    encoded = [source[index] for index in range(min(num_images, len(source)))]
    kinds: Counter[tuple[int, str]] = Counter()
    lines: list[str] = []
    for sample in encoded:
        try:
            info: ImageInfo = probe_image(sample.data, pixels)
        except AmbiguousAxes as error:
            lines[:] = [f"where the channels are cannot be told: {sample.name} {error}"]
        except ValueError:
            continue
        else:
            kinds[info.channels, info.dtype] += 1
    if kinds and (kind := kinds.most_common(1)[0][0]) != (3, "uint8"):
        channels, dtype = kind
        lines.append(
            f"images of {channels} channel{'s' * (channels > 1)}, {dtype}: data.channels, "
            "data.dtype, data.mean and data.std must say so"
        )
    num_turned = sum(orientation_of(sample.data) != UPRIGHT for sample in encoded)
    if num_turned:
        lines.append(
            f"{num_turned} of {len(encoded)} images looked at have an EXIF orientation, which has "
            "no effect unless you set data.exif_rotation=true"
        )
    nodata = Counter(filter(None, (named_nodata(sample.data) for sample in encoded)))
    if nodata:
        [(value, number)] = nodata.most_common(1)
        lines.append(
            f"{number} of {len(encoded)} images looked at say that {value} marks pixels without "
            f"data: set data.nodata={value} and, to stand in their place, data.fill"
        )
    return lines

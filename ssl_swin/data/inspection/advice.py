"""What must be set, or might be, for the images of a set: judged by a few of them."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.images.axes import AmbiguousAxes
from ssl_swin.data.images.decode import (
    AS_STORED,
    ImageInfo,
    decode_marked,
    named_nodata,
    orientation_of,
    probe_image,
)
from ssl_swin.data.images.missing import USUAL_NODATA
from ssl_swin.data.images.orientation import UPRIGHT
from ssl_swin.data.images.pixel_format import PixelFormat

NUM_LOOKED_AT = 16


class Advice(NamedTuple):
    """What should be known of the images of a set."""

    notes: list[str]  # one for each thing to set; none for upright images in which all is told
    kind: tuple[int, str] | None  # channels and type of most images; None if none can be read


def advice_on_pixels(
    source: ImageDataset, *, num_images: int = NUM_LOOKED_AT, pixels: PixelFormat = AS_STORED
) -> "Advice":
    """Return what should be known of the images of a set, judging by the first ones.

    Args:
        source: The data set.
        num_images: Number of images to look at.
        pixels: Says where arrays have their channels, and how large an image may be.

    Returns:
        What most of the images are, and what else to set.
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
    num_turned = sum(orientation_of(sample.data) != UPRIGHT for sample in encoded)
    if num_turned:
        lines.append(
            f"{num_turned} of {len(encoded)} images looked at have an EXIF orientation, which has "
            "no effect unless you set data.exif_rotation=true"
        )
    lines += _on_nodata(encoded, pixels)
    return Advice(lines, kinds.most_common(1)[0][0] if kinds else None)


def _on_nodata(encoded: Sequence[EncodedSample], pixels: PixelFormat) -> list[str]:
    """Return a note on the value that marks pixels without data: one that is named, or usual."""
    named = Counter(filter(None, (named_nodata(sample.data) for sample in encoded)))
    usual = Counter(filter(None, (_usual_nodata(sample, pixels) for sample in encoded)))
    for counted, says in ((named, "say that {} marks"), (usual, "hold {}, which often marks")):
        if counted:
            [(value, number)] = counted.most_common(1)
            return [
                f"{number} of {len(encoded)} images looked at {says.format(value)} pixels without "
                f"data: set data.nodata={value} and, to stand in their place, data.fill"
            ]
    return []


def _usual_nodata(sample: EncodedSample, pixels: PixelFormat) -> str:
    """Return the lowest value of an image that has negative ones if it is a usual mark."""
    try:
        if probe_image(sample.data, pixels).dtype in ("uint8", "uint16"):
            return ""
        lowest = float(decode_marked(sample.data, pixels, name=sample.name).values.min())
    except ValueError:
        return ""
    return f"{lowest:.9g}" if lowest in USUAL_NODATA else ""

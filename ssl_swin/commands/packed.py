"""What `ssl-swin pack` says of the shards that it wrote."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_swin.plurals import counted

if TYPE_CHECKING:
    from ssl_swin.data.images.pixel_format import PixelFormat
    from ssl_swin.data.packing.pack import PackReport
    from ssl_swin.data.sources.opening import OpenedData


def lines_on_packing(report: "PackReport", opened: "OpenedData", out: Path) -> Iterator[str]:
    """Yield lines on the splits, the classes, and what was left out.

    Args:
        report: What was packed.
        opened: What it was packed from.
        out: Folder of the shards.
    """
    from ssl_swin.data.packing.plan import SKIPPED_NAME

    index = report.index
    for split, shards in index.splits.items():
        num_images = index.num_samples(split)
        origin = "" if split in opened.splits else ", held out of train"
        yield f"{split}: {counted(num_images, 'image')} in {counted(len(shards), 'shard')}{origin}"
    yield opened.classes_line()
    if report.skipped:
        number = counted(len(report.skipped), "unreadable image")
        yield f"left out: {number}, listed in {out / SKIPPED_NAME}"
    elif opened.left_out:
        yield f"what is left out is listed in {out / SKIPPED_NAME}"


def advise_on_pixels(report: "PackReport", out: Path, pixels: "PixelFormat") -> bool:
    """Print what must be set for images that are not upright 8-bit colour.

    Args:
        report: What was packed.
        out: Folder of the shards.
        pixels: How the images were read.

    Returns:
        Whether they can be read as 8-bit colour nevertheless.
    """
    from ssl_swin.data.images.decode import decode_image
    from ssl_swin.data.images.pixel_format import PixelFormat
    from ssl_swin.data.inspection.advice import advice_on_pixels
    from ssl_swin.data.shards.dataset import ShardDataset
    from ssl_swin.launch.command_line import words_of_ssl_swin
    from ssl_swin.quoting import as_argument, shell_line

    source = ShardDataset(report.index, "train")
    notes, kind = advice_on_pixels(source, pixels=pixels)
    if report.num_not_finite:
        notes.append(
            f"{report.num_not_finite} of {counted(report.num_packed, 'image')} hold values that "
            "are not finite: set data.fill to what is to stand in their place, such as data.fill=0"
        )
    for note in notes:
        print(f"note: {note}")
    if kind in (None, (3, "uint8")):
        return True
    channels, dtype = kind
    words = [*words_of_ssl_swin(), "stats", as_argument(out)]
    print(
        f"images of {counted(channels, 'channel')}, {dtype}: data.channels, data.dtype, "
        f"data.mean and data.std must say so; see: {shell_line(words)}"
    )
    try:
        decode_image(source[0].data, PixelFormat(3, "uint8"), name=source[0].name)
    except ValueError:
        return False
    return True

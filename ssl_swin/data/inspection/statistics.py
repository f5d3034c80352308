"""What the images of a set are: formats, sizes, and statistics of their pixel values."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.images.axes import AmbiguousAxes
from ssl_swin.data.images.decode import (
    AS_STORED,
    decode_marked,
    named_nodata,
    orientation_of,
    probe_image,
)
from ssl_swin.data.images.orientation import UPRIGHT
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.inspection.annotation_counts import AnnotationCounts
from ssl_swin.data.inspection.running_statistics import (
    PerChannel,
    RunningStatistics,
    image_statistics,
    merge,
)
from ssl_swin.data.parallel import ordered_map
from ssl_swin.data.rng import keyed_permutation
from ssl_swin.display.work import Work
from ssl_swin.errors import UserError

NUM_PROBED = 2000  # images that decide as what the set is read
RELEVANT_RATIO = 0.05  # a kind that fewer images have does not change as what the set is read
CHUNK = 32  # images that a process measures at a time


class ImageKind(NamedTuple):
    """The format that an image is stored in, or a set is to be read in."""

    channels: int
    dtype: str


@dataclass(frozen=True)
class SetStatistics:
    """Measured over the images that could be read."""

    kind: ImageKind  # as what they were read; what to choose for training
    kinds: Counter[ImageKind]  # as what they are stored, with numbers of images
    heights_px: NDArray[np.int64]
    widths_px: NDArray[np.int64]
    labels: NDArray[np.int64]  # of the labelled ones
    running: RunningStatistics  # of the values that are data
    unreadable: list[str]  # a sentence each
    num_turned: int = 0  # images with an EXIF orientation other than upright
    num_with_missing: int = 0  # images with values that are no data
    named_nodata: Counter[str] = field(default_factory=Counter)  # that images name, by GDAL's tag
    annotations: AnnotationCounts = field(default_factory=AnnotationCounts)  # of masks and boxes

    @property
    def missing_ratio(self) -> float:
        """Share of the values that are no data."""
        num_values = self.heights_px @ self.widths_px * len(self.running.num_pixels)
        return float(1 - self.running.num_pixels.sum() / num_values)

    @property
    def neutral_fill(self) -> list[float]:
        """The mean per channel as files store it; a single 0 where they store unlike kinds."""
        if len(self.kinds) > 1:
            return [0]
        [stored] = self.kinds
        means = self.running.mean.tolist()
        if stored.dtype.startswith("float"):
            return [float(f"{mean:.4g}") for mean in means]
        return [round(mean) for mean in means]

    @property
    def num_images(self) -> int:
        """How many were measured."""
        return len(self.heights_px)

    @property
    def num_with_fewer_channels(self) -> int:
        """How many have fewer channels than they are read with, as gray ones among RGB."""
        return sum(n for kind, n in self.kinds.items() if kind.channels < self.kind.channels)

    @property
    def mean(self) -> PerChannel:
        """Per channel, in the units of `pixels.normalize`."""
        return self.running.mean / _full_scale(self.kind.dtype)

    @property
    def std(self) -> PerChannel:
        """Per channel, in the units of `pixels.normalize`."""
        return self.running.std / _full_scale(self.kind.dtype)


def _full_scale(dtype: str) -> int:
    return 1 if dtype == "float32" else int(np.iinfo(dtype).max)


class _Measured(NamedTuple):
    """A few images."""

    kinds: list[ImageKind]
    sizes_px: list[tuple[int, int]]
    labels: list[int]
    running: list[RunningStatistics]  # of all together; none if none could be read
    unreadable: list[str]
    num_turned: list[int]  # 1 for each
    num_with_missing: list[int]  # 1 for each
    named_nodata: list[str]
    annotations: AnnotationCounts


def measure_set(
    source: ImageDataset,
    *,
    num_images: int,
    seed: int,
    num_workers: int,
    progress: bool = True,
    pixels: PixelFormat = AS_STORED,
    as_colours: bool = False,
) -> SetStatistics:
    """Measure a random part of a set.

    Mean and deviation are those of all pixels together, so that large images count for more.
    Values that are no data (not finite, or `pixels.nodata`) do not count.

    Args:
        source: The data set.
        num_images: Number of images to open; 0 opens all.
        seed: Seed of the choice.
        num_workers: Number of processes; 0 is this one. The result does not depend on it.
        progress: Whether to show how far it is.
        pixels: How images are read. Their channels and type are found where it leaves them open.
        as_colours: Whether masks are of colours, as in `decode_mask`.

    Raises:
        UserError: If no image can be read, or a channel holds no data at all.
    """
    chosen = keyed_permutation(len(source), seed, "statistics")[: num_images or None]
    kind = _kind_to_read(source, chosen[:NUM_PROBED], pixels)
    pixels = replace(pixels, channels=kind.channels, dtype=kind.dtype)
    jobs = [chosen[start : start + CHUNK] for start in range(0, len(chosen), CHUNK)]
    results = ordered_map(
        partial(_measure, source, pixels, as_colours), jobs, num_workers=num_workers
    )
    parts = []
    with Work("measuring", len(chosen), show=progress) as work:
        for job, part in zip(jobs, results, strict=True):
            parts.append(part)
            work.advance(len(job))
    return _joined(kind, parts)


def choose_kind(kinds: Counter[ImageKind]) -> ImageKind:
    """Choose the format to read a set in so that `decode_image` can, and the least is lost.

    Args:
        kinds: Formats that images are stored in, with their numbers; rare ones are ignored.
    """
    common = [kind for kind, n in kinds.items() if n >= RELEVANT_RATIO * kinds.total()]
    common = common or [kinds.most_common(1)[0][0]]
    return ImageKind(_channels_for(common), _dtype_for(common))


def _channels_for(common: Sequence[ImageKind]) -> int:
    stored = [kind.channels for kind in common]
    candidates = {*stored, 3} if 4 in stored else set(stored)
    fitting = [n for n in candidates if all(_can_become(channels, n) for channels in stored)]
    return max(fitting, default=stored[0])


def _can_become(stored: int, channels: int) -> bool:
    """Gray and RGB become each other, with or without alpha; nothing else is converted."""
    return stored == channels or (stored <= 4 and channels in (1, 3))


def _dtype_for(common: Sequence[ImageKind]) -> str:
    stored = {kind.dtype for kind in common}
    if stored == {"uint8"}:
        return "uint8"
    return "uint16" if stored <= {"uint8", "uint16"} else "float32"


def _kind_to_read(
    source: ImageDataset, chosen: NDArray[np.int64], pixels: PixelFormat
) -> ImageKind:
    kinds: Counter[ImageKind] = Counter()
    problem: Exception | None = None
    for index in chosen.tolist():
        try:
            encoded = source[index]
            info = probe_image(encoded.data, pixels)
        except AmbiguousAxes as error:
            problem = UserError(f"the image {encoded.name} {error}")
        except (ValueError, OSError) as error:
            problem = error
        else:
            kinds[ImageKind(info.channels, info.dtype)] += 1
    if not kinds:
        raise UserError(f"none of {len(chosen)} images can be read; the last one: {problem}")
    channels, dtype = choose_kind(kinds)
    if pixels.bands is not None:
        channels = len(pixels.bands)
    return ImageKind(pixels.channels or channels, pixels.dtype or dtype)


def _measure(
    source: ImageDataset, pixels: PixelFormat, as_colours: bool, indices: NDArray[np.int64]
) -> _Measured:
    measured = _Measured([], [], [], [], [], [], [], [], AnnotationCounts())
    for index in indices.tolist():
        try:
            record = source[index]
            values, missing = decode_marked(record.data, pixels, name=record.name)
            info = probe_image(record.data, pixels)
        except (ValueError, OSError) as error:
            measured.unreadable.append(str(error))
            continue
        measured.kinds.append(ImageKind(info.channels, info.dtype))
        size_px = values.shape[-2], values.shape[-1]
        measured.sizes_px.append(size_px)
        measured.annotations.count(record, size_px, as_colours=as_colours)
        measured.labels.extend([] if record.label is None else [record.label])
        of_image = image_statistics(values, missing)
        measured.running[:] = [reduce(merge, [*measured.running, of_image])]
        measured.num_turned.append(orientation_of(record.data) != UPRIGHT)
        measured.num_with_missing.append(missing is not None)
        measured.named_nodata.extend(filter(None, [named_nodata(record.data)]))
    return measured


def _joined(kind: ImageKind, parts: Sequence[_Measured]) -> SetStatistics:
    running = [running for part in parts for running in part.running]
    unreadable = [sentence for part in parts for sentence in part.unreadable]
    if not running:
        raise UserError(f"none of {len(unreadable)} images can be read; {unreadable[-1]}")
    sizes_px = np.array([size for part in parts for size in part.sizes_px], dtype=np.int64)
    annotations = AnnotationCounts()
    for part in parts:
        annotations.add(part.annotations)
    return SetStatistics(
        kind,
        Counter(stored for part in parts for stored in part.kinds),
        sizes_px[:, 0],
        sizes_px[:, 1],
        np.array([label for part in parts for label in part.labels], dtype=np.int64),
        _with_data(reduce(merge, running)),
        unreadable,
        sum(sum(part.num_turned) for part in parts),
        sum(sum(part.num_with_missing) for part in parts),
        Counter(name for part in parts for name in part.named_nodata),
        annotations,
    )


def _with_data(running: RunningStatistics) -> RunningStatistics:
    empty = np.flatnonzero(running.num_pixels == 0).tolist()
    if empty:
        raise UserError(
            f"channel {', '.join(map(str, empty))} of the images holds no data: every value is not "
            "finite or marked; leave it out by choosing others, --bands"
        )
    return running

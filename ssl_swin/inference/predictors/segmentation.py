"""A segmenter as a predictor: a mask of each image, and how many pixels are of which class."""

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import MASK, EncodedSample
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.mask_classes import MaskClasses
from ssl_swin.data.segment_samples import read_classes
from ssl_swin.data.whole_samples import WholeSample, WholeTransform
from ssl_swin.files import atomic_path
from ssl_swin.inference.file_names import FileNames
from ssl_swin.inference.parts import Parts
from ssl_swin.inference.predictors.base import Options
from ssl_swin.inference.predictors.whole_images import (
    JUDGED,
    TRUTH,
    Picture,
    WholeImagePredictor,
    write_table,
)
from ssl_swin.inference.vector_files import in_utf8
from ssl_swin.plurals import counted
from ssl_swin.reporting.drawing import class_colours, colour_codes
from ssl_swin.reporting.overlay import class_overlay
from ssl_swin.tasks.pixel_metrics import MeanIoU
from ssl_swin.weights.segmenter import LoadedSegmenter, load_segmenter

MASKS = "masks"
MOST_IN_8_BITS = 255  # classes; 255 itself mostly stands for none


class SegmentPredictor(WholeImagePredictor[Tensor]):
    """Answers are classes int64 (H, W), as `LoadedSegmenter.segment` has them."""

    title = "a segmenter"

    def __init__(self, segmenter: LoadedSegmenter) -> None:
        """Wrap a segmenter.

        Args:
            segmenter: With its classes, its normalisation and its way of looking at images.
        """
        super().__init__()
        self.segmenter = segmenter
        self.model = segmenter.model
        self.encoder = segmenter.model.encoder
        self.classes = segmenter.classes
        self.mean, self.std = segmenter.mean, segmenter.std

    @classmethod
    def load(cls, folder: Path) -> "SegmentPredictor":
        """See `Predictor.load`."""
        return cls(load_segmenter(folder))

    def facts(self, options: Options) -> dict[str, object]:
        """See `Predictor.facts`."""
        return {
            "inference": str(self.segmenter.inference),
            "values of masks": str(self.segmenter.masks),
            "overlays": options.overlays,
            "classes": [*self.classes],
            "normalisation": [[*self.mean], [*self.std]],
        }

    def transform(self, pixels: PixelFormat, classes: Sequence[str]) -> WholeTransform:
        """See `WholeImagePredictor.transform`; what values of masks stand for is known."""
        read = partial(_read, masks=self.segmenter.masks, num_classes=len(self.classes))
        return WholeTransform(pixels, MASK, read)

    def look(self, pixels: Tensor) -> Tensor:
        """See `WholeImagePredictor.look`."""
        return self.segmenter.segment(pixels)

    def values(self, answer: Tensor, whole: WholeSample) -> dict[str, Tensor]:
        """See `WholeImagePredictor.values`: pixels of each class, and what mIoU counts."""
        number = len(self.classes)
        counts = MeanIoU(number)
        if whole.truth is not None:
            counts.update(answer.cpu(), whole.truth)
        pixels = torch.bincount(answer.flatten(), minlength=number).cpu()
        found = {
            "pixels": pixels,
            "true": counts.true,
            "told": counts.predicted,
            "both": counts.both,
        }
        return {name: each[None] for name, each in found.items()}

    def save(self, answer: Tensor, folder: Path, name: str) -> None:
        """See `WholeImagePredictor.save`: a palette of the classes' colours, or 16 bits."""
        with atomic_path(folder / MASKS / f"{name}.png") as temporary:
            mask_image(answer.cpu().numpy(), len(self.classes)).save(temporary, format="png")

    def again(self, parts: Parts, rows: Collection[int]) -> Iterator[tuple[int, str, Tensor]]:
        """See `WholeImagePredictor.again`."""
        for row, (name, file) in enumerate(_files(parts)):
            if row in rows:
                with Image.open(parts.draft / MASKS / f"{file}.png") as image:
                    yield row, name, torch.from_numpy(np.array(image).astype(np.int64))

    def over(self, answer: Tensor, picture: Picture) -> Picture:
        """See `WholeImagePredictor.over`."""
        return class_overlay(picture, answer.cpu().numpy(), len(self.classes))

    def words(self, answer: Tensor) -> str:
        """See `WholeImagePredictor.words`: the largest class and its share."""
        counts = torch.bincount(answer.flatten(), minlength=len(self.classes))
        largest = int(counts.argmax())
        return f"{100 * int(counts[largest]) / answer.numel():.0f} % {self.classes[largest]}"

    def save_tables(self, parts: Parts, dataset: ImageDataset) -> list[str]:
        """See `WholeImagePredictor.save_tables`."""
        names = [in_utf8(name) for name in self.classes]
        write_table(parts.draft / "images.csv", ["name", "mask", *names], _image_rows(parts))
        found = _Totals.of(parts, len(names))
        rows = self._class_rows(found)
        header = ["label", "class", "colour", "pixels"]
        judged = ["true_pixels", "accuracy_percent", "iou_percent"] if found.num_judged else []
        width = len(header) + len(judged)
        write_table(parts.draft / "classes.csv", header + judged, (row[:width] for row in rows))
        return [*found.told(), *self.told_of_unreadable(parts, "masks")]

    def _class_rows(self, found: "_Totals") -> list[list[object]]:
        colours = colour_codes(len(self.classes))
        return [
            [
                label,
                in_utf8(name),
                colours[label],
                int(found.pixels[label]),
                int(found.counts.true[label]),
                _percent(found.accuracies[label]),
                _percent(found.ious[label]),
            ]
            for label, name in enumerate(self.classes)
        ]


PREDICTOR = SegmentPredictor


class _Totals(NamedTuple):
    """Pixels of all images, by class."""

    pixels: Tensor  # told to be of each, int64 (classes,)
    counts: MeanIoU  # of those whose class is known
    num_judged: int  # images with a mask

    @classmethod
    def of(cls, parts: Parts, num_classes: int) -> "_Totals":
        """Add up the images of whole parts."""
        counts = MeanIoU(num_classes)
        pixels, num_judged = torch.zeros(num_classes, dtype=torch.int64), 0
        for part in parts:
            if part.names:
                pixels += part.values["pixels"].sum(dim=0)
                counts.true += part.values["true"].sum(dim=0)
                counts.predicted += part.values["told"].sum(dim=0)
                counts.both += part.values["both"].sum(dim=0)
                num_judged += int((part.values[TRUTH] == JUDGED).sum())
        return cls(pixels, counts, num_judged)

    @property
    def ious(self) -> Tensor:
        return self.counts.of_classes()

    @property
    def accuracies(self) -> Tensor:
        return self.counts.both.double() / self.counts.true.double()

    def told(self) -> list[str]:
        """Return a line on how well pixels are told, where it is known."""
        if not self.counts.true.any():
            return []
        miou = 100 * self.ious.nanmean().item()
        right = 100 * int(self.counts.both.sum()) / int(self.counts.true.sum())
        return [
            f"mIoU {miou:.2f} %, {right:.2f} % of pixels right, of "
            f"{counted(self.num_judged, 'image')} with a mask"
        ]


def mask_image(classes: NDArray[np.integer], num_classes: int) -> Image.Image:
    """Return classes as an image whose values they are.

    Args:
        classes: (H, W), all in [0, num_classes).
        num_classes: Up to 255, the image has a palette of the classes' colours; of more, 16 bits.
    """
    if num_classes > MOST_IN_8_BITS:
        return Image.fromarray(classes.astype(np.uint16))
    image = Image.fromarray(classes.astype(np.uint8))
    image.putpalette([level for colour in class_colours(num_classes) for level in colour])
    return image


def _read(
    encoded: EncodedSample, pixels: PixelFormat, *, masks: MaskClasses, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Decode an image, and the class of each pixel."""
    sample = read_classes(encoded, pixels, masks, num_classes)
    assert sample.mask is not None
    return sample.pixels, sample.mask


def _files(parts: Parts) -> Iterator[tuple[str, str]]:
    """Yield the name of each image, and that of its files without an ending."""
    files = FileNames()
    for part in parts.without_values():
        for name in part.names:
            yield name, files.add(name)


def _image_rows(parts: Parts) -> Iterator[list[object]]:
    files = _files(parts)
    for part in parts:
        for row in range(len(part.names)):
            name, file = next(files)
            counts = part.values["pixels"][row].tolist()
            yield [in_utf8(name), in_utf8(f"{MASKS}/{file}.png"), *counts]


def _percent(share: Tensor) -> str:
    return "" if share.isnan() else f"{100 * share.item():.2f}"

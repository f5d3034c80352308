"""A detector as a predictor: the objects in each image as COCO has them, and their precision."""

import importlib.util
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ssl_swin.data.box_lists import BOXES
from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.decoding import decode_sample
from ssl_swin.data.detect_samples import DetectSample, detect_example
from ssl_swin.data.encoded import IMAGE, EncodedSample
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.whole_samples import WholeSample, WholeTransform
from ssl_swin.errors import UserError
from ssl_swin.files import atomic_path
from ssl_swin.inference.coco_ids import CocoIds, coco_ids
from ssl_swin.inference.object_records import (
    Judged,
    detections_of,
    record_of,
    records,
    write_results,
)
from ssl_swin.inference.parts import Parts
from ssl_swin.inference.predictors.base import Options
from ssl_swin.inference.predictors.whole_images import (
    Picture,
    WholeImagePredictor,
    write_table,
)
from ssl_swin.inference.vector_files import in_utf8
from ssl_swin.reporting.drawing import colour_codes
from ssl_swin.reporting.objects import draw_objects
from ssl_swin.tasks.detection_figure import LEAST_SCORE, surest
from ssl_swin.tasks.detections import Detections
from ssl_swin.weights.detector import LoadedDetector, load_detector

RESULTS = "detections.json"
MOST_WORDS = 2  # classes that are named under an image


class DetectPredictor(WholeImagePredictor[Detections]):
    """Answers are detections in px of the stored image, as `LoadedDetector.detect` has them."""

    title = "a detector"
    looks_at_boxes = True

    def __init__(self, detector: LoadedDetector) -> None:
        """Wrap a detector.

        Args:
            detector: With its classes, its normalisation and its way of looking at images.
        """
        super().__init__()
        self.detector = detector
        self.model = detector.model
        self.encoder = detector.model.encoder
        self.classes = detector.classes
        self.mean, self.std = detector.mean, detector.std
        self.with_masks = detector.model.rcnn.heads.mask_heads is not None

    @classmethod
    def load(cls, folder: Path) -> "DetectPredictor":
        """See `Predictor.load`."""
        return cls(load_detector(folder))

    def facts(self, options: Options) -> dict[str, object]:
        """See `Predictor.facts`."""
        return {
            "inference": str(self.detector.inference),
            "overlays": options.overlays,
            "classes": [*self.classes],
            "normalisation": [[*self.mean], [*self.std]],
        }

    def check_out(self, out: Path) -> None:
        """See `Predictor.check_out`."""
        super().check_out(out)
        if importlib.util.find_spec("faster_coco_eval") is None:
            raise UserError(
                "masks are encoded and precision is counted by faster-coco-eval, which is not "
                "installed: pip install 'ssl_swin[detection]'"
            )

    def transform(self, pixels: PixelFormat, classes: Sequence[str]) -> WholeTransform:
        """See `WholeImagePredictor.transform`; classes are matched by their names."""
        own = {name: label for label, name in enumerate(self.classes)}
        labels = tuple(own.get(name, -1) for name in classes or self.classes)
        read = partial(_read, with_masks=self.with_masks, labels=labels)
        return WholeTransform(pixels, BOXES, read)

    def look(self, pixels: Tensor) -> Detections:
        """See `WholeImagePredictor.look`."""
        return self.detector.detect(pixels)

    def values(self, answer: Detections, whole: WholeSample) -> dict[str, Tensor]:
        """See `WholeImagePredictor.values`: JSON of what is detected and of the truth."""
        return record_of(answer, whole, with_masks=self.with_masks)

    def save(self, answer: Detections, folder: Path, name: str) -> None:
        """See `WholeImagePredictor.save`: all objects lie in one file."""

    def again(self, parts: Parts, rows: Collection[int]) -> Iterator[tuple[int, str, Detections]]:
        """See `WholeImagePredictor.again`."""
        for row, (name, record) in enumerate(records(parts)):
            if row in rows:
                yield row, name, detections_of(record)

    def over(self, answer: Detections, picture: Picture) -> Picture:
        """See `WholeImagePredictor.over`; objects with a score from 0.3 on."""
        objects = surest(answer.to("cpu"))
        drawn: Picture = draw_objects(picture[None], [objects], self.classes)[0]
        return drawn

    def words(self, answer: Detections) -> str:
        """See `WholeImagePredictor.words`: how many objects of the most frequent classes."""
        labels = answer.labels[answer.scores >= LEAST_SCORE].tolist()
        common = Counter(labels).most_common(MOST_WORDS)
        return ", ".join(f"{number} {self.classes[label]}" for label, number in common) or "nothing"

    def save_tables(self, parts: Parts, dataset: ImageDataset) -> list[str]:
        """See `WholeImagePredictor.save_tables`."""
        ids = coco_ids(dataset, self.classes)
        with atomic_path(parts.draft / RESULTS) as temporary:
            write_results(temporary, parts, ids)
        rows = (
            [in_utf8(name), ids.image(name, row), len(record["found"]["label"])]
            for row, (name, record) in enumerate(records(parts))
        )
        write_table(parts.draft / "images.csv", ["name", "image_id", "objects"], rows)
        judged = Judged.of(parts, len(self.classes), with_masks=self.with_masks)
        header, table = self._class_rows(parts, ids, judged)
        write_table(parts.draft / "classes.csv", header, table)
        notes = [f"note: {ids.note}"] if ids.note else []
        return [*judged.told(), *self.told_of_unreadable(parts, "boxes"), *notes]

    def _class_rows(
        self, parts: Parts, ids: CocoIds, judged: "Judged"
    ) -> tuple[list[str], list[list[object]]]:
        found = Counter(label for _, record in records(parts) for label in record["found"]["label"])
        header = ["label", "category_id", "class", "colour", "objects"]
        columns: list[list[object]] = []
        if judged.num_objects:
            header += ["true_objects", "ap_percent"]
            columns += [[*judged.evaluation.num_objects()], judged.precisions()]
            if judged.evaluation.with_masks:
                header.append("mask_ap_percent")
                columns.append(judged.precisions(of_masks=True))
        colours = colour_codes(len(self.classes))
        rows = [
            [
                label,
                ids.categories[label],
                in_utf8(name),
                colours[label],
                found[label],
                *(column[label] for column in columns),
            ]
            for label, name in enumerate(self.classes)
        ]
        return header, rows


PREDICTOR = DetectPredictor


def _read(
    encoded: EncodedSample, pixels: PixelFormat, *, with_masks: bool, labels: tuple[int, ...]
) -> tuple[Tensor, DetectSample]:
    """Decode an image and the objects in it.

    Args:
        encoded: The sample.
        pixels: What a decoded image is.
        with_masks: Whether masks are wanted, where there are any.
        labels: The detector's label by that of the data; -1 for a class that it does not know,
            whose objects are left out.

    Raises:
        UserError: If they cannot be decoded, or a label is none of the data's.
    """
    sample = decode_sample(encoded, pixels, members=(IMAGE, BOXES), box_masks=with_masks)
    assert sample.boxes is not None
    has_masks = sample.box_masks is not None or not len(sample.boxes)
    example = detect_example(sample, with_masks=with_masks and has_masks)
    if len(example.labels) and example.labels.max() >= len(labels):
        raise UserError(
            f"the boxes of {encoded.name} have the label {int(example.labels.max())}, and there "
            f"are {len(labels)} classes, from 0"
        )
    own = torch.tensor(labels)[example.labels]
    known = own >= 0
    kept = example._replace(
        boxes=example.boxes[known],
        labels=own[known],
        masks=None if example.masks is None else example.masks[known],
        crowd=example.crowd[known],
        areas=example.areas[known],
    )
    return sample.pixels, kept

"""What is kept of the objects in each image until all are done: COCO's lists, as JSON."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl_swin.data.rle import decode_rle
from ssl_swin.data.whole_samples import WholeSample
from ssl_swin.inference.coco_ids import CocoIds
from ssl_swin.inference.parts import Parts
from ssl_swin.plurals import counted
from ssl_swin.tasks.box_metrics import (
    OF_MASKS,
    CocoEvaluation,
    Plain,
    Truth,
    plain_detections,
    plain_truth,
)
from ssl_swin.tasks.detections import Detections

RECORDS, LENGTHS = "records", "lengths"  # names of values: bytes, and how many of each image
_TOLD = {"map": "box AP", "map_50": "AP50", "map_75": "AP75", f"{OF_MASKS}map": "mask AP"}


def record_of(found: Detections, whole: WholeSample, *, with_masks: bool) -> dict[str, Tensor]:
    """Return what is detected in an image and what is in it, as values of a part.

    Args:
        found: What is detected.
        whole: The image; its truth is a `DetectSample`, or None.
        with_masks: Whether masks are detected.
    """
    true = None
    if whole.truth is not None:
        truth = Truth(*(getattr(whole.truth, name) for name in Truth._fields))
        true = plain_truth(truth, with_masks=truth.masks is not None)
    record = {
        "size": [*whole.pixels.shape[-2:]],
        "found": plain_detections(found, with_masks=with_masks),
        "true": true,
    }
    text = json.dumps(record, default=lambda counts: counts.decode()).encode()
    content = torch.from_numpy(np.frombuffer(text, np.uint8).copy())
    return {RECORDS: content, LENGTHS: torch.tensor([len(content)])}


def records(parts: Parts) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of each image, and what `record_of` kept of it."""
    for part in parts:
        if not part.names:
            continue
        texts = part.values[RECORDS].numpy()
        ends = part.values[LENGTHS].cumsum(0).tolist()
        for name, start, end in zip(part.names, [0, *ends], ends, strict=False):
            yield name, json.loads(texts[start:end].tobytes())


def detections_of(record: dict[str, Any]) -> Detections:
    """Return what is detected in an image again."""
    found: Plain = record["found"]
    boxes = torch.tensor(found["bbox"], dtype=torch.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    masks = None
    if "segmentation" in found:
        size = (record["size"][0], record["size"][1])
        masks = torch.zeros((len(boxes), *size), dtype=torch.bool)
        for mask, rle in zip(masks, found["segmentation"], strict=True):
            mask.copy_(torch.from_numpy(decode_rle(rle, size)))
    labels = torch.tensor(found["label"], dtype=torch.int64)
    return Detections(boxes, torch.tensor(found["score"]), labels, masks)


def write_results(path: Path, parts: Parts, ids: CocoIds) -> None:
    """Write all objects as COCO has results: a list with an entry for each, one a line."""
    before = "[\n"
    with path.open("w", encoding="utf-8") as file:
        for row, (name, record) in enumerate(records(parts)):
            found: Plain = record["found"]
            for at, label in enumerate(found["label"]):
                entry = {
                    "image_id": ids.image(name, row),
                    "category_id": ids.categories[label],
                    "bbox": [float(f"{value:.7g}") for value in found["bbox"][at]],
                    "score": found["score"][at],
                }
                if "segmentation" in found:
                    entry["segmentation"] = found["segmentation"][at]
                file.write(before + json.dumps(entry))
                before = ",\n"
        file.write("[]\n" if before == "[\n" else "\n]\n")


class Judged(NamedTuple):
    """What is known of how well objects are found."""

    evaluation: CocoEvaluation
    num_images: int  # whose objects are known
    num_objects: int

    @classmethod
    def of(cls, parts: Parts, num_classes: int, *, with_masks: bool) -> "Judged":
        """Count; masks, where all images have them."""
        known = [record for _, record in records(parts) if record["true"] is not None]
        with_masks = with_masks and all("segmentation" in each["true"] for each in known)
        evaluation = CocoEvaluation(num_classes, with_masks=with_masks)
        for record in known:
            evaluation.add_plain(record["size"], record["true"], record["found"])
        return cls(evaluation, len(known), sum(len(each["true"]["label"]) for each in known))

    def precisions(self, *, of_masks: bool = False) -> list[object]:
        """Return the average precision of each class, in percent as text."""
        values = self.evaluation.of_classes(of_masks=of_masks)
        return ["" if math.isnan(value) else f"{100 * value:.2f}" for value in values]

    def told(self) -> list[str]:
        """Return a line on it, where there are objects to find."""
        if not self.num_objects:
            return []
        numbers = self.evaluation.numbers()
        told = [
            f"{title} {100 * numbers[name]:.2f} %"
            for name, title in _TOLD.items()
            if not math.isnan(numbers.get(name, math.nan))
        ]
        return [f"{', '.join(told)}, of {counted(self.num_images, 'image')} with known objects"]

"""COCO's average precision and recall of boxes and masks.

Counted by faster-coco-eval, which gives the numbers of pycocotools. What is seen is kept as plain
lists, masks run-length encoded, and gathered once, when numbers are asked for: images differ in
size, and devices in how many they have.
"""

import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed
from torchmetrics import Metric

from ssl_swin.errors import UserError
from ssl_swin.tasks.detections import Detections

NUMBERS = (  # of COCO's summary, in its order
    *("map", "map_50", "map_75", "map_small", "map_medium", "map_large"),
    *("mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large"),
)
LOGGED = (*NUMBERS[:6], "mar_100")
OF_MASKS = "mask_"  # before the name of a number
Plain = dict[str, Any]  # lists of one entry an object, by what they hold


class Truth(NamedTuple):
    """What is in one image."""

    boxes: Tensor  # float32 (N, 4): x_min, y_min, x_max, y_max in px
    labels: Tensor  # int64 (N,), from 0
    masks: Tensor | None  # uint8 (N, H, W)
    crowd: Tensor  # bool (N,): around a crowd of objects, where what is detected counts as nothing
    areas: Tensor  # float32 (N,), px^2, by which objects are small, medium or large


class CocoEvaluation:
    """Images, what is in them and what was detected."""

    def __init__(self, num_classes: int, *, with_masks: bool) -> None:
        """Begin with no image.

        Args:
            num_classes: Number of classes.
            with_masks: Whether masks are evaluated, too.

        Raises:
            UserError: If the package that counts is not installed.
        """
        if importlib.util.find_spec("faster_coco_eval") is None:
            raise UserError(
                "average precision is counted by faster-coco-eval, which is not installed: pip "
                "install 'ssl_swin[detection]'"
            )
        self.num_classes = num_classes
        self.with_masks = with_masks
        self._images: list[dict[str, Any]] = []
        self._results: dict[str, float] | None = None

    def add(self, found: Detections, truth: Truth) -> None:
        """Take note of an image.

        Args:
            found: What was detected.
            truth: What is in it.
        """
        size = [0, 0] if truth.masks is None else [*truth.masks.shape[-2:]]
        self.add_plain(
            size,
            plain_truth(truth, with_masks=self.with_masks),
            plain_detections(found, with_masks=self.with_masks),
        )

    def add_plain(self, size: Sequence[int], true: Plain, found: Plain) -> None:
        """Take note of an image by plain lists.

        Args:
            size: Height and width of the image.
            true: What `plain_truth` returned.
            found: What `plain_detections` returned.
        """
        self._results = None
        self._images.append({"size": [*size], "true": true, "found": found})

    def reset(self) -> None:
        """Forget all images."""
        self._images, self._results = [], None

    def numbers(self) -> dict[str, float]:
        """Return COCO's numbers by name, from 0 to 1, over the images of all devices.

        Those of masks are called mask_NAME. A number is NaN where no object is of its kind.
        """
        if self._results is None:
            images = self._gathered()
            kinds = ["bbox", "segm"] if self.with_masks else ["bbox"]
            self._results = {}
            for kind in kinds:
                stats = self._evaluated(images, kind).stats
                prefix = OF_MASKS if kind == "segm" else ""
                for name, value in zip(NUMBERS, stats, strict=False):
                    self._results[f"{prefix}{name}"] = float(value) if value >= 0 else float("nan")
        return self._results

    def num_objects(self) -> list[int]:
        """Return how many objects of each class there are, crowds included."""
        labels = [label for image in self._gathered() for label in image["true"]["label"]]
        return [labels.count(label) for label in range(self.num_classes)]

    def of_classes(self, *, of_masks: bool = False) -> NDArray[np.float64]:
        """Return the average precision of each class, (classes,), NaN where it has no object."""
        evaluation = self._evaluated(self._gathered(), "segm" if of_masks else "bbox")
        # By IoU, recall, class, kind of size and number of detections.
        precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]
        values = np.where(precision < 0, np.nan, precision).transpose(2, 0, 1)
        has_objects = ~np.isnan(values).all(axis=(1, 2))
        means = np.full(self.num_classes, np.nan)
        means[has_objects] = np.nanmean(values[has_objects], axis=(1, 2))
        return means

    def _gathered(self) -> list[dict[str, Any]]:
        if not distributed.is_available() or not distributed.is_initialized():
            return self._images
        parts: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(parts, self._images)
        return [image for part in parts for image in part]

    def _evaluated(self, images: list[dict[str, Any]], kind: str) -> Any:
        from faster_coco_eval import COCO, COCOeval_faster

        told = "segmentation" if kind == "segm" else "bbox"
        true: list[dict[str, Any]] = []
        found: list[dict[str, Any]] = []
        for number, image in enumerate(images, 1):
            for place, label in enumerate(image["true"]["label"]):
                true.append(
                    {
                        "id": len(true) + 1,  # 0 would stand for no object
                        "image_id": number,
                        "category_id": label,
                        "iscrowd": int(image["true"]["crowd"][place]),
                        "area": image["true"]["area"][place],
                        "bbox": image["true"]["bbox"][place],
                        told: image["true"][told][place],
                    }
                )
            for place, label in enumerate(image["found"]["label"]):
                found.append(
                    {
                        "image_id": number,
                        "category_id": label,
                        "score": image["found"]["score"][place],
                        told: image["found"][told][place],
                    }
                )
        truth = COCO(
            {
                "images": [
                    {"id": number, "height": image["size"][0], "width": image["size"][1]}
                    for number, image in enumerate(images, 1)
                ],
                "categories": [{"id": label} for label in range(self.num_classes)],
                "annotations": true,
            },
            print_function=_silent,
        )
        evaluation = COCOeval_faster(truth, truth.loadRes(found), kind, print_function=_silent)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return evaluation


class CocoNumber(Metric):
    """One of COCO's numbers, from an evaluation that several metrics share.

    Attributes:
        evaluation: What all of them count.
    """

    full_state_update = False

    def __init__(self, evaluation: CocoEvaluation, name: str, *, adds: bool) -> None:
        """Choose the number.

        Args:
            evaluation: What all of them count.
            name: A key of its `numbers`.
            adds: Whether this is the metric that adds images to it, of those that share it.
        """
        super().__init__()
        self.evaluation = evaluation
        self.name = name
        self.adds = adds

    def update(self, found: Detections, truth: Truth) -> None:
        """Take note of an image; to be called of all metrics that share the evaluation."""
        if self.adds:
            self.evaluation.add(found, truth)

    def compute(self) -> Tensor:
        """Return the number, from 0 to 1, or NaN."""
        return torch.tensor(self.evaluation.numbers()[self.name])

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self.evaluation.reset()


def coco_metrics(num_classes: int, *, with_masks: bool) -> dict[str, Metric]:
    """Return COCO's numbers of boxes and, where there are any, of masks, as metrics by name.

    Args:
        num_classes: Number of classes.
        with_masks: Whether masks are evaluated, too.

    Raises:
        UserError: As `CocoEvaluation`.
    """
    evaluation = CocoEvaluation(num_classes, with_masks=with_masks)
    names = [*LOGGED, *(OF_MASKS + name for name in LOGGED if with_masks)]
    return {name: CocoNumber(evaluation, name, adds=name == names[0]) for name in names}


def plain_truth(truth: Truth, *, with_masks: bool) -> Plain:
    """Return what is in an image as plain lists, its boxes and masks as COCO has them.

    Args:
        truth: What is in it.
        with_masks: Whether masks are wanted.
    """
    plain = _plain(truth.boxes, truth.labels, truth.masks if with_masks else None)
    return plain | {"crowd": truth.crowd.tolist(), "area": truth.areas.double().tolist()}


def plain_detections(found: Detections, *, with_masks: bool) -> Plain:
    """Return what is detected as plain lists, its boxes and masks as COCO has them.

    Args:
        found: What is detected.
        with_masks: Whether masks are wanted.
    """
    plain = _plain(found.boxes, found.labels, found.masks if with_masks else None)
    return plain | {"score": found.scores.double().tolist()}


def _plain(boxes: Tensor, labels: Tensor, masks: Tensor | None) -> Plain:
    """Return boxes as x, y, width and height, and masks run-length encoded."""
    boxes = boxes.double().cpu()
    xywh = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).tolist()
    plain: Plain = {"bbox": xywh, "label": labels.tolist()}
    return plain if masks is None else plain | {"segmentation": _encoded(masks)}


def _encoded(masks: Tensor) -> list[dict[str, Any]]:
    """Return masks (M, H, W) run-length encoded, as COCO has them."""
    from faster_coco_eval.core import mask

    values = masks.to(device="cpu", dtype=torch.uint8).permute(1, 2, 0).numpy()
    encoded: list[dict[str, Any]] = mask.encode(np.asfortranarray(values)) if len(masks) else []
    return encoded


def _silent(*_: object) -> None:
    """Print nothing of what the package would print."""

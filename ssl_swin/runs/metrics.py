"""The metrics of a run: every name that a job logs, with its unit and its better direction.

An objective or a task of your own may log others, which are then known by their name alone.
"""

import math
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Literal, NamedTuple

Better = Literal["lower", "higher", ""]
MARK = re.compile(
    r"_(best|at_\d+(x\d+)?px|multi_scale)$"
)  # of an evaluation of other weights, at another size
RECONSTRUCTIONS, FEATURES, STAGES = "recon/grid", "features/grid", "probes/stages"
PREDICTIONS = "predictions/grid"
PICTURES = {  # keys of the pictures on dashboards
    RECONSTRUCTIONS: "reconstructions of held-out images",
    PREDICTIONS: "what is told of held-out images",
    FEATURES: "features of held-out images",
    STAGES: "probes by stage",
}
HELD_OUT = ("val/", "probe/")  # of which the best value so far says something


class Metric(NamedTuple):
    """A metric, or those whose names differ in what `*` stands for."""

    name: str
    meaning: str
    unit: str = ""
    better: Better = ""

    @property
    def group(self) -> str:
        """What stands before the first slash: the panels of a dashboard are grouped by it."""
        return self.name.partition("/")[0]


METRICS = (
    Metric("train/loss", "what is minimised, of a training batch", "", "lower"),
    Metric("train/loss_decode", "loss of the head that is kept", "", "lower"),
    Metric("train/loss_auxiliary", "loss of the head that only training uses", "", "lower"),
    Metric("train/loss_rpn_class", "loss of telling proposals from background", "", "lower"),
    Metric("train/loss_rpn_box", "loss of the boxes of proposals", "", "lower"),
    Metric(
        "train/loss_class*", "loss of the classes of boxes; of a cascade, by stage", "", "lower"
    ),
    Metric("train/loss_box*", "loss of the boxes of objects; of a cascade, by stage", "", "lower"),
    Metric("train/loss_mask*", "loss of the masks of objects; of a cascade, by stage", "", "lower"),
    Metric("train/unsup_loss*", "the same of images without boxes, with their weight", "", "lower"),
    Metric("train/pseudo_boxes", "boxes that the teacher is sure of, of an image", "boxes"),
    Metric("train/pseudo_boxes_firm", "boxes that it would put there again, of an image", "boxes"),
    Metric("train/rep/std_mean", "spread of the features of a batch, if the objective logs it"),
    Metric("val/loss", "the same on held-out images; any masks stay the same", "", "lower"),
    Metric("val/loss_vs_mean", "its share of the loss of predicting the mean", "ratio", "lower"),
    Metric("val/psnr", "signal-to-noise ratio of the masked pixels", "dB", "higher"),
    Metric("val/top1", "accuracy on held-out images", "ratio", "higher"),
    Metric("val/miou", "mean over classes of intersection over union", "ratio", "higher"),
    Metric("val/class_accuracy", "mean over classes of rightly told pixels", "ratio", "higher"),
    Metric("val/pixel_accuracy", "share of pixels that are rightly told", "ratio", "higher"),
    Metric("val/map", "average precision of boxes (COCO's AP)", "ratio", "higher"),
    Metric("val/map_*", "AP of boxes at one IoU, or by size of objects", "ratio", "higher"),
    Metric("val/mar_100", "average recall of boxes, at most 100 an image", "ratio", "higher"),
    Metric("val/mask_map", "average precision of masks (COCO's AP)", "ratio", "higher"),
    Metric("val/mask_map_*", "AP of masks at one IoU, or by size of objects", "ratio", "higher"),
    Metric("val/mask_mar_100", "average recall of masks, at most 100 an image", "ratio", "higher"),
    Metric("test/loss", "loss on the test images", "", "lower"),
    Metric("test/loss_vs_mean", "its share of the loss of predicting the mean", "ratio", "lower"),
    Metric("test/psnr", "signal-to-noise ratio of the masked pixels", "dB", "higher"),
    Metric("test/top1", "accuracy on the test images", "ratio", "higher"),
    Metric("test/miou", "mean over classes of intersection over union", "ratio", "higher"),
    Metric("test/class_accuracy", "mean over classes of rightly told pixels", "ratio", "higher"),
    Metric("test/pixel_accuracy", "share of pixels that are rightly told", "ratio", "higher"),
    Metric("test/map", "average precision of boxes (COCO's AP)", "ratio", "higher"),
    Metric("test/map_*", "AP of boxes at one IoU, or by size of objects", "ratio", "higher"),
    Metric("test/mar_100", "average recall of boxes, at most 100 an image", "ratio", "higher"),
    Metric("test/mask_map", "average precision of masks (COCO's AP)", "ratio", "higher"),
    Metric("test/mask_map_*", "AP of masks at one IoU, or by size of objects", "ratio", "higher"),
    Metric("test/mask_mar_100", "average recall of masks, at most 100 an image", "ratio", "higher"),
    Metric("probe/knn_top1/stage*", "kNN on a stage's features, while training", "%", "higher"),
    Metric("probe/linear_top1/stage*", "linear classifier on them", "%", "higher"),
    Metric("rep/rankme/stage*", "effective rank of a stage's features (RankMe)", "", "higher"),
    Metric("rep/std_mean/stage*", "their spread: 0 where all images are alike"),
    Metric("rep/cka_to_init/stage*", "likeness to the first network's (linear CKA)", "ratio"),
    Metric("probe/*/knn_top1", "kNN as chosen on val, by split", "%", "higher"),
    Metric("probe/*/knn_top1/*", "the best kNN of a stage, by split and pooling", "%", "higher"),
    Metric("probe/*/linear_top1", "linear classifier as chosen on val, by split", "%", "higher"),
    Metric("probe/*/linear_top1/*", "the best one of a stage, by split and pooling", "%", "higher"),
    Metric("optim/lr", "learning rate, the largest of all groups"),
    Metric("optim/grad_norm", "norm of the gradient before it is clipped"),
    Metric("amp/scale", "loss scale of fp16"),
    Metric("health/skipped_steps", "steps left out so far, not being finite", "steps", "lower"),
    Metric("health/collapse", "1 while the alarm for a collapse is on", "", "lower"),
    Metric("perf/samples_per_s", "images trained on, on all devices", "images/s", "higher"),
    Metric("perf/data_wait_frac", "time that steps wait for data", "ratio", "lower"),
    Metric("data/bad_samples", "images so far that could not be read", "images", "lower"),
    Metric("data/bad_ratio", "their share", "ratio", "lower"),
)


@lru_cache(maxsize=1000)
def declared(name: str) -> Metric | None:
    """Return what a logged metric is; None for one that is not ours.

    Args:
        name: As logged; marks of other weights and sizes at its end do not count.
    """
    plain = MARK.sub("", name)
    return next((metric for metric in METRICS if fnmatchcase(plain, metric.name)), None)


def is_lower_better(name: str) -> bool:
    """Return whether a metric is minimised; one that is not ours is if it is called a loss.

    Args:
        name: As logged.
    """
    metric = declared(name)
    return "loss" in name if metric is None else metric.better == "lower"


def improved(best: Mapping[str, float], row: Mapping[str, float]) -> dict[str, float]:
    """Return those metrics of held-out images whose value is better than before.

    Args:
        best: The best values so far.
        row: What is logged of a step.
    """
    return {
        name: value
        for name, value in row.items()
        if declared(name) is not None
        and name.startswith(HELD_OUT)
        and math.isfinite(value)
        and (name not in best or _is_better(name, value, best[name]))
    }


def _is_better(name: str, value: float, than: float) -> bool:
    return value < than if is_lower_better(name) else value > than

"""Which box stands for which object, and which boxes a step learns from.

Reference: `max_iou_assigner.py` and `random_sampler.py` of the detection code that Swin's is built
on. Draws come from torch's global generator, which the loop seeds for every step.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, Matcher
from torchvision.ops import box_iou

NO_OBJECT = -1  # in place of an object's index


class BestMatcher(Matcher):  # type: ignore[misc]
    """A box stands for the object that it overlaps most, if it overlaps it enough.

    So does the box that overlaps an object more than all others do, from a lower overlap on; of two
    objects with the same best box, the later one has it.
    """

    def __init__(self, high: float, low: float, least_best: float | None) -> None:
        """Set the matcher up.

        Args:
            high: From this IoU on, a box stands for an object.
            low: Below it, a box is background; between the two, it is neither.
            least_best: From this IoU on, an object's best box stands for it; None leaves that out.
        """
        super().__init__(high, low, allow_low_quality_matches=least_best is not None)
        self.least_best = 0.0 if least_best is None else least_best

    def set_low_quality_matches_(self, matches: Tensor, all_matches: Tensor, ious: Tensor) -> None:
        """Give objects their best boxes.

        Args:
            matches: Object of each box, int64 (boxes,), which is changed.
            all_matches: Object that each box overlaps most; of no use here.
            ious: Overlaps (objects, boxes).
        """
        best = ious.amax(dim=1, keepdim=True)
        is_best = (ious == best) & (best >= self.least_best)
        objects = torch.arange(len(ious), device=ious.device)[:, None]
        last = torch.where(is_best, objects, NO_OBJECT).amax(dim=0)
        matches.copy_(torch.where(last >= 0, last, matches))


class Samples(NamedTuple):
    """The boxes of one image that a stage learns from."""

    boxes: Tensor  # float32 (R, 4)
    objects: Tensor  # int64 (R,): index of the object that each stands for, or NO_OBJECT
    are_objects: Tensor  # bool (R,): which are the objects' own boxes

    @property
    def positive(self) -> Tensor:
        """Return which boxes stand for an object, bool (R,)."""
        return self.objects >= 0


def draw_samples(
    proposals: Tensor,
    truth: Tensor,
    *,
    matcher: Matcher,
    sampler: BalancedPositiveNegativeSampler,
) -> Samples:
    """Choose boxes of an image to learn from, among proposals and the objects' own boxes.

    Args:
        proposals: Float32 (P, 4).
        truth: Boxes of the objects, float32 (N, 4).
        matcher: Says what stands for what.
        sampler: Draws the boxes.

    Returns:
        The boxes, those of objects first.
    """
    num_objects, device = len(truth), proposals.device
    own = torch.arange(num_objects, device=device)
    objects = proposals.new_full((len(proposals),), NO_OBJECT, dtype=torch.int64)
    if num_objects and len(proposals):
        objects = matcher(box_iou(truth, proposals))
    boxes, objects = torch.cat([truth, proposals]), torch.cat([own, objects])
    # What the sampler takes: above 0 for an object, 0 for background, below for neither.
    kinds = torch.where(objects >= 0, 1, torch.where(objects == matcher.BELOW_LOW_THRESHOLD, 0, -1))
    positive, negative = sampler([kinds])
    chosen = torch.where(positive[0] | negative[0])[0]
    return Samples(boxes[chosen], objects[chosen], chosen < num_objects)

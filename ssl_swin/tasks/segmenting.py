"""From a network that scores crops or images to the class of every pixel of an image.

Reference: `mmseg/models/segmentors/encoder_decoder.py` and the test pipeline of Swin's recipes.
Everything here is of one image at a time, since images differ in size and padding is not neutral.

Differs from the reference: images are resized on the device, after normalising, bilinear and with
antialiasing; the original resizes bytes before, without it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import MinLen
from torch import Tensor
from torch.nn import functional

from ssl_swin.arguments import Above0, Side, checked
from ssl_swin.data.segment_views import size_within
from ssl_swin.errors import UserError
from ssl_swin.tasks.upernet import upsampled

Scores = Callable[[Tensor], Tensor]  # images (B, C, H, W) to scores (B, classes, h, w)

Ratios = Annotated[Sequence[Above0], MinLen(1)]
MULTI_SCALE = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # of the recipes, each also mirrored


@checked
@dataclass(frozen=True)
class Inference:
    """How an image is looked at.

    Attributes:
        mode: "whole" images at once, or "slide": a window over the image, the scores averaged.
        short_px: Length of the shorter side that images are resized to; None keeps their size.
        long_px: What the longer side has at most then, which may leave the shorter one shorter.
        window_px: Side of the window of "slide"; an image smaller than it is taken as it is.
        step_px: Distance of its places; at borders they are moved inwards.
        ratios: Factors on the size. Probabilities are averaged over several.
        flip: Whether each is looked at mirrored, too.
    """

    mode: Literal["whole", "slide"] = "whole"
    short_px: Side | None = 512
    long_px: Side = 2048
    window_px: Side = 512
    step_px: Side = 341
    ratios: Ratios = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        """Refuse a window that would leave gaps.

        Raises:
            UserError: With both numbers.
        """
        if self.mode == "slide" and self.step_px > self.window_px:
            raise UserError(
                f"step_px={self.step_px} is more than window_px={self.window_px}: windows would "
                "leave gaps"
            )
        object.__setattr__(self, "ratios", tuple(self.ratios))  # of a configuration's list

    def probabilities(self, scores: Scores, image: Tensor) -> Tensor:
        """Return the probability of each class at every pixel.

        Args:
            scores: The network.
            image: Normalised, (C, H, W).

        Returns:
            float32 (classes, H, W), of the image's own size.
        """
        size = (image.shape[-2], image.shape[-1])
        total: Tensor | None = None
        for ratio in self.ratios:
            resized = self._resized(image, ratio)
            for is_mirrored in (False, True) if self.flip else (False,):
                logits = self._logits(scores, resized.flip(-1) if is_mirrored else resized)
                logits = logits.flip(-1) if is_mirrored else logits
                part = upsampled(logits, size)[0].softmax(dim=0)
                total = part if total is None else total + part
        assert total is not None
        return total / (len(self.ratios) * (1 + self.flip))

    def _logits(self, scores: Scores, image: Tensor) -> Tensor:
        """Return float32 scores (1, classes, H, W) of an image (1, C, H, W)."""
        if self.mode == "slide":
            return slide(scores, image, window_px=self.window_px, step_px=self.step_px)
        return upsampled(scores(image).float(), image)

    def _resized(self, image: Tensor, ratio: float) -> Tensor:
        size = (image.shape[-2], image.shape[-1])
        if self.short_px is None:
            target = (max(1, round(size[0] * ratio)), max(1, round(size[1] * ratio)))
        else:
            limits = int(self.short_px * ratio + 0.5), int(self.long_px * ratio + 0.5)
            target = size_within(size, max(1, min(limits)), max(1, max(limits)))
        if target == size:
            return image[None]
        return functional.interpolate(
            image[None], target, mode="bilinear", align_corners=False, antialias=True
        )


def slide(scores: Scores, image: Tensor, *, window_px: int, step_px: int) -> Tensor:
    """Return the scores of an image, averaged over all places of a window that hold a pixel.

    Windows begin at multiples of the step; those that would reach beyond the image are moved
    inwards, and on a side that is shorter than the window it is cut to the image.

    Args:
        scores: The network.
        image: Normalised, (1, C, H, W).
        window_px: Side of the window.
        step_px: Distance of its places, at most the window.

    Returns:
        float32 (1, classes, H, W).
    """
    height, width = image.shape[-2:]
    total: Tensor | None = None
    counts = torch.zeros(1, 1, height, width, device=image.device)
    for top in _starts(height, window_px, step_px):
        for left in _starts(width, window_px, step_px):
            rows, columns = slice(top, top + window_px), slice(left, left + window_px)
            part = image[..., rows, columns]
            logits = upsampled(scores(part).float(), part)
            if total is None:
                total = logits.new_zeros((1, logits.shape[1], height, width))
            total[..., rows, columns] += logits
            counts[..., rows, columns] += 1
    assert total is not None
    return total / counts


def _starts(side: int, window: int, step: int) -> list[int]:
    number = max(side - window + step - 1, 0) // step + 1
    return [max(min(place * step, side - window), 0) for place in range(number)]

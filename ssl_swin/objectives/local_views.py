"""Local views: smaller crops of details, which a student is to see as part of the whole image.

Reference: multi-crop, SwAV (arXiv:2006.09882); DINO, EsViT and iBOT have it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_swin.data.samples import Augmentation
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.objectives.base import Normalize


class LocalViews(NamedTuple):
    """How many local views an image has, and what they show."""

    number: int
    size_px: int
    crop_scale: tuple[float, float]  # smallest and largest area over the image's

    def check(self, encoder: Encoder) -> None:
        """Refuse what an encoder cannot look at.

        Raises:
            UserError: If there are local views, and the encoder takes images of one size alone, or
                they would not be smaller than its images.
        """
        if not self.number:
            return
        if not encoder.takes_any_size:
            raise UserError(
                f"objective.local_views={self.number} are smaller than other views, and a "
                f"{encoder.title} takes images of its own size alone: set objective.local_views=0"
            )
        side_px = min(encoder.img_size_px)
        if not encoder.patch_size_px <= self.size_px < side_px:
            raise UserError(
                f"objective.local_size_px={self.size_px} must be at least a patch, "
                f"{encoder.patch_size_px} px, and below the image's side, {side_px} px"
            )

    def crops(self, augmentation: Augmentation) -> list[Augmentation]:
        """Return what crops each local view; nothing where whole images are looked at.

        Args:
            augmentation: Crops the other views.

        Raises:
            UserError: If it has no crops of details.
        """
        if not self.number:
            return []
        crop = augmentation.for_local_views((self.size_px, self.size_px), self.crop_scale)
        return [] if crop is None else [crop] * self.number


class SeenLocally(NamedTuple):
    """What a student makes of B images in each local view."""

    pooled: tuple[Tensor, ...] = ()  # features (B, num_features)
    tokens: tuple[Tensor, ...] = ()  # features of all cells (B, N, num_features)


def see_local(encoder: Encoder, views: Sequence[Tensor], normalize: Normalize) -> SeenLocally:
    """Look at local views, all at once.

    Args:
        encoder: The student's.
        views: Pixels (B, C, height, width) of each.
        normalize: Makes pixels the encoder's input.
    """
    if not views:
        return SeenLocally()
    features = encoder.forward_any_size(torch.cat([normalize(pixels) for pixels in views]))
    tokens = features.flatten(2).transpose(1, 2)
    return SeenLocally(encoder.pool(features).chunk(len(views)), tokens.chunk(len(views)))

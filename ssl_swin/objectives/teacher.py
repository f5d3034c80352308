"""A frozen teacher: raw pixels to the feature map that a student is to predict."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_swin.encoders.sizes import Size
from ssl_swin.pixels import normalize


class Teacher:
    """A network that is never trained, with the normalisation of its own training.

    It is no module, and so in no `state_dict`, optimiser, average or hand-off, is not copied over
    devices, and stays in eval mode whatever the student does. It follows the images to their
    device.

    Attributes:
        name: How a reader knows it.
        in_chans: Channels of its images.
        size_px: Height and width of its images, to which others are resized.
        width: Channels of its map.
        grid: Rows and columns of its map.
        digest: SHA-256 of its weights and their names, shortened.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        mean: Sequence[float],
        std: Sequence[float],
        size_px: Size,
    ) -> None:
        """Freeze a network, and look at what it makes of a blank image.

        Args:
            network: Turns normalised images (B, C, H, W) into a map (B, width, rows, columns) that
                has passed its last norm.
            name: How a reader knows it.
            mean: Normalisation of its training, per channel.
            std: Normalisation of its training, per channel.
            size_px: Height and width of its images.
        """
        self._network = network.eval().requires_grad_(False)
        self._mean, self._std = tuple(mean), tuple(std)
        self.name = name
        self.in_chans = len(self._mean)
        self.size_px = size_px
        self.digest = digest_of(network.state_dict())
        blank = self(torch.zeros(1, self.in_chans, *size_px))
        self.width = blank.shape[1]
        self.grid: Size = (blank.shape[2], blank.shape[3])

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the map (B, width, rows, columns) of raw pixels (B, C, H, W) of any size."""
        images = normalize(pixels, self._mean, self._std)
        if images.shape[-2:] != self.size_px:
            images = F.interpolate(images, self.size_px, mode="bilinear", antialias=True)
        features: Tensor = self._network.to(images.device)(images)
        return features

    def __deepcopy__(self, memo: Mapping[int, Any]) -> Self:
        """Return itself: what never changes needs no copy."""
        return self


def digest_of(state: Mapping[str, Tensor]) -> str:
    """Return a digest of tensors, their names, shapes and types."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]

"""Patch embedding of whole images, or of chosen patches alone."""

import torch
import torch.nn.functional as F
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from ssl_swin.encoders.kernels import HasKernels, Kernels
from ssl_swin.encoders.kernels import PatchEmbedding as Kernel
from ssl_swin.encoders.windows.kernels import is_plain
from ssl_swin.encoders.windows.layout import take_rows
from ssl_swin.errors import UserError


class PatchEmbedding(PatchEmbed, HasKernels):
    """timm's patch embedding, whose convolution may be computed as one matrix product.

    Attributes:
        kernel: How it is computed on whole images; that of chosen patches is a product always.
    """

    kernel: Kernel = "product"

    def use_kernels(self, kernels: Kernels) -> None:
        """See `HasKernels.use_kernels`."""
        self.kernel = kernels.patch_embedding

    def forward(
        self, images: Tensor, chosen: Tensor | None = None, *, any_size: bool = False
    ) -> Tensor:
        """Embeds patches.

        Args:
            images: (B, C, H, W).
            chosen: Raster indices of patches, int64 (B, N); None for all.
            any_size: Take images of other sizes than the model's, and pad them with zeros on the
                right and at the bottom to whole patches.

        Returns:
            NHWC tokens (B, H/p, W/p, embed_dim), or (B, N, embed_dim) of the patches chosen.

        Raises:
            UserError: If the images are not those that the model takes.
        """
        self._check(images, any_size=any_size)
        high, wide = self.patch_size
        if any_size:
            images = F.pad(images, (0, -images.shape[3] % wide, 0, -images.shape[2] % high))
        if chosen is None and self.kernel != "product":
            return self._convolve(images)
        rows, columns = images.shape[2] // high, images.shape[3] // wide
        patches = images.view(*images.shape[:2], rows, high, columns, wide)
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(len(images), rows * columns, -1)
        if chosen is not None:
            return self._embed(take_rows(patches, chosen))
        return self._embed(patches).view(len(images), rows, columns, -1)

    def _convolve(self, images: Tensor) -> Tensor:
        """Returns NHWC tokens of whole images (B, C, H, W)."""
        if self.kernel == "channels_last":
            images = images.contiguous(memory_format=torch.channels_last)
        return self.norm(self.proj(images).permute(0, 2, 3, 1))  # type: ignore[no-any-return]

    def _embed(self, patches: Tensor) -> Tensor:
        """Returns the tokens (B, N, embed_dim) of the values of patches (B, N, C * p * p)."""
        if is_plain(self.proj, nn.Conv2d):
            tokens = F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)
        else:
            squares = patches.reshape(-1, self.proj.in_channels, *self.patch_size)
            tokens = self.proj(squares).view(*patches.shape[:2], -1)
        return self.norm(tokens)  # type: ignore[no-any-return]

    def _check(self, images: Tensor, *, any_size: bool) -> None:
        channels, (height_px, width_px) = self.proj.in_channels, self.img_size
        size = f"{height_px}x{width_px} px"
        if any_size:
            is_right = images.ndim == 4 and images.shape[1] == channels and images.numel() > 0
            size = "any size"
        else:
            is_right = images.shape[1:] == (channels, height_px, width_px)
        if not is_right:
            raise UserError(
                f"the encoder takes images of {channels} channels and {size}, "
                f"got {tuple(images.shape[1:])}"
            )

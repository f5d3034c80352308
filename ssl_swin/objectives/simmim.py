"""SimMIM: predict the raw pixels of masked patches from an encoder that sees mask tokens.

Reference: SimMIM (arXiv:2111.09886); the normalised target is that of Swin Transformer V2's SimMIM
recipe. Equal to the original implementation to rounding, see tests/test_golden.py.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from ssl_swin.arguments import InnerFraction, OddWindow, Positive, checked
from ssl_swin.data.samples import Augmentation, PixelFormat
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.kernels import HasKernels, Head, Kernels
from ssl_swin.encoders.sizes import Size
from ssl_swin.encoders.windows.kernels import is_plain
from ssl_swin.encoders.windows.layout import take_rows
from ssl_swin.errors import UserError
from ssl_swin.figure import DifferenceColumn, Figure, ImageColumn
from ssl_swin.masking import expand_mask, mask_grid, num_masked_patches
from ssl_swin.objectives.base import Collate, Normalize, Objective, Output
from ssl_swin.objectives.cells import listed_cells, patchify
from ssl_swin.objectives.masked_images import MaskedBatch, MaskedTransform, collate_masked
from ssl_swin.objectives.psnr import MaskedPsnr, deviations
from ssl_swin.objectives.targets import ImageTarget, PatchTarget, Target, WindowTarget
from ssl_swin.plurals import counted

FEWEST_PATCHES = 36  # of the published recipes: 192 px in mask patches of 32
LEAST_CONTRAST = 1e-4  # loss of predicting the mean below which it is rounding, and no measure


class Reconstruction(NamedTuple):
    """What one forward pass computes."""

    loss: Tensor  # scalar: mean absolute error over masked pixels and channels
    prediction: Tensor  # (B, C, H, W), in the space of the target
    features: Tensor  # (B, num_features, H/stride, W/stride), the encoder's last map


class MaskedImageModel(Objective):
    """Predicts pixels of masked patches: what the dense and the sparse objective share."""

    @checked
    def __init__(
        self,
        encoder: Encoder,
        *,
        mask_ratio: InnerFraction = 0.6,
        mask_patch_size_px: Positive | None = None,
        shared_mask: bool = False,
        normalize_target_window_px: OddWindow | None = None,
        normalize_target_patch_px: Positive | None = None,
    ) -> None:
        """Wrap an encoder.

        Args:
            encoder: The encoder to pretrain; it declares strides, widths and channels.
            mask_ratio: Fraction of mask patches that are masked, in (0, 1); the count is rounded
                up.
            mask_patch_size_px: Side of a mask patch; None takes the one that suits the encoder, 32
                px for a four-stage Swin and for a ViT.
            shared_mask: Whether one mask serves the whole batch of a device.
            normalize_target_window_px: Odd side of the window over which the target is normalised
                locally (Swin V2 recipe: 47); None does not.
            normalize_target_patch_px: Side of the patches over which the target is normalised,
                each as a whole (MAE); None does not. Without either the normalised image itself is
                predicted (SimMIM).

        Raises:
            UserError: If the window is even or below 3, patches do not tile the image, or both are
                given.
        """
        super().__init__(encoder)
        self._target = _target(
            encoder.img_size_px, normalize_target_window_px, normalize_target_patch_px
        )
        self.mask_ratio = mask_ratio
        self.mask_patch_size_px = mask_patch_size_px or encoder.mask_patch_size_px
        self.shared_mask = shared_mask

    @property
    def mask_grid(self) -> tuple[int, int]:
        """Number of mask patches (rows, columns) of an image.

        Raises:
            UserError: If they do not tile the image, or cut patches.
        """
        return mask_grid(
            self.encoder.img_size_px,
            self.mask_patch_size_px,
            patch_size_px=self.encoder.patch_size_px,
        )

    def notes(self) -> Sequence[str]:
        """See `Objective.notes`; the number of mask patches sets how much there is to learn."""
        number = math.prod(self.mask_grid)
        if number >= FEWEST_PATCHES:
            return ()
        return (
            f"an image has {counted(number, 'mask patch')} of {self.mask_patch_size_px} px, where "
            f"the published recipes have {FEWEST_PATCHES} or more, and features learned from fewer "
            "are poorer: give larger images, or a model whose last map is finer",
        )

    @abstractmethod
    def reconstruct(self, images: Tensor, mask: Tensor, plan: Any = None) -> Reconstruction:
        """Reconstruct masked images.

        Args:
            images: Normalised (B, C, H, W).
            mask: Bool (B, rows, columns), True = masked, on any grid that the patch grid is a
                multiple of.
            plan: What the collate function worked out of the mask, where the objective needs it.

        Raises:
            UserError: If the mask does not fit.
        """

    def make_transform(
        self, augmentation: Augmentation, pixels: PixelFormat, *, seed: int
    ) -> MaskedTransform:
        """See `Objective.make_transform`."""
        return MaskedTransform(
            augmentation,
            pixels,
            mask_grid=self.mask_grid,
            mask_ratio=self.mask_ratio,
            seed=seed,
        )

    def make_collate(self) -> Collate:
        """See `Objective.make_collate`."""
        return partial(collate_masked, shared_mask=self.shared_mask)

    def training_loss(self, images: Tensor, mask: Tensor, plan: Any = None) -> Tensor:
        """Return the loss of `reconstruct`, for which not everything there need be computed."""
        return self.reconstruct(images, mask, plan).loss

    def forward(self, batch: MaskedBatch, normalize: Normalize) -> Output:
        """See `Objective.forward`."""
        planned = () if batch.plan is None else (batch.plan,)
        return Output(self.training_loss(normalize(batch.pixels), batch.mask, *planned))

    def new_metrics(self) -> dict[str, Metric]:
        """The loss, its share of the loss of predicting the data's mean everywhere, and the PSNR.

        Where that guess has no loss, as on images without contrast, there is no share: such batches
        do not count, and of no others it is nan. The PSNR is of the masked pixels before
        normalisation; of a locally normalised target, as `to_image_space` brings it back.
        """
        return {"loss": MeanMetric(), "loss_vs_mean": MeanMetric(), "psnr": MaskedPsnr()}

    def evaluate(
        self, metrics: Mapping[str, Metric], batch: MaskedBatch, normalize: Normalize
    ) -> None:
        """See `Objective.evaluate`."""
        images = normalize(batch.pixels)
        loss, prediction, _ = self._reconstruct(batch, images)
        guess = self.mean_guess_loss(images, batch.mask)
        metrics["loss"].update(loss, weight=len(images))
        counts = guess > LEAST_CONTRAST
        share = torch.where(counts, loss / guess, 0.0)
        metrics["loss_vs_mean"].update(share, weight=len(images) * counts)
        error = self.to_image_space(prediction, images) - images
        scale = deviations(normalize, images.shape[1], images)
        metrics["psnr"].update(error * scale, _masked_pixels(batch.mask, images), batch.pixels)

    def preview(self, batch: MaskedBatch, normalize: Normalize) -> Figure:
        """The input, and what the mask leaves of it."""
        images = normalize(batch.pixels)
        return (
            ImageColumn("input", images),
            ImageColumn("masked", images, masked=batch.mask),
        )

    def figure(self, batch: MaskedBatch, normalize: Normalize) -> Figure:
        """The preview, the prediction of what was masked, and how far it is off."""
        images = normalize(batch.pixels)
        prediction = self._reconstruct(batch, images).prediction
        masked = _masked_pixels(batch.mask, images)
        pasted = torch.where(masked, self.to_image_space(prediction, images), images)
        return (
            *self.preview(batch, normalize),
            ImageColumn("prediction", pasted),
            DifferenceColumn("error", pasted, images),
        )

    def target(self, images: Tensor) -> Tensor:
        """Return what is to be predicted for normalised images (B, C, H, W), in float32."""
        with torch.autocast(images.device.type, enabled=False):
            return self._target.of(images.float())

    def to_image_space(self, prediction: Tensor, images: Tensor) -> Tensor:
        """Bring a prediction from the space of the target back to that of the images.

        See `Target.to_image_space` on what a normalised target borrows of the true image.

        Args:
            prediction: (B, C, H, W).
            images: Normalised (B, C, H, W).
        """
        return self._target.to_image_space(prediction.float(), images.float()).float()

    def mean_guess_loss(self, images: Tensor, mask: Tensor) -> Tensor:
        """Return the loss of predicting zero, the target's mean, everywhere."""
        target = self.target(images)
        return masked_l1(torch.zeros_like(target), target, mask)

    def describe(self) -> str:
        """See `Objective.describe`."""
        rows, columns = self.mask_grid
        num_masked = num_masked_patches(rows * columns, self.mask_ratio)
        phrase = (
            f"{self.title}, {num_masked} of {rows * columns} mask patches of "
            f"{self.mask_patch_size_px} px masked"
        )
        return f"{phrase}, {self._target.phrase}" if self._target.phrase else phrase

    def _reconstruct(self, batch: MaskedBatch, images: Tensor) -> Reconstruction:
        planned = () if batch.plan is None else (batch.plan,)
        return self.reconstruct(images, batch.mask, *planned)


def _target(size_px: Size, window_px: int | None, patch_px: int | None) -> Target:
    if window_px is not None and patch_px is not None:
        raise UserError(
            f"objective.normalize_target_window_px={window_px} and normalize_target_patch_px="
            f"{patch_px} are two targets: set one of them to null"
        )
    if patch_px is not None:
        if any(side % patch_px for side in size_px):
            raise UserError(
                f"objective.normalize_target_patch_px={patch_px} does not divide an image of "
                f"{size_px[0]}x{size_px[1]} px"
            )
        return PatchTarget(patch_px)
    return ImageTarget() if window_px is None else WindowTarget(window_px)


class SimMIM(MaskedImageModel, HasKernels):
    """Mask token, encoder, and a one-layer head that predicts pixels.

    The mask token lives here and not in the encoder, so that fine-tuning has no unused parameter.

    Attributes:
        kernel: Of which cells of the last map training computes the head.
    """

    title = "SimMIM"
    tags = ("simmim",)
    kernel: Head = "all"

    @checked
    def __init__(
        self,
        encoder: Encoder,
        *,
        mask_ratio: InnerFraction = 0.6,
        mask_patch_size_px: Positive | None = None,
        shared_mask: bool = False,
        normalize_target_window_px: OddWindow | None = None,
        normalize_target_patch_px: Positive | None = None,
        blank_pixels: bool | None = None,
    ) -> None:
        """Wrap an encoder.

        Args:
            encoder: See `MaskedImageModel`.
            mask_ratio: See `MaskedImageModel`.
            mask_patch_size_px: See `MaskedImageModel`.
            shared_mask: See `MaskedImageModel`.
            normalize_target_window_px: See `MaskedImageModel`.
            normalize_target_patch_px: See `MaskedImageModel`.
            blank_pixels: Whether masked pixels are painted with the data's mean before the encoder
                sees the image. None does where its tokens see beyond their own patches, as behind
                a ResNet's stem; elsewhere the mask token hides them all.
        """
        super().__init__(
            encoder,
            mask_ratio=mask_ratio,
            mask_patch_size_px=mask_patch_size_px,
            shared_mask=shared_mask,
            normalize_target_window_px=normalize_target_window_px,
            normalize_target_patch_px=normalize_target_patch_px,
        )
        overlaps = encoder.overlapping_patches
        self.blank_pixels = overlaps if blank_pixels is None else blank_pixels
        self.mask_token = nn.Parameter(torch.zeros(1, 1, encoder.embed_dim))
        bound = encoder.init_bound
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-bound, b=bound)
        self.decoder = nn.Sequential(
            nn.Conv2d(encoder.num_features, encoder.stride**2 * encoder.in_chans, kernel_size=1),
            nn.PixelShuffle(encoder.stride),
        )

    def use_kernels(self, kernels: Kernels) -> None:
        """See `HasKernels.use_kernels`."""
        self.kernel = kernels.head

    def reconstruct(self, images: Tensor, mask: Tensor, plan: Any = None) -> Reconstruction:
        """See `MaskedImageModel.reconstruct`."""
        features = self._features(images, mask)
        prediction = self.decoder(features)
        loss = masked_l1(prediction, self.target(images), mask)
        return Reconstruction(loss, prediction, features)

    def training_loss(self, images: Tensor, mask: Tensor, plan: Any = None) -> Tensor:
        """Return the loss of `reconstruct`, with a head on masked cells alone if it is chosen.

        Where mask patches cut cells, or something hooks into the head, it is on all cells.

        Args:
            images: Normalised (B, C, H, W).
            mask: Bool (B, rows, columns), True = masked, of `mask_ratio` in every image.
            plan: Of no use here.
        """
        cells_a_patch = self.mask_patch_size_px // self.encoder.stride
        is_whole = self.mask_patch_size_px % self.encoder.stride == 0
        if self.kernel == "all" or not is_whole or not is_plain(self.decoder[0], nn.Conv2d):
            return super().training_loss(images, mask)
        num_masked = num_masked_patches(math.prod(self.mask_grid), self.mask_ratio)
        features = self._features(images, mask)
        rows, columns = features.shape[2:]
        cells = listed_cells(mask, (rows, columns), num_masked * cells_a_patch**2)
        return self._loss_on_cells(features, self.target(images), cells)

    def _features(self, images: Tensor, mask: Tensor) -> Tensor:
        """Returns the last map (B, C, h, w) of images whose masked tokens are the mask token."""
        tokens = self.encoder.embed(self._shown(images, mask))
        masked = expand_mask(mask, (tokens.shape[1], tokens.shape[2]))
        tokens = torch.where(masked[..., None], self.mask_token.to(tokens.dtype), tokens)
        return self.encoder.encode(tokens)

    def _loss_on_cells(self, features: Tensor, target: Tensor, cells: Tensor) -> Tensor:
        """Returns `masked_l1` where cells, int64 (B, M), are what is masked."""
        head: Any = self.decoder[0]
        area_px, channels = self.encoder.stride**2, self.encoder.in_chans
        rows = take_rows(features.flatten(2).transpose(1, 2), cells)
        predicted = F.linear(rows, head.weight.flatten(1), head.bias)
        expected = take_rows(patchify(target, self.encoder.stride), cells)
        # The head gives a channel's pixels one after another, `patchify` a pixel's channels.
        predicted = predicted.view(*cells.shape, channels, area_px).transpose(-1, -2)
        error = (expected.view(*cells.shape, area_px, channels) - predicted.float()).abs()
        loss: Tensor = error.sum() / (cells.numel() * area_px + 1e-5) / channels
        return loss

    def _shown(self, images: Tensor, mask: Tensor) -> Tensor:
        """Returns what the encoder may see of normalised images (B, C, H, W)."""
        if not self.blank_pixels:
            return images
        return images.masked_fill(_masked_pixels(mask, images), 0.0)

    def undecayed(self) -> frozenset[str]:
        """See `Objective.undecayed`."""
        return frozenset({"mask_token"})

    def extra_weights(self) -> dict[str, dict[str, Tensor]]:
        """The mask token and the head, which the published formats hold beside the encoder."""
        state = self.state_dict()
        names = ("mask_token", "decoder.0.weight", "decoder.0.bias")
        return {"simmim.safetensors": {name: state[name] for name in names}}


def _masked_pixels(mask: Tensor, images: Tensor) -> Tensor:
    """Expand a mask to the pixels of images (B, C, H, W): (B, 1, H, W)."""
    return expand_mask(mask, (images.shape[-2], images.shape[-1])).unsqueeze(1)


def masked_l1(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute error over the masked pixels and channels of the whole batch, in float32.

    Args:
        prediction: (B, C, H, W).
        target: (B, C, H, W).
        mask: Bool (B, rows, columns), True = masked; expanded to pixels.

    Returns:
        Scalar `sum(|target - prediction| * mask) / (sum(mask) + 1e-5) / C`.
    """
    height_px, width_px = target.shape[-2:]
    weights = expand_mask(mask, (height_px, width_px)).unsqueeze(1).float()
    error = (target.float() - prediction.float()).abs()
    return (error * weights).sum() / (weights.sum() + 1e-5) / target.shape[1]

"""SimMIM: predict the raw pixels of masked patches from an encoder that sees mask tokens.

Reference: SimMIM (arXiv:2111.09886); the normalised target is that of Swin Transformer V2's SimMIM
recipe. Equal to the original implementation to rounding, see tests/test_golden.py.
"""

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from ssl_swin.arguments import InnerFraction, OddWindow, Positive, checked
from ssl_swin.data.samples import Augmentation, PixelFormat
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.figure import DifferenceColumn, Figure, ImageColumn
from ssl_swin.masking import expand_mask, mask_grid, num_masked_patches
from ssl_swin.objectives.base import Collate, Normalize, Objective, Output
from ssl_swin.objectives.masked_images import MaskedBatch, MaskedTransform, collate_masked
from ssl_swin.objectives.psnr import MaskedPsnr, deviations

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
                locally (Swin V2 recipe: 47); None predicts the normalised image itself (SimMIM).

        Raises:
            UserError: If the window is even or below 3.
        """
        super().__init__(encoder)
        window_px = normalize_target_window_px
        self.normalize_target_window_px = window_px
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

    def forward(self, batch: MaskedBatch, normalize: Normalize) -> Output:
        """See `Objective.forward`."""
        return Output(self._reconstruct(batch, normalize(batch.pixels)).loss)

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
            if self.normalize_target_window_px is None:
                return images.float()
            return normalize_locally(images.float(), self.normalize_target_window_px)

    def to_image_space(self, prediction: Tensor, images: Tensor) -> Tensor:
        """Bring a prediction from the space of the target back to that of the images.

        A locally normalised target is undone with the statistics of the true image, which a model
        does not know: such figures show structure, and borrow brightness and contrast.

        Args:
            prediction: (B, C, H, W).
            images: Normalised (B, C, H, W).
        """
        if self.normalize_target_window_px is None:
            return prediction.float()
        mean, deviation = local_statistics(images.float(), self.normalize_target_window_px)
        return (prediction.float() * deviation + mean).float()

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
        if self.normalize_target_window_px:
            phrase += f", target normalised over {self.normalize_target_window_px} px"
        return phrase

    def _reconstruct(self, batch: MaskedBatch, images: Tensor) -> Reconstruction:
        planned = () if batch.plan is None else (batch.plan,)
        return self.reconstruct(images, batch.mask, *planned)


class SimMIM(MaskedImageModel):
    """Mask token, encoder, and a one-layer head that predicts pixels.

    The mask token lives here and not in the encoder, so that fine-tuning has no unused parameter.
    """

    title = "SimMIM"
    tags = ("simmim",)

    @checked
    def __init__(
        self,
        encoder: Encoder,
        *,
        mask_ratio: InnerFraction = 0.6,
        mask_patch_size_px: Positive | None = None,
        shared_mask: bool = False,
        normalize_target_window_px: OddWindow | None = None,
    ) -> None:
        """Wrap an encoder; see `MaskedImageModel`."""
        super().__init__(
            encoder,
            mask_ratio=mask_ratio,
            mask_patch_size_px=mask_patch_size_px,
            shared_mask=shared_mask,
            normalize_target_window_px=normalize_target_window_px,
        )
        self.mask_token = nn.Parameter(torch.zeros(1, 1, encoder.embed_dim))
        bound = encoder.init_bound
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-bound, b=bound)
        self.decoder = nn.Sequential(
            nn.Conv2d(encoder.num_features, encoder.stride**2 * encoder.in_chans, kernel_size=1),
            nn.PixelShuffle(encoder.stride),
        )

    def reconstruct(self, images: Tensor, mask: Tensor, plan: Any = None) -> Reconstruction:
        """See `MaskedImageModel.reconstruct`."""
        tokens = self.encoder.embed(images)
        masked = expand_mask(mask, (tokens.shape[1], tokens.shape[2]))
        tokens = torch.where(masked[..., None], self.mask_token.to(tokens.dtype), tokens)
        features = self.encoder.encode(tokens)
        prediction = self.decoder(features)
        return Reconstruction(
            masked_l1(prediction, self.target(images), masked), prediction, features
        )

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


def normalize_locally(images: Tensor, window_px: int) -> Tensor:
    """Standardises each pixel by the mean and deviation of the window around it, per channel.

    Differs from the reference: the image's own mean is subtracted first, and the statistics are
    computed in double precision. Neither changes anything in exact arithmetic; in float32,
    `E[x^2] - E[x]^2` cancels on flat areas, such as the background of a product photograph.

    Args:
        images: float32 or float64 (B, C, H, W).
        window_px: Odd side of the window.

    Returns:
        Same shape and dtype.
    """
    centred = images - images.mean(dim=(-2, -1), keepdim=True)
    mean, deviation = local_statistics(centred, window_px)
    return ((centred - mean) / deviation).to(images.dtype)


def local_statistics(images: Tensor, window_px: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the window around each pixel, per channel.

    Windows at the border use only the pixels inside the image; the variance is unbiased, and 1e-6
    is added to it.

    Args:
        images: float (B, C, H, W).
        window_px: Odd side of the window.

    Returns:
        Mean and deviation in float64 (float32 on Apple's MPS, which has no other), each of the
        images' shape.
    """
    images = images.float() if images.device.type == "mps" else images.double()
    mean = _window_mean(images, window_px)
    variance = _window_mean(images.square(), window_px) - mean.square()
    count = _window_count(images, window_px)
    return mean, ((variance * count / (count - 1)).clamp(min=0) + 1e-6).sqrt()


def _window_mean(images: Tensor, window_px: int) -> Tensor:
    """Mean over the pixels of the window inside the image: down its columns, then along rows."""
    half = window_px // 2
    pool = partial(F.avg_pool2d, stride=1, count_include_pad=False)
    columns = pool(images, (window_px, 1), padding=(half, 0))
    return pool(columns, (1, window_px), padding=(0, half))


def _window_count(images: Tensor, window_px: int) -> Tensor:
    """Number of pixels of the window that lie inside the image, (H, W)."""
    height, width = (_reach(side, window_px, images) for side in images.shape[-2:])
    return height[:, None] * width


def _reach(side_px: int, window_px: int, like: Tensor) -> Tensor:
    at, half = torch.arange(side_px, device=like.device), window_px // 2
    reach = (at + half).clamp(max=side_px - 1) - (at - half).clamp(min=0) + 1
    return reach.to(like.dtype)

"""Sparse SimMIM: the encoder computes visible patches only, and a small decoder predicts the rest.

Not the paper's method: there, mask tokens run through the whole encoder. Here they join its
features in a decoder that mixes both, so that the loss on masked patches reaches every weight of
the encoder; a head on lone mask tokens would teach it nothing. The idea for Swin is that of
GreenMIM (arXiv:2205.13515); grouping, binning and decoder are our own.
"""

from functools import partial

from torch import Tensor

from ssl_swin.arguments import InnerFraction, OddWindow, Positive, checked
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.visible import VisibleEncoder, VisiblePlan
from ssl_swin.encoders.windows.layout import take_rows
from ssl_swin.errors import UserError
from ssl_swin.objectives.base import Collate
from ssl_swin.objectives.cells import (
    check_mask_patch,
    other_cells,
    over_channels,
    patchify,
    unpatchify,
)
from ssl_swin.objectives.masked_images import collate_masked
from ssl_swin.objectives.patch_decoder import PatchDecoder
from ssl_swin.objectives.simmim import MaskedImageModel, Reconstruction


class SparseSimMIM(MaskedImageModel):
    """An encoder of visible patches, and a transformer that predicts the masked ones."""

    title = "sparse SimMIM"
    tags = ("simmim", "sparse")
    encoder: VisibleEncoder

    @checked
    def __init__(
        self,
        encoder: Encoder,
        *,
        mask_ratio: InnerFraction = 0.6,
        mask_patch_size_px: Positive | None = None,
        shared_mask: bool = False,
        decoder_depth: Positive = 1,
        decoder_dim: Positive | None = None,
        decoder_fixed_positions: bool = False,
        normalize_target_window_px: OddWindow | None = None,
        normalize_target_patch_px: Positive | None = None,
    ) -> None:
        """Wrap an encoder.

        Args:
            encoder: The encoder to pretrain, one that can leave patches out: Swin or ViT.
            mask_ratio: See `MaskedImageModel`.
            mask_patch_size_px: See `MaskedImageModel`; a multiple of the encoder's total stride.
            shared_mask: See `MaskedImageModel`.
            decoder_depth: Number of transformer blocks over all patches, at least 1.
            decoder_dim: Width of the blocks, a multiple of 32; None is half the encoder's last
                width, rounded up.
            decoder_fixed_positions: See `PatchDecoder`; learnt ones want long runs.
            normalize_target_window_px: See `MaskedImageModel`.
            normalize_target_patch_px: See `MaskedImageModel`.

        Raises:
            UserError: If the encoder cannot leave patches out, a mask patch cuts tokens of its last
                stage, or the decoder cannot be built.
        """
        super().__init__(
            encoder,
            mask_ratio=mask_ratio,
            mask_patch_size_px=mask_patch_size_px,
            shared_mask=shared_mask,
            normalize_target_window_px=normalize_target_window_px,
            normalize_target_patch_px=normalize_target_patch_px,
        )
        if not isinstance(encoder, VisibleEncoder):
            raise UserError(
                f"objective=simmim_sparse needs an encoder that can leave out masked patches, got "
                f"a {encoder.title}; objective=simmim takes every encoder"
            )
        self._plan = encoder.visible_planner()
        check_mask_patch(self.mask_patch_size_px, encoder.stride, "simmim_sparse")
        self.decoder = PatchDecoder(
            encoder,
            encoder.stride**2 * encoder.in_chans,
            dim=decoder_dim,
            depth=decoder_depth,
            fixed_positions=decoder_fixed_positions,
        )

    def make_collate(self) -> Collate:
        """Plans what is visible of every batch, and for a Swin which tokens share a window."""
        return partial(collate_masked, shared_mask=self.shared_mask, plan=self._plan)

    def undecayed(self) -> frozenset[str]:
        """See `Objective.undecayed`."""
        return frozenset({"decoder.mask_token", "decoder.pos_embed"})

    def reconstruct(
        self, images: Tensor, mask: Tensor, plan: VisiblePlan | None = None
    ) -> Reconstruction:
        """Reconstruct masked images.

        Args:
            images: Normalised (B, C, H, W).
            mask: Bool (B, rows, columns), True = masked, of whole patches of the last map; the same
                number in every image.
            plan: What `encoder.visible_planner()` makes of the mask. Made here if it is not
                given, which on a GPU waits for the mask.

        Returns:
            Loss, prediction and features. The prediction's visible patches are the target's own,
            and the features' masked patches are 0: neither is computed.

        Raises:
            UserError: If the mask does not fit.
        """
        if plan is None:
            plan = self._plan(mask).to(images.device)
        features = self.encoder.encode_visible(images, plan)
        visible = plan.visible.repeat(len(images) // len(plan.visible), 1)
        masked = other_cells(visible, self.encoder.last_grid)
        predicted = self.decoder(features, visible, masked)
        target = self.target(images)
        patches = patchify(target, self.encoder.stride)
        error = (take_rows(patches, masked) - predicted.float()).abs()
        count = masked.numel() * self.encoder.stride**2  # as in `masked_l1`
        loss = error.sum() / (count + 1e-5) / self.encoder.in_chans
        completed = patches.scatter(1, over_channels(masked, patches), predicted.detach().float())
        return Reconstruction(
            loss,
            unpatchify(completed, self.encoder.last_grid, self.encoder.in_chans),
            self._map(features, visible),
        )

    def _map(self, features: Tensor, visible: Tensor) -> Tensor:
        rows, columns = self.encoder.last_grid
        empty = features.new_zeros(len(features), rows * columns, features.shape[-1])
        full = empty.scatter(1, over_channels(visible, features), features)
        return full.transpose(1, 2).reshape(len(features), -1, rows, columns)

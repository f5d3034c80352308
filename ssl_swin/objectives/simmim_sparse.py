"""Sparse SimMIM: the encoder computes visible patches only, and a small decoder predicts the rest.

Not the paper's method: there, mask tokens run through the whole encoder. Here they join its
features in a decoder that mixes both, so that the loss on masked patches reaches every weight of
the encoder; a head on lone mask tokens would teach it nothing. The idea for Swin is that of
GreenMIM (arXiv:2205.13515); grouping, binning and decoder are our own.
"""

from functools import partial

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ssl_swin.arguments import InnerFraction, OddWindow, Positive, checked
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.visible import VisibleEncoder, VisiblePlan
from ssl_swin.encoders.windows.layout import take_rows
from ssl_swin.errors import UserError
from ssl_swin.objectives.base import Collate
from ssl_swin.objectives.masked_images import collate_masked
from ssl_swin.objectives.simmim import MaskedImageModel, Reconstruction

_HEAD_DIM = 32  # of the decoder's attention, as in Swin


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
        _check_mask_patch(self.mask_patch_size_px, encoder.stride)
        half = -(-encoder.num_features // (2 * _HEAD_DIM)) * _HEAD_DIM
        dim = half if decoder_dim is None else decoder_dim
        if dim % _HEAD_DIM:
            raise UserError(f"decoder_dim must be a multiple of {_HEAD_DIM}, got {dim}")
        rows, columns = encoder.last_grid
        patch_values = encoder.stride**2 * encoder.in_chans
        self.decoder = PatchDecoder(
            encoder.num_features, rows * columns, patch_values, dim=dim, depth=decoder_depth
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
        masked = _others(visible, self.encoder.last_grid)
        predicted = self.decoder(features, visible, masked)
        target = self.target(images)
        patches = self._patchify(target)
        error = (take_rows(patches, masked) - predicted.float()).abs()
        count = masked.numel() * self.encoder.stride**2  # as in `masked_l1`
        loss = error.sum() / (count + 1e-5) / self.encoder.in_chans
        completed = patches.scatter(1, _wide(masked, patches), predicted.detach().float())
        return Reconstruction(loss, self._unpatchify(completed), self._map(features, visible))

    def _patchify(self, images: Tensor) -> Tensor:
        """Cuts (B, C, H, W) into the values of its patches, (B, N, stride * stride * C)."""
        side, (rows, columns) = self.encoder.stride, self.encoder.last_grid
        patches = images.reshape(len(images), -1, rows, side, columns, side)
        return patches.permute(0, 2, 4, 3, 5, 1).reshape(len(images), rows * columns, -1)

    def _unpatchify(self, patches: Tensor) -> Tensor:
        """Undo `_patchify`."""
        side, (rows, columns) = self.encoder.stride, self.encoder.last_grid
        pixels = patches.view(len(patches), rows, columns, side, side, -1)
        height_px, width_px = rows * side, columns * side
        return pixels.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, height_px, width_px)

    def _map(self, features: Tensor, visible: Tensor) -> Tensor:
        rows, columns = self.encoder.last_grid
        empty = features.new_zeros(len(features), rows * columns, features.shape[-1])
        full = empty.scatter(1, _wide(visible, features), features)
        return full.transpose(1, 2).reshape(len(features), -1, rows, columns)


class PatchDecoder(nn.Module):
    """A transformer over all patches of an image, visible or not, and a head on the masked ones."""

    def __init__(
        self, num_features: int, num_patches: int, patch_values: int, *, dim: int, depth: int
    ) -> None:
        """Builds the decoder.

        Args:
            num_features: Width of the encoder's features.
            num_patches: Number of patches of an image.
            patch_values: Pixel values of a patch.
            dim: Width of the blocks.
            depth: Number of blocks.
        """
        super().__init__()
        self.embed = nn.Linear(num_features, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, num_patches, dim))
        self.blocks = nn.ModuleList(
            Block(dim, dim // _HEAD_DIM, qkv_bias=True) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, patch_values)
        for parameter in (self.mask_token, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, features: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Predicts masked patches.

        Args:
            features: (B, V, num_features).
            visible: Patches that they belong to, int64 (B, V).
            masked: Patches to predict, int64 (B, M).

        Returns:
            Values (B, M, patch_values).
        """
        shown = self.embed(features)
        tokens = self.mask_token.to(shown.dtype).expand(len(shown), self.pos_embed.shape[1], -1)
        tokens = tokens.scatter(1, _wide(visible, shown), shown) + self.pos_embed
        for block in self.blocks:
            # On a CPU torch's fused attention takes half as long again for so few tokens.
            block.attn.fused_attn = tokens.device.type != "cpu"  # type: ignore[union-attr]
            tokens = block(tokens)
        predicted: Tensor = self.head(self.norm(take_rows(tokens, masked)))
        return predicted


def _check_mask_patch(size_px: int, stride: int) -> None:
    if size_px % stride:
        raise UserError(
            f"objective.mask_patch_size_px={size_px} does not fit objective=simmim_sparse: a mask "
            "patch must be as large as the encoder's total stride, or a multiple of it: "
            f"{stride}, {2 * stride}, ... px"
        )


def _others(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Returns the patches of each row that are not in `patches`, int64 (B, N - V), ascending."""
    listed = torch.zeros(len(patches), grid[0] * grid[1], dtype=torch.uint8, device=patches.device)
    order = listed.scatter(1, patches, 1).argsort(dim=1, stable=True)
    return order[:, : order.shape[1] - patches.shape[1]]


def _wide(index: Tensor, tokens: Tensor) -> Tensor:
    return index[..., None].expand(-1, -1, tokens.shape[-1])

"""A Swin Transformer with positions at its input: the original's option of an absolute embedding.

A Swin knows offsets within its windows alone, by tables that start at nearly nothing. Here each
patch token also gets sines and cosines of its row and column, which no step changes. Importing this
module lets timm know the architecture `swin_ape_tiny_patch4_window7_224`, of which every encoder
here is a variation; timm itself has none.
"""

from collections.abc import Mapping
from math import isqrt
from typing import Any, Self

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import generate_default_cfgs, register_model
from timm.models._builder import build_model_with_cfg
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from ssl_swin.arguments import NotEmpty, Positive, RateBelow1, SizePx, checked
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.positions import resized_positions, sine_cosine
from ssl_swin.encoders.sizes import Size
from ssl_swin.encoders.swin import SwinEncoder, stage_depths, swin_args, swin_settings
from ssl_swin.errors import UserError

ARCHITECTURE = "swin_ape_tiny_patch4_window7_224"
POSITIONS = "absolute_pos_embed"  # (1, patches, embed_dim), the original's name
_BLOCK = "layers.{s}.blocks.{b}"
_TABLE = "attn.relative_position_bias_table"

default_cfgs = generate_default_cfgs(  # what timm says of an architecture; no weights
    {
        ARCHITECTURE: {
            "url": "",
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "fixed_input_size": True,
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "first_conv": "patch_embed.proj",
            "classifier": "head.fc",
        }
    }
)


class SwinApe(SwinTransformer):
    """timm's Swin Transformer, which adds positions to its patch tokens."""

    def __init__(self, *, embed_dim: int = 96, **swin: Any) -> None:
        """Builds the model with random weights.

        Args:
            embed_dim: Width of the first stage, a multiple of 4.
            **swin: Further arguments of timm's Swin Transformer.
        """
        super().__init__(embed_dim=embed_dim, **swin)
        patches: Any = self.patch_embed
        rows, columns = patches.grid_size
        positions = sine_cosine(rows, columns, embed_dim)[None]
        self.absolute_pos_embed = nn.Parameter(positions, requires_grad=False)

    def forward_features(self, x: Tensor) -> Tensor:
        """As timm's, with positions."""
        tokens = self.patch_embed(x)
        tokens = tokens + self.absolute_pos_embed.view(1, *tokens.shape[1:])
        features: Tensor = self.norm(self.layers(tokens))
        return features


@register_model
def swin_ape_tiny_patch4_window7_224(pretrained: bool = False, **kwargs: Any) -> SwinApe:
    """Builds Swin-T with positions, for timm; arguments make it another."""
    published = {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)}
    model: SwinApe = build_model_with_cfg(
        SwinApe, ARCHITECTURE, pretrained, **{**published, **kwargs}
    )
    return model


class SwinApeEncoder(SwinEncoder):
    """A Swin with positions at its input; `Encoder` lists the attributes."""

    architectures = (ARCHITECTURE,)
    timm_names = ()
    timm_import = "ssl_swin.encoders.swin_ape"
    landmark = POSITIONS
    positions = (POSITIONS, 0)
    state_patterns = (
        POSITIONS,
        "patch_embed.proj.{p}",
        "patch_embed.norm.{p}",
        f"{_BLOCK}.norm1.{{p}}",
        f"{_BLOCK}.attn.qkv.{{p}}",
        f"{_BLOCK}.attn.proj.{{p}}",
        f"{_BLOCK}.{_TABLE}",
        f"{_BLOCK}.norm2.{{p}}",
        f"{_BLOCK}.mlp.fc1.{{p}}",
        f"{_BLOCK}.mlp.fc2.{{p}}",
        "layers.{s+1}.downsample.reduction.weight",
        "layers.{s+1}.downsample.norm.{p}",
        "norm.{p}",
    )
    title = "Swin with positions"

    def __init__(self, model: SwinApe, *, model_args: dict[str, Any]) -> None:
        super().__init__(model, version=1, model_args=model_args)
        self.title, self.architecture = type(self).title, ARCHITECTURE

    @property
    def kind(self) -> str:
        """See `Encoder.kind`."""
        return self.title

    def with_positions(self, tokens: Tensor, chosen: Tensor | None = None) -> Tensor:
        """See `SwinEncoder.with_positions`; of another size, positions are resized as timm does."""
        positions: Tensor = self.model.absolute_pos_embed[0]
        if chosen is not None:
            return tokens + positions[chosen]
        grid, size = self.model.patch_embed.grid_size, tokens.shape[1:3]
        resized = resized_positions(positions[None], tuple(grid), (size[0], size[1]))
        return tokens + resized.view(1, *tokens.shape[1:])

    @classmethod
    def rebuild(cls, architecture: str, model_args: Mapping[str, Any], **training: Any) -> Self:
        """See `Encoder.rebuild`."""
        encoder = swin_ape(**swin_settings(model_args), **training)
        assert isinstance(encoder, cls)
        return encoder

    @classmethod
    def of_timm(cls, model: Any) -> Encoder | None:
        """See `Encoder.of_timm`."""
        if not isinstance(model, SwinApe):
            return None
        patches: Any = model.patch_embed
        return cls.of_tensors(model.state_dict(), tuple(patches.img_size), None)

    @classmethod
    def of_tensors(
        cls, state: Mapping[str, Tensor], img_size_px: Size | None, window_size: int | None
    ) -> Encoder:
        """See `Encoder.of_tensors`; the positions tell the size, and the tables the window.

        Raises:
            UserError: If the positions are not those of the image size, or of a square where
                nothing tells it, or the tables are not those of the window.
        """
        depths = stage_depths(state, _TABLE)
        tables = [state[f"layers.{stage}.blocks.0.{_TABLE}"] for stage in range(len(depths))]
        embed_dim, in_chans, patch_size_px, _ = state["patch_embed.proj.weight"].shape
        window = (isqrt(max(len(table) for table in tables)) + 1) // 2
        if window_size not in (None, window):
            raise UserError(f"window_size={window_size}, and its tables are for {window} tokens")
        number = state[POSITIONS].shape[1]
        size = img_size_px or (isqrt(number) * patch_size_px,) * 2
        if (size[0] // patch_size_px) * (size[1] // patch_size_px) != number:
            raise UserError(
                f"{POSITIONS} has {number} patches, and an image of {size[0]}x{size[1]} px has "
                f"{size[0] // patch_size_px}x{size[1] // patch_size_px}: give its own size"
            )
        return swin_ape(
            img_size_px=size,
            patch_size_px=patch_size_px,
            in_chans=in_chans,
            window_size=window,
            embed_dim=embed_dim,
            depths=depths,
            num_heads=[table.shape[1] for table in tables],
        )


@checked
def swin_ape(
    *,
    img_size_px: SizePx,
    window_size: Positive,
    embed_dim: Positive,
    depths: NotEmpty,
    num_heads: NotEmpty,
    patch_size_px: Positive = 4,
    in_chans: Positive = 3,
    drop_path_rate: RateBelow1 = 0.0,
    grad_checkpointing: bool = False,
) -> SwinApeEncoder:
    """Builds a Swin Transformer V1 with fixed positions at its input, and random weights.

    Args:
        img_size_px: Side of the square input, or (height, width).
        window_size: Attention window in tokens; stages with a smaller map use the whole map.
        embed_dim: Width of the first stage, a multiple of 4; it doubles from stage to stage.
        depths: Blocks per stage.
        num_heads: Attention heads per stage.
        patch_size_px: Side of one patch.
        in_chans: Image channels, any number.
        drop_path_rate: Drop path rate of the last block; rises linearly from 0 over the blocks.
        grad_checkpointing: Recompute each block in the backward pass: less memory, a third slower.

    Raises:
        UserError: If the sizes do not divide, naming those that would, the stages are not as many
            as their heads, or the width is no multiple of 4.
    """
    model_args = swin_args(
        img_size_px,
        patch_size_px=patch_size_px,
        in_chans=in_chans,
        window_size=window_size,
        embed_dim=embed_dim,
        depths=depths,
        num_heads=num_heads,
    )
    if embed_dim % 4:
        raise UserError(
            "model.embed_dim must be a multiple of 4, for the sine and cosine of row and column; "
            f"got {embed_dim}"
        )
    model = SwinApe(num_classes=0, drop_path_rate=drop_path_rate, **model_args)
    if grad_checkpointing:
        model.set_grad_checkpointing()
    return SwinApeEncoder(model, model_args=model_args)

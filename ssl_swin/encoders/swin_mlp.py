"""Swin-MLP as an encoder: a Swin whose windows are mixed by fixed matrices instead of attention.

Importing this module lets timm know the architecture `swin_mlp_tiny_c24`, of which every encoder
here is a variation; timm itself has none. The matrices are for one window, so that the window of no
stage may change with the image.
"""

from collections.abc import Callable, Mapping, Sequence
from math import isqrt
from typing import Any, Self

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import generate_default_cfgs, register_model
from timm.models._builder import build_model_with_cfg
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor

from ssl_swin.arguments import NotEmpty, Positive, RateBelow1, SizePx, checked
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.sizes import Size, check_sizes, stage_window_sizes
from ssl_swin.encoders.swin import SwinEncoder, stage_depths, swin_args, swin_settings
from ssl_swin.encoders.visible import VisiblePlan
from ssl_swin.encoders.windows.spatial_mlp import SpatialMlpBlock
from ssl_swin.errors import UserError

ARCHITECTURE = "swin_mlp_tiny_c24"
_BLOCK = "layers.{s}.blocks.{b}"
_MATRIX = "spatial_mlp.weight"  # (heads * area of a window, area, 1)


default_cfgs = generate_default_cfgs(  # what timm says of an architecture; no weights
    {
        ARCHITECTURE: {
            "url": "",
            "num_classes": 1000,
            "input_size": (3, 256, 256),
            "fixed_input_size": True,
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "first_conv": "patch_embed.proj",
            "classifier": "head.fc",
        }
    }
)


class SwinMlp(SwinTransformer):
    """timm's Swin Transformer with the blocks of Swin-MLP."""

    def __init__(self, *, num_heads: Sequence[int] = (4, 8, 16, 32), **swin: Any) -> None:
        """Builds the model with random weights.

        Args:
            num_heads: Matrices per window, by stage.
            **swin: Further arguments of timm's Swin Transformer.
        """
        super().__init__(num_heads=tuple(num_heads), **swin)
        stages: Any = self.layers
        for stage, heads in zip(stages, num_heads, strict=True):
            for index, block in enumerate(stage.blocks):
                stage.blocks[index] = SpatialMlpBlock.like(block, heads)


@register_model
def swin_mlp_tiny_c24(pretrained: bool = False, **kwargs: Any) -> SwinMlp:
    """Builds Swin-MLP-T with 24 channels a head, for timm; arguments make it another."""
    published = {"img_size": 256, "window_size": 8, "embed_dim": 96, "depths": (2, 2, 6, 2)}
    model: SwinMlp = build_model_with_cfg(
        SwinMlp, ARCHITECTURE, pretrained, **{**published, **kwargs}
    )
    return model


class SwinMlpEncoder(SwinEncoder):
    """A Swin-MLP; `Encoder` lists the attributes."""

    architectures = (ARCHITECTURE,)
    timm_names = ()
    timm_import = "ssl_swin.encoders.swin_mlp"
    landmark = f"layers.0.blocks.0.{_MATRIX}"
    state_patterns = (
        "patch_embed.proj.{p}",
        "patch_embed.norm.{p}",
        f"{_BLOCK}.norm1.{{p}}",
        f"{_BLOCK}.spatial_mlp.{{p}}",
        f"{_BLOCK}.norm2.{{p}}",
        f"{_BLOCK}.mlp.fc1.{{p}}",
        f"{_BLOCK}.mlp.fc2.{{p}}",
        "layers.{s+1}.downsample.reduction.weight",
        "layers.{s+1}.downsample.norm.{p}",
        "norm.{p}",
    )
    title = "Swin-MLP"
    takes_any_size = False

    def __init__(self, model: SwinMlp, *, model_args: dict[str, Any]) -> None:
        super().__init__(model, version=1, model_args=model_args)
        self.title, self.architecture = type(self).title, ARCHITECTURE

    @property
    def kind(self) -> str:
        """See `Encoder.kind`."""
        return self.title

    def embed(self, images: Tensor, *, any_size: bool = False) -> Tensor:
        """See `SwinEncoder.embed`.

        Raises:
            UserError: If the images are not of the encoder's size, which cannot be any.
        """
        if any_size:
            raise UserError(f"a {self.title} takes images of one size alone: {_FIXED}")
        return super().embed(images)

    def visible_planner(self) -> Callable[[Tensor], Any]:
        """Refuses: a window of which a part is missing has no matrix.

        Raises:
            UserError: Always.
        """
        raise UserError(
            f"a {self.title} cannot leave out patches, since its matrices are for whole windows; "
            "objective=simmim takes it, as does every objective that is not sparse"
        )

    def encode_visible(self, images: Tensor, plan: VisiblePlan) -> Tensor:
        """Refuses, as `visible_planner`."""
        self.visible_planner()
        raise AssertionError

    def resized_args(self, size: Size, window_size: int | None) -> dict[str, Any]:
        """See `Encoder.resized_args`.

        Raises:
            UserError: If a stage would have another window, naming image sides that keep it.
        """
        own = self.model_args["window_size"]
        if window_size not in (None, own):
            raise UserError(f"window_size={window_size} is not the {self.title}'s {own}: {_FIXED}")
        check_sizes(size, self.patch_size_px, own, num_stages=len(self.depths))
        if self._windows(size) != self._windows(self.img_size_px):
            raise UserError(
                f"at {size[0]}x{size[1]} px the {self.title}'s windows would not be those of "
                f"{self.img_size_px[0]}x{self.img_size_px[1]} px: {_FIXED}; sides that keep them: "
                f"{', '.join(map(str, self._fitting_sides()))} px"
            )
        return {**self.model_args, "img_size": size}

    def _windows(self, size: Size) -> tuple[Any, ...]:
        window, stages = self.model_args["window_size"], len(self.depths)
        return stage_window_sizes(size, self.patch_size_px, window, num_stages=stages)

    def _fitting_sides(self) -> list[int]:
        smallest = self.patch_size_px * self.model_args["window_size"] * 2 ** (len(self.depths) - 1)
        if self._windows((smallest, smallest)) == self._windows(self.img_size_px):
            return [smallest * times for times in (1, 2, 3)]
        return sorted(set(self.img_size_px))

    @classmethod
    def rebuild(cls, architecture: str, model_args: Mapping[str, Any], **training: Any) -> Self:
        """See `Encoder.rebuild`."""
        encoder = swin_mlp(**swin_settings(model_args), **training)
        assert isinstance(encoder, cls)
        return encoder

    @classmethod
    def of_timm(cls, model: Any) -> Encoder | None:
        """See `Encoder.of_timm`."""
        if not isinstance(model, SwinMlp):
            return None
        patches: Any = model.patch_embed
        return cls.of_tensors(model.state_dict(), tuple(patches.img_size), None)

    @classmethod
    def of_tensors(
        cls, state: Mapping[str, Tensor], img_size_px: Size | None, window_size: int | None
    ) -> Encoder:
        """See `Encoder.of_tensors`; the matrices tell the window.

        Where nothing tells the image size, it is the smallest at which no stage's window shrinks,
        as in all published models.
        """
        depths = stage_depths(state, _MATRIX)
        matrices = [state[f"layers.{stage}.blocks.0.{_MATRIX}"] for stage in range(len(depths))]
        embed_dim, in_chans, patch_size_px, _ = state["patch_embed.proj.weight"].shape
        window = isqrt(max(matrix.shape[1] for matrix in matrices))
        if window_size not in (None, window):
            raise UserError(f"window_size={window_size}, and its matrices are for {window} tokens")
        usual_px = window * patch_size_px * 2 ** (len(depths) - 1)
        return swin_mlp(
            img_size_px=img_size_px or usual_px,
            patch_size_px=patch_size_px,
            in_chans=in_chans,
            window_size=window,
            embed_dim=embed_dim,
            depths=depths,
            num_heads=[len(matrix) // matrix.shape[1] for matrix in matrices],
        )


_FIXED = "its matrices are for the windows that it was trained with"


@checked
def swin_mlp(
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
) -> SwinMlpEncoder:
    """Builds a Swin-MLP encoder with random weights.

    Args:
        img_size_px: Side of the square input, or (height, width).
        window_size: Window in tokens; stages with a smaller map use the whole map.
        embed_dim: Width of the first stage; it doubles from stage to stage.
        depths: Blocks per stage.
        num_heads: Matrices per stage, which share its channels.
        patch_size_px: Side of one patch.
        in_chans: Image channels, any number.
        drop_path_rate: Drop path rate of the last block; rises linearly from 0 over the blocks.
        grad_checkpointing: Recompute each block in the backward pass: less memory, a third slower.

    Raises:
        UserError: If the sizes do not divide, naming those that would, or the stages are not as
            many as their heads.
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
    model = SwinMlp(num_classes=0, drop_path_rate=drop_path_rate, **model_args)
    if grad_checkpointing:
        model.set_grad_checkpointing()
    return SwinMlpEncoder(model, model_args=model_args)

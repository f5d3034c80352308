"""Swin Transformers V1 and V2 as encoders: timm's modules behind the common face.

timm's modules equal the original's to the bit after a renaming of keys, so they own the weights and
are not copied; `ssl_swin.encoders.windows` says how they are computed. Patch tokens are NHWC,
feature maps NCHW.
"""

import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self

import torch
from annotated_types import Ge, Le
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor

from ssl_swin.arguments import NotEmpty, Positive, RateBelow1, SizePx, checked
from ssl_swin.encoders.kernels import Kernels
from ssl_swin.encoders.sizes import (
    Size,
    Window,
    as_size,
    check_sizes,
    stage_window_sizes,
    window_for_size,
)
from ssl_swin.encoders.visible import VisibleEncoder, VisiblePlan
from ssl_swin.encoders.windows.adopt import adopt
from ssl_swin.encoders.windows.blocks import WindowBlock
from ssl_swin.encoders.windows.dense import DenseLayouts, dense_layouts
from ssl_swin.encoders.windows.visible import Binning, VisibleWindows
from ssl_swin.errors import UserError

# The timm architecture that each version is a variation of; the hand-off writes this name.
TIMM_ARCHITECTURES = {1: "swin_tiny_patch4_window7_224", 2: "swinv2_tiny_window8_256"}

_MOST_LAYOUTS = 32  # map sizes whose layouts are kept; a detector's images have many


class SwinEncoder(VisibleEncoder):
    """A Swin Transformer; `Encoder` lists the attributes, and `version` is 1 or 2."""

    family = "swin"
    architectures = tuple(TIMM_ARCHITECTURES.values())
    head_prefix = "head.fc"
    timm_names: ClassVar[tuple[str, ...]] = ("swin_*_patch4_window*", "swinv2_*_window*")
    required_args = frozenset({"img_size", "patch_size", "in_chans", "embed_dim", "num_heads"})
    undecayed = r"(pos_embed|cls_token|relative_position_bias_table|logit_scale|cpb_mlp\..*)$"
    # In pretraining, the original's keywords carry a prefix, `encoder.`, that never occurs inside
    # the names they are matched against.
    decayed_by_accident: ClassVar[Mapping[str, str]] = {
        "pretraining": r"(relative_position_bias_table|logit_scale|cpb_mlp\.\d\.weight)$"
    }
    takes_any_size = True
    init_bound = 2.0  # a hundred deviations: none is ever cut off
    head_init_scale = 1.0

    def __init__(self, model: Any, *, version: int, model_args: dict[str, Any]) -> None:
        super().__init__()
        adopt(model)
        self.model = model
        self.version = version
        self.title = f"Swin Transformer V{version}"
        self.architecture = TIMM_ARCHITECTURES[version]
        self.model_args = model_args
        self.depths: tuple[int, ...] = tuple(model_args["depths"])
        self.in_chans: int = model_args["in_chans"]
        self.img_size_px: Size = tuple(model.patch_embed.img_size)
        self.patch_size_px: int = model.patch_embed.patch_size[0]
        self.stage_dims: tuple[int, ...] = tuple(info["num_chs"] for info in model.feature_info)
        self.stride: int = model.feature_info[-1]["reduction"]
        self.mask_patch_size_px = self.stride
        self.embed_dim: int = self.stage_dims[0]
        self.num_features: int = self.stage_dims[-1]
        self._is_compiled = False
        self._bin_multiple = 1
        self._recurring: set[Size] = set()  # of patch tokens, where images have any size
        self._layouts: OrderedDict[tuple[Size, bool, torch.device], DenseLayouts] = OrderedDict()

    def embed(self, images: Tensor, *, any_size: bool = False) -> Tensor:
        """Turns normalised images into patch tokens.

        Args:
            images: Normalised (B, C, H, W).
            any_size: Take images of other sizes than `img_size_px`; see `stages`.

        Returns:
            (B, H/p, W/p, embed_dim), sides rounded up.

        Raises:
            UserError: If the images are not those that the encoder takes.
        """
        tokens: Tensor = self.model.patch_embed(images, any_size=any_size)
        return tokens

    def encode(self, tokens: Tensor, *, any_size: bool = False) -> Tensor:
        """Runs all stages on patch tokens.

        Args:
            tokens: What `embed` returned, (B, H/p, W/p, embed_dim).
            any_size: As for `embed`.

        Returns:
            The last map, (B, num_features, H/stride, W/stride), after the final norm.
        """
        layouts = self._dense_layouts(tokens, any_size=any_size)
        *_, last = self._stage_tokens(tokens, layouts)
        return _to_map(self.model.norm(last), layouts, len(self.depths) - 1)

    def forward(self, images: Tensor, *, any_size: bool = False) -> Tensor:
        """Encodes images (B, C, H, W) into the last map (B, num_features, H/stride, W/stride).

        Args:
            images: Normalised (B, C, H, W).
            any_size: Take images of other sizes than `img_size_px`; see `stages`.
        """
        return self.encode(self.embed(images, any_size=any_size), any_size=any_size)

    def forward_any_size(self, images: Tensor) -> Tensor:
        """See `Encoder.forward_any_size`; by the rule of `stages`."""
        return self.forward(images, any_size=True)

    def maps_any_size(self, images: Tensor) -> list[Tensor]:
        """See `Encoder.maps_any_size`; by the rule of `stages`, sides rounded up."""
        return self.stages(images, any_size=True, final_norm=False)

    def stages(
        self, images: Tensor, *, any_size: bool = False, final_norm: bool = True
    ) -> list[Tensor]:
        """Encodes images into the map of every stage.

        Args:
            images: Normalised (B, C, H, W).
            any_size: Take images of any size, by the rule of the original's segmentation and
                detection code (see `ssl_swin.encoders.windows.dense`): zeros fill up images and
                maps, and windows keep the size that their position bias is for. At `img_size_px` it
                differs from the default only in stages that one window holds: they shift.
            final_norm: Whether the last map is normed. Dense tasks norm every map by themselves.

        Returns:
            Maps (B, C_i, H_i, W_i); sides are H/p and W/p, then half of it, always rounded up.

        Raises:
            UserError: If the images are not those that the encoder takes.
        """
        tokens = self.embed(images, any_size=any_size)
        layouts = self._dense_layouts(tokens, any_size=any_size)
        outputs = list(self._stage_tokens(tokens, layouts))
        if final_norm:
            outputs[-1] = self.model.norm(outputs[-1])
        return [_to_map(output, layouts, stage) for stage, output in enumerate(outputs)]

    @cached_property
    def windows(self) -> VisibleWindows:
        """Bins masks for `encode_visible`, and can be sent to the processes that load data."""
        with torch.inference_mode(False):
            windows = VisibleWindows(self.model)
        windows.bin_multiple = self._bin_multiple
        return windows

    @property
    def kind(self) -> str:
        """See `Encoder.kind`."""
        return f"Swin V{self.version}"

    @property
    def last_grid(self) -> tuple[int, int]:
        """See `VisibleEncoder.last_grid`."""
        return self.windows.grid

    def visible_planner(self) -> Callable[[Tensor], Binning]:
        """See `VisibleEncoder.visible_planner`."""
        return self.windows.bin_visible

    def encode_visible(self, images: Tensor, plan: VisiblePlan) -> Tensor:
        """Encodes visible super-patches alone: nothing of the others is computed, or seen.

        Equal to the dense encoder with every masked token excluded as a key.

        Args:
            images: Normalised (B, C, H, W).
            plan: What `windows.bin_visible` made of the batch's mask, on the images' device.

        Returns:
            Features (B, V, num_features), in the order of `plan.visible`.

        Raises:
            UserError: If the images are not of the encoder's size.
        """
        assert isinstance(plan, Binning)
        patches, layouts = self.windows.layouts(plan)
        chosen = patches.repeat(len(images) // len(patches), 1)
        tokens = self.with_positions(self.model.patch_embed(images, chosen), chosen)
        for stage, layout in zip(self.model.layers, layouts, strict=True):
            tokens = stage(tokens, layout)
        features: Tensor = self.model.norm(tokens)
        return features

    def with_positions(self, tokens: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Adds to patch tokens what tells their place, where a variant has that; a Swin has not.

        Args:
            tokens: NHWC, or (B, N, embed_dim) of chosen patches.
            chosen: Raster indices of patches, int64 (B, N).
        """
        return tokens

    def blocks(self) -> list[WindowBlock]:
        """Return the blocks of all stages."""
        return [module for module in self.modules() if isinstance(module, WindowBlock)]

    def compile_blocks(self, *any_sizes: Size) -> None:
        """Has training's blocks compiled (`torch.compile`), at the first step with each shape.

        No parameter changes its name, and no weight its value. Images of any size are compiled for
        where they are of the sizes that are named.

        Args:
            any_sizes: See `Encoder.compile_blocks`.
        """
        self._is_compiled = True
        patch_px = self.patch_size_px
        self._recurring = {(-(-high // patch_px), -(-wide // patch_px)) for high, wide in any_sizes}
        self._layouts.clear()
        for block in self.blocks():
            block.is_compiled = True

    def use_kernels(self, kernels: Kernels) -> None:
        """See `HasKernels.use_kernels`; comes before loaders start, to which planners go."""
        super().use_kernels(kernels)
        self._bin_multiple = kernels.bin_multiple
        if "windows" in self.__dict__:  # a planner has been made
            self.windows.bin_multiple = self._bin_multiple
        for block in self.blocks():
            block.compile_mode = kernels.compile_mode

    def _stage_tokens(self, tokens: Tensor, layouts: DenseLayouts) -> Iterator[Tensor]:
        """Yields the tokens after each stage in its own order."""
        tokens = layouts.orders[0].apply(self.with_positions(tokens).flatten(1, 2))
        for stage, layout in zip(self.model.layers, layouts.stages, strict=True):
            tokens = stage(tokens, layout)
            yield tokens

    def _dense_layouts(self, tokens: Tensor, *, any_size: bool) -> DenseLayouts:
        """Returns the layouts for patch tokens (B, H/p, W/p, embed_dim), the latest of them kept.

        Raises:
            UserError: If the tokens are not of the encoder's size, and that was not asked for.
        """
        size, own = (tokens.shape[1], tokens.shape[2]), tuple(self.model.patch_embed.grid_size)
        if not any_size and size != own:
            raise UserError(
                f"the encoder takes {own[0]}x{own[1]} patch tokens, got {size[0]}x{size[1]}"
            )
        key = size, any_size, tokens.device
        if key not in self._layouts:
            with torch.inference_mode(False):  # they outlive this pass, and training uses them
                layouts = dense_layouts(
                    self.model,
                    size,
                    tokens.device,
                    any_size=any_size,
                    is_recurring=not any_size or size in self._recurring,
                )
            self._layouts[key] = layouts
            if len(self._layouts) > _MOST_LAYOUTS:
                self._layouts.popitem(last=False)
        self._layouts.move_to_end(key)
        return self._layouts[key]

    def pool(self, features: Tensor) -> Tensor:
        """Averages the last map (B, num_features, h, w) over space."""
        return features.mean(dim=(2, 3))

    @classmethod
    def rebuild(cls, architecture: str, model_args: Mapping[str, Any], **training: Any) -> Self:
        """See `Encoder.rebuild`."""
        versions = {name: version for version, name in TIMM_ARCHITECTURES.items()}
        encoder = swin(
            version=versions[architecture],
            **swin_settings(model_args),
            pretrained_window_sizes=model_args.get("pretrained_window_sizes"),
            **training,
        )
        assert isinstance(encoder, cls)
        return encoder

    def layer_id(self, name: str) -> int:
        """See `swin_layer_id`."""
        return swin_layer_id(name, self.depths)

    def bias_windows(self) -> tuple[Window, ...]:
        """Return the attention window of each stage."""
        return stage_window_sizes(
            self.img_size_px,
            self.patch_size_px,
            self.model_args["window_size"],
            num_stages=len(self.depths),
        )

    def resized_args(self, size: Size, window_size: int | None) -> dict[str, Any]:
        """See `Encoder.resized_args`; the window is chosen as in `window_for_size`."""
        if window_size is None:
            window_size = self.model_args["window_size"]
            if size != self.img_size_px:
                window_size = window_for_size(
                    size,
                    trained_size=self.img_size_px,
                    trained_window=window_size,
                    patch_size_px=self.patch_size_px,
                    num_stages=len(self.depths),
                )
        return {**self.model_args, "img_size": size, "window_size": window_size}

    def describe(self) -> str:
        """See `Encoder.describe`."""
        return (
            f"width {self.embed_dim}, depths {self.depths}, window "
            f"{self.model_args['window_size']}, patch {self.patch_size_px} px"
        )


def swin_layer_id(name: str, depths: Sequence[int]) -> int:
    """Number the layers of a Swin for layer-wise learning rates, as the original does.

    The patch embedding is 0, blocks count from 1 through all stages, and the final norm and the
    head come last. A patch merging belongs to the last block before it; timm's own table, which
    keeps the merging in the stage that follows, puts it with the first block after.

    Args:
        name: Dotted timm name of the parameter, with any prefix.
        depths: Number of blocks of each stage.
    """
    if "patch_embed." in name or name.endswith("mask_token"):
        return 0
    if match := re.search(r"layers\.(\d+)\.blocks\.(\d+)\.", name):
        stage, block = map(int, match.groups())
        return sum(depths[:stage]) + block + 1
    if match := re.search(r"layers\.(\d+)\.downsample\.", name):
        return sum(depths[: int(match.group(1))])
    return sum(depths) + 1


def _to_map(tokens: Tensor, layouts: DenseLayouts, stage: int) -> Tensor:
    """Returns a stage's tokens (B, N, C) as its map (B, C, H, W)."""
    raster = layouts.orders[stage].undo(tokens)
    return raster.transpose(1, 2).contiguous().view(len(raster), -1, *layouts.sizes[stage])


@checked
def swin(
    *,
    version: Annotated[int, Ge(1), Le(2)],
    img_size_px: SizePx,
    window_size: Positive,
    embed_dim: Positive,
    depths: NotEmpty,
    num_heads: NotEmpty,
    patch_size_px: Positive = 4,
    in_chans: Positive = 3,
    drop_path_rate: RateBelow1 = 0.0,
    pretrained_window_sizes: Sequence[Window] | None = None,
    grad_checkpointing: bool = False,
) -> SwinEncoder:
    """Builds a Swin Transformer encoder with random weights.

    Args:
        version: 1 (arXiv:2103.14030) or 2 (arXiv:2111.09883).
        img_size_px: Side of the square input, or (height, width).
        window_size: Attention window in tokens; stages with a smaller map use the whole map.
        embed_dim: Width of the first stage; it doubles from stage to stage.
        depths: Blocks per stage.
        num_heads: Attention heads per stage.
        patch_size_px: Side of one patch.
        in_chans: Image channels, any number.
        drop_path_rate: Drop path rate of the last block; rises linearly from 0 over the blocks.
        pretrained_window_sizes: Version 2 only: the window of each stage that the position bias was
            trained with. The default is the model's own windows, stored so that they survive a
            later change of window.
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
    if version == 2:
        size = model_args["img_size"]
        own = stage_window_sizes(size, patch_size_px, window_size, num_stages=len(depths))
        trained = pretrained_window_sizes or own
        model_args["pretrained_window_sizes"] = tuple(
            window if isinstance(window, int) else as_size(window) for window in trained
        )
    elif pretrained_window_sizes is not None:
        raise UserError("pretrained_window_sizes belong to Swin V2; V1 has a table per window")
    model_class = SwinTransformer if version == 1 else SwinTransformerV2
    model = model_class(num_classes=0, drop_path_rate=drop_path_rate, **model_args)
    if grad_checkpointing:
        model.set_grad_checkpointing()
    return SwinEncoder(model, version=version, model_args=model_args)


def swin_args(
    img_size_px: int | Sequence[int],
    *,
    patch_size_px: int,
    in_chans: int,
    window_size: int,
    embed_dim: int,
    depths: Sequence[int],
    num_heads: Sequence[int],
) -> dict[str, Any]:
    """Return timm's arguments of a Swin; `swin` says what they mean.

    Raises:
        UserError: If the sizes do not divide, or the stages are not as many as their heads.
    """
    size = as_size(img_size_px)
    check_stages(embed_dim, depths, num_heads)
    check_sizes(size, patch_size_px, window_size, num_stages=len(depths))
    return {
        "img_size": size,
        "patch_size": patch_size_px,
        "in_chans": in_chans,
        "window_size": window_size,
        "embed_dim": embed_dim,
        "depths": tuple(depths),
        "num_heads": tuple(num_heads),
    }


def swin_settings(model_args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of `swin_args` that give some arguments of timm's."""
    renamed = {"img_size": "img_size_px", "patch_size": "patch_size_px"}
    names = ("img_size", "patch_size", "in_chans", "window_size", "embed_dim", "depths")
    return {renamed.get(name, name): model_args[name] for name in (*names, "num_heads")}


def stage_depths(state: Mapping[str, Tensor], in_each_block: str) -> list[int]:
    """Return the blocks of each stage, by the names of a Swin's tensors.

    Args:
        state: Tensors by timm's names.
        in_each_block: Name of a tensor that every block has, below the block.
    """
    name_of = re.compile(rf"layers\.(\d+)\.blocks\.\d+\.{re.escape(in_each_block)}")
    blocks = Counter(int(match[1]) for match in map(name_of.fullmatch, state) if match)
    return [blocks[stage] for stage in sorted(blocks)]


def check_stages(embed_dim: int, depths: Sequence[int], num_heads: Sequence[int]) -> None:
    """Refuse stages of which one lacks depth or heads, or is not divided by its heads.

    Args:
        embed_dim: Width of the first stage.
        depths: Blocks of each stage.
        num_heads: Heads of each stage.

    Raises:
        UserError: Naming the stage.
    """
    if len(depths) != len(num_heads):
        raise UserError(
            "every stage needs its depth and its heads: "
            f"depths {list(depths)}, num_heads {list(num_heads)}"
        )
    for stage, heads in enumerate(num_heads):
        if embed_dim * 2**stage % heads:
            raise UserError(
                f"stage {stage + 1} is {embed_dim * 2**stage} wide, "
                f"which {heads} heads do not divide"
            )

"""Convolutional encoders: what ResNet and ConvNeXt have in common behind the face of an encoder.

timm's modules own the weights and compute; its own forward pass equals that of the encoder. Patch
tokens are what the stem makes, NHWC, and mask tokens take their places there, as in the MIM of
openmixup. Any image that the last map's stride divides will do: there are no windows or positions.
"""

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Annotated, Any, ClassVar

from annotated_types import Len
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ssl_swin.arguments import Positive
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.sizes import Size, Window
from ssl_swin.errors import UserError

USUAL_SIZE: Size = (224, 224)  # px, where nothing tells it; no weight depends on it
FourStages = Annotated[Sequence[Positive], Len(4, 4)]
STRIDE = 32  # px per cell of the last map
_STEM_STRIDE = 4  # px per token behind the stem, in every network here


class ConvEncoder(Encoder):
    """A convolutional network of timm; `Encoder` lists the attributes."""

    family = "conv"
    fixed_input_size = False
    takes_any_size = True
    undecayed = r"(?!)"  # norms, biases and scales have one dimension and are spared anyway
    init_bound = 2.0
    head_init_scale = 1.0
    block_pattern: ClassVar[str]  # see `conv_layer_id`
    first_stage: ClassVar[int] = 0  # its number in names

    def __init__(
        self,
        model: Any,
        *,
        architecture: str,
        model_args: Mapping[str, Any],
        depths: Sequence[int],
        stage_dims: Sequence[int],
        stem_dim: int,
        grad_checkpointing: bool,
    ) -> None:
        super().__init__()
        self.model = model
        self.architecture = architecture
        self.model_args = dict(model_args)
        self.img_size_px: Size = model_args["img_size"]
        self.in_chans: int = model_args["in_chans"]
        self.depths = tuple(depths)
        self.stage_dims = tuple(stage_dims)
        self.num_features: int = self.stage_dims[-1]
        self.embed_dim = stem_dim
        self.patch_size_px = _STEM_STRIDE
        self.stride = STRIDE
        self.mask_patch_size_px = self.stride
        self.grad_checkpointing = grad_checkpointing
        if grad_checkpointing:
            model.set_grad_checkpointing()

    @abstractmethod
    def stem(self, images: Tensor) -> Tensor:
        """Turn normalised images (B, C, H, W) into the stem's map (B, embed_dim, H/4, W/4)."""

    @abstractmethod
    def stage_parts(self) -> Iterator[tuple[nn.Module | None, Sequence[nn.Module]]]:
        """Yield what each stage begins with, if anything, and its blocks."""

    def embed(self, images: Tensor) -> Tensor:
        """Turn normalised images (B, C, H, W) into patch tokens (B, H/4, W/4, embed_dim).

        Raises:
            UserError: If the images are not those that the encoder takes.
        """
        expected = (self.in_chans, *self.img_size_px)
        if images.shape[1:] != expected:
            raise UserError(
                f"the encoder takes images of {expected[0]} channels and {expected[1]}x"
                f"{expected[2]} px, got {tuple(images.shape[1:])}"
            )
        return self.stem(images).permute(0, 2, 3, 1)

    def encode(self, tokens: Tensor) -> Tensor:
        """Run all stages on patch tokens; see `Encoder.encode`."""
        *_, last = self._maps(tokens)
        return last.contiguous()

    def forward_any_size(self, images: Tensor) -> Tensor:
        """See `Encoder.forward_any_size`."""
        return self.encode(self.stem(images).permute(0, 2, 3, 1))

    def maps_any_size(self, images: Tensor) -> list[Tensor]:
        """See `Encoder.maps_any_size`; sides are rounded as timm's network rounds them."""
        return [each.contiguous() for each in self._maps(self.stem(images).permute(0, 2, 3, 1))]

    def stages(self, images: Tensor) -> list[Tensor]:
        """Return the map (B, C_i, H_i, W_i) of every stage."""
        return [each.contiguous() for each in self._maps(self.embed(images))]

    def pool(self, features: Tensor) -> Tensor:
        """Average the last map (B, num_features, h, w) over space."""
        return features.mean(dim=(2, 3))

    def blocks(self) -> list[nn.Module]:
        """Return the residual blocks of all stages."""
        return [block for _, blocks in self.stage_parts() for block in blocks]

    def compile_blocks(self, *any_sizes: Size) -> None:
        """Compile each block (`torch.compile`) at the first step; names stay as they are."""
        for block in self.blocks():
            block.compile(mode=self.compile_mode)

    def bias_windows(self) -> tuple[Window, ...]:
        """Return nothing: there are no position biases."""
        return ()

    def resized_args(self, size: Size, window_size: int | None) -> dict[str, Any]:
        """See `Encoder.resized_args`; no weight depends on the size.

        Raises:
            UserError: If a window is given, or the stride does not divide the size.
        """
        if window_size is not None:
            raise UserError(f"window_size={window_size} is for a Swin; a {self.title} has none")
        check_size(size)
        return {**self.model_args, "img_size": size}

    def layer_id(self, name: str) -> int:
        """Number the layers: the stem is 0, blocks count from 1 through all stages, then the head.

        What leads from one stage to the next belongs to the block that follows in a ResNet, whose
        part it is, and to the one before in a ConvNeXt, as a patch merging in a Swin.

        Args:
            name: Dotted timm name of the parameter, with any prefix.
        """
        first = self.first_stage
        return conv_layer_id(name, self.depths, self.block_pattern, first_stage=first)

    def describe(self) -> str:
        """See `Encoder.describe`."""
        return f"widths {self.stage_dims}, depths {self.depths}"

    def _maps(self, tokens: Tensor) -> Iterator[Tensor]:
        maps = tokens.permute(0, 3, 1, 2)
        for beginning, blocks in self.stage_parts():
            if beginning is not None:
                maps = beginning(maps)
            for block in blocks:
                maps = self._run(block, maps)
            yield maps

    def _run(self, block: nn.Module, maps: Tensor) -> Tensor:
        if not (self.grad_checkpointing and self.training):
            return block(maps)  # type: ignore[no-any-return]
        contexts = partial(_contexts_of_recomputing, block)
        return checkpoint(block, maps, use_reentrant=False, context_fn=contexts)  # type: ignore[no-any-return]


def published_size(model: Any) -> Size:
    """Return the image size, (height, width) in pixels, that timm has for a model's weights."""
    told = (getattr(model, "pretrained_cfg", None) or {}).get("input_size")
    return (told[1], told[2]) if told else USUAL_SIZE


def check_size(size: Size) -> None:
    """Refuse an image that the last map does not tile.

    Args:
        size: (height, width) in pixels.

    Raises:
        UserError: Naming the nearest sides that fit.
    """
    for side in size:
        if side % STRIDE:
            below = side // STRIDE * STRIDE
            fitting = [each for each in (below, below + STRIDE) if each]
            raise UserError(
                f"an image side of {side} px does not divide into cells of {STRIDE} px, the "
                f"stride of the last map; sides that do: {', '.join(map(str, fitting))} px"
            )


def conv_layer_id(
    name: str, depths: Sequence[int], block_pattern: str, *, first_stage: int = 0
) -> int:
    """Number the layers of a convolutional network, see `ConvEncoder.layer_id`.

    Args:
        name: Dotted timm name of the parameter, with any prefix.
        depths: Number of blocks of each stage.
        block_pattern: Regular expression with the groups `stage` and `block`, or with `stage` alone
            where it matches what leads to that stage; and the group `stem`.
        first_stage: Number of the first stage.
    """
    match = re.search(block_pattern, name)
    if name.endswith("mask_token") or (match and match["stem"]):
        return 0
    if match is None:
        return sum(depths) + 1
    num_before = sum(depths[: int(match["stage"]) - first_stage])
    return num_before if match["block"] is None else num_before + int(match["block"]) + 1


def _contexts_of_recomputing(
    block: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _keeping_statistics(block)


@contextmanager
def _keeping_statistics(block: nn.Module) -> Iterator[None]:
    """Compute a block again without counting its batch twice in the statistics of its norms."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    before = [(norm, norm.momentum, _count(norm)) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # of what is new
    try:
        yield
    finally:
        for norm, momentum, count in before:
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and count is not None:
                norm.num_batches_tracked.copy_(count)


def _count(norm: _BatchNorm) -> Tensor | None:
    count = norm.num_batches_tracked
    return None if count is None else count.clone()

"""ConvNeXt, V1 (arXiv:2201.03545) and V2 (arXiv:2301.00808), as an encoder: timm's.

Its stem embeds patches of 4 px that do not overlap, so visible tokens see no masked pixel. The norm
in front of a classifier acts on what is pooled: pretraining, which does not pool, leaves it alone.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Self

from annotated_types import Ge, Le
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_swin.arguments import Positive, RateBelow1, SizePx, checked
from ssl_swin.encoders.conv import (
    USUAL_SIZE,
    ConvEncoder,
    FourStages,
    check_size,
    published_size,
)
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.same_function import check_same_function
from ssl_swin.encoders.sizes import Size, as_size

_ARCHITECTURES = {1: "convnext_tiny", 2: "convnextv2_tiny"}  # of timm
_OF_VERSION: dict[int, dict[str, Any]] = {
    1: {"use_grn": False, "ls_init_value": 1e-6},
    2: {"use_grn": True, "ls_init_value": None},
}
_BLOCK = "stages.{s}.blocks.{b}"


class ConvNextEncoder(ConvEncoder):
    """A ConvNeXt of four stages; `Encoder` lists the attributes."""

    title = "ConvNeXt"
    architectures = tuple(_ARCHITECTURES.values())
    head_prefix = "head.fc"
    timm_names = ("convnext_*", "convnextv2_*")
    first_conv = "stem.0"
    last_norm = r"head\."
    required_args = frozenset({"in_chans", "depths", "dims"})
    landmark = "stem.0.weight"
    state_patterns = (
        "stem.0.{p}",
        "stem.1.{p}",
        "stages.{s}.downsample.0.{p}",
        "stages.{s}.downsample.1.{p}",
        f"{_BLOCK}.conv_dw.{{p}}",
        f"{_BLOCK}.norm.{{p}}",
        f"{_BLOCK}.mlp.fc1.{{p}}",
        f"{_BLOCK}.mlp.fc2.{{p}}",
        f"{_BLOCK}.mlp.grn.{{p}}",
        f"{_BLOCK}.gamma",
        "head.norm.{p}",
    )
    block_pattern = (
        r"(^|\.)(stages\.(?P<stage>\d)\.(blocks\.(?P<block>\d+)|downsample)|(?P<stem>stem))\."
    )

    def stem(self, images: Tensor) -> Tensor:
        """See `ConvEncoder.stem`."""
        tokens: Tensor = self.model.stem(images)
        return tokens

    def maps_any_size(self, images: Tensor) -> list[Tensor]:
        """See `Encoder.maps_any_size`; zeros fill up images to the stride, so none is too small."""
        rows, columns = -images.shape[2] % self.stride, -images.shape[3] % self.stride
        return super().maps_any_size(F.pad(images, (0, columns, 0, rows)))

    def stage_parts(self) -> Iterator[tuple[nn.Module, Sequence[nn.Module]]]:
        """See `ConvEncoder.stage_parts`."""
        for stage in self.model.stages:
            yield stage.downsample, list(stage.blocks)

    def pool(self, features: Tensor) -> Tensor:
        """Average the last map (B, num_features, h, w) over space, and norm the average."""
        pooled: Tensor = self.model.head.norm(features.mean(dim=(2, 3), keepdim=True))
        return pooled.flatten(1)

    def for_finetuning(self) -> "ConvNextEncoder":
        """Return this encoder, whose norm of what is pooled is trained from now on."""
        self.model.head.norm.requires_grad_(True)
        return self

    def describe(self) -> str:
        """See `Encoder.describe`."""
        version = " V2" if self.architecture == _ARCHITECTURES[2] else ""
        return f"{self.title}{version} of {super().describe()}"

    @classmethod
    def rebuild(cls, architecture: str, model_args: Mapping[str, Any], **training: Any) -> Self:
        """See `Encoder.rebuild`."""
        (version,) = (number for number, name in _ARCHITECTURES.items() if name == architecture)
        encoder = convnext(
            version=version,
            img_size_px=model_args["img_size"],
            in_chans=model_args["in_chans"],
            depths=model_args["depths"],
            dims=model_args["dims"],
            **training,
        )
        assert isinstance(encoder, cls)
        return encoder

    @classmethod
    def of_timm(cls, model: Any) -> Encoder | None:
        """See `Encoder.of_timm`."""
        if type(model) is not ConvNeXt:
            return None
        encoder = cls.of_tensors(model.state_dict(), published_size(model), None)
        check_same_function(model, encoder)
        return encoder

    @classmethod
    def of_tensors(
        cls, state: Mapping[str, Tensor], img_size_px: Size | None, window_size: int | None
    ) -> Encoder:
        """See `Encoder.of_tensors`."""
        found = (re.match(r"stages\.(\d+)\.blocks\.(\d+)\.norm\.weight$", name) for name in state)
        blocks = Counter(int(match[1]) for match in found if match)
        numbers = sorted(blocks)
        return convnext(
            version=2 if "stages.0.blocks.0.mlp.grn.weight" in state else 1,
            img_size_px=img_size_px or USUAL_SIZE,
            in_chans=state["stem.0.weight"].shape[1],
            depths=[blocks[stage] for stage in numbers],
            dims=[len(state[f"stages.{stage}.blocks.0.norm.weight"]) for stage in numbers],
        )


@checked
def convnext(
    *,
    img_size_px: SizePx,
    depths: FourStages,
    dims: FourStages,
    version: Annotated[int, Ge(1), Le(2)] = 1,
    in_chans: Positive = 3,
    drop_path_rate: RateBelow1 = 0.0,
    grad_checkpointing: bool = False,
) -> ConvNextEncoder:
    """Builds a ConvNeXt encoder with random weights.

    Args:
        img_size_px: Side of the square input, or (height, width).
        depths: Blocks of each of the four stages.
        dims: Width of each of the four stages.
        version: 1, with a scale per channel on each residual path, or 2, with a norm over the
            responses of an image.
        in_chans: Image channels, any number.
        drop_path_rate: Drop path rate of the last block; rises linearly from 0 over the blocks.
        grad_checkpointing: Recompute each block in the backward pass: less memory, a third slower.

    Raises:
        UserError: If the last map does not tile the image.
    """
    size = as_size(img_size_px)
    check_size(size)
    timm_args: dict[str, Any] = {"in_chans": in_chans, "depths": tuple(depths), "dims": tuple(dims)}
    model: Any = ConvNeXt(
        num_classes=0, drop_path_rate=drop_path_rate, **timm_args, **_OF_VERSION[version]
    )
    model.head.norm.requires_grad_(False)
    return ConvNextEncoder(
        model,
        architecture=_ARCHITECTURES[version],
        model_args={"img_size": size, **timm_args},
        depths=depths,
        stage_dims=dims,
        stem_dim=dims[0],
        grad_checkpointing=grad_checkpointing,
    )

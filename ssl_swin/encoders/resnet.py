"""ResNet (arXiv:1512.03385) as an encoder: timm's, with torchvision's names and strides.

Its stem, a convolution of 7 px and a pooling of 3, overlaps: a token of 4 px sees 11 px, so that
visible tokens at the rim of a masked patch would see some of its pixels.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Self

from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

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
from ssl_swin.errors import UserError

BlockName = Literal["basic", "bottleneck"]
_BLOCKS: dict[str, Any] = {"basic": BasicBlock, "bottleneck": Bottleneck}
_ARCHITECTURES: dict[str, str] = {"basic": "resnet18", "bottleneck": "resnet50"}  # of timm
_STEM_DIM = 64
_NORM = ("{p}", "running_mean", "running_var", "num_batches_tracked")
_BLOCK = "layer{s}.{b}"


class ResNetEncoder(ConvEncoder):
    """A ResNet of basic or bottleneck blocks; `Encoder` lists the attributes."""

    title = "ResNet"
    architectures = tuple(_ARCHITECTURES.values())
    head_prefix = "fc"
    timm_names = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
    first_conv = "conv1"
    required_args = frozenset({"in_chans", "layers", "channels"})
    overlapping_patches = True
    landmark = "layer1.0.conv1.weight"
    state_patterns = (
        "conv1.weight",
        *(f"bn1.{name}" for name in _NORM),
        f"{_BLOCK}.conv{{n}}.weight",
        *(f"{_BLOCK}.bn{{n}}.{name}" for name in _NORM),
        f"{_BLOCK}.downsample.0.weight",
        *(f"{_BLOCK}.downsample.1.{name}" for name in _NORM),
    )
    first_stage = 1
    block_pattern = r"(^|\.)(layer(?P<stage>\d)\.(?P<block>\d+)|(?P<stem>conv1|bn1))\."

    def check_batch_size(self, batch_size: int) -> None:
        """See `Encoder.check_batch_size`; a batch norm needs two values of each channel."""
        height, width = self.img_size_px
        if batch_size * height * width < 2 * self.stride**2:
            raise UserError(
                f"batch_size=1 with images of {height}x{width} px leaves one value to the batch "
                f"norms of a {self.title}: give batch_size=2 or more, or larger images"
            )

    def stem(self, images: Tensor) -> Tensor:
        """See `ConvEncoder.stem`."""
        model = self.model
        tokens: Tensor = model.maxpool(model.act1(model.bn1(model.conv1(images))))
        return tokens

    def stage_parts(self) -> Iterator[tuple[None, Sequence[nn.Module]]]:
        """See `ConvEncoder.stage_parts`."""
        for number in range(1, len(self.depths) + 1):
            yield None, list(getattr(self.model, f"layer{number}"))

    @classmethod
    def rebuild(cls, architecture: str, model_args: Mapping[str, Any], **training: Any) -> Self:
        """See `Encoder.rebuild`."""
        (block,) = (name for name, known in _ARCHITECTURES.items() if known == architecture)
        encoder = resnet(
            block=block,  # type: ignore[arg-type]
            img_size_px=model_args["img_size"],
            in_chans=model_args["in_chans"],
            depths=model_args["layers"],
            channels=model_args["channels"],
            **training,
        )
        assert isinstance(encoder, cls)
        return encoder

    @classmethod
    def of_timm(cls, model: Any) -> Encoder | None:
        """See `Encoder.of_timm`."""
        if type(model) is not ResNet:
            return None
        if not isinstance(model.conv1, nn.Conv2d):
            raise UserError("this variant of ResNet is unknown: its stem has several convolutions")
        encoder = cls.of_tensors(model.state_dict(), published_size(model), None)
        check_same_function(model, encoder)
        return encoder

    @classmethod
    def of_tensors(
        cls, state: Mapping[str, Tensor], img_size_px: Size | None, window_size: int | None
    ) -> Encoder:
        """See `Encoder.of_tensors`."""
        found = (re.match(r"layer(\d+)\.(\d+)\.conv1\.weight$", name) for name in state)
        blocks = Counter(int(match[1]) for match in found if match)
        return resnet(
            block="bottleneck" if "layer1.0.conv3.weight" in state else "basic",
            img_size_px=img_size_px or USUAL_SIZE,
            in_chans=state["conv1.weight"].shape[1],
            depths=[blocks[number] for number in sorted(blocks)],
            channels=[len(state[f"layer{number}.0.conv1.weight"]) for number in sorted(blocks)],
        )


@checked
def resnet(
    *,
    img_size_px: SizePx,
    depths: FourStages,
    block: BlockName = "bottleneck",
    channels: FourStages = (64, 128, 256, 512),
    in_chans: Positive = 3,
    drop_path_rate: RateBelow1 = 0.0,
    grad_checkpointing: bool = False,
) -> ResNetEncoder:
    """Builds a ResNet encoder with random weights.

    Args:
        img_size_px: Side of the square input, or (height, width).
        depths: Blocks of each of the four stages.
        block: "basic" as in ResNet-18 and 34, or "bottleneck" as in ResNet-50, whose stages are
            four times as wide as `channels` say.
        channels: Width inside the blocks of each stage.
        in_chans: Image channels, any number.
        drop_path_rate: Drop path rate of the last block; rises linearly from 0 over the blocks.
        grad_checkpointing: Recompute each block in the backward pass: less memory, a third slower.

    Raises:
        UserError: If the last map does not tile the image.
    """
    size = as_size(img_size_px)
    check_size(size)
    timm_args: dict[str, Any] = {
        "in_chans": in_chans,
        "layers": tuple(depths),
        "channels": tuple(channels),
    }
    kind = _BLOCKS[block]
    model: Any = ResNet(kind, num_classes=0, drop_path_rate=drop_path_rate, **timm_args)
    return ResNetEncoder(
        model,
        architecture=_ARCHITECTURES[block],
        model_args={"img_size": size, **timm_args},
        depths=depths,
        stage_dims=[width * kind.expansion for width in channels],
        stem_dim=_STEM_DIM,
        grad_checkpointing=grad_checkpointing,
    )

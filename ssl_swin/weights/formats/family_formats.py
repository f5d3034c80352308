"""timm's names of the encoders that describe their own tensors: Swin-MLP, ResNet, ConvNeXt, yours.

They are ours too, so checkpoints of runs and backbones are read by them.
"""

import re
from collections.abc import Mapping
from functools import cache

from torch import Tensor

from ssl_swin.encoders.build import known_architectures
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.sizes import as_size
from ssl_swin.weights.formats.format import Builder, FileSettings, Format
from ssl_swin.weights.formats.key_maps import rename, same
from ssl_swin.weights.formats.timm_format import settings as timm_settings

PREFIXES = ("", "encoder.model.")


def builder(family: type[Encoder]) -> Builder:
    """Returns what builds an encoder of a family for tensors by our names."""

    def build(
        state: Mapping[str, Tensor],
        settings: FileSettings,
        img_size_px: int | None,
        window_size: int | None,
    ) -> Encoder:
        told = settings.img_size_px or img_size_px
        size = None if told is None else as_size(told)
        return family.of_tensors(state, size, window_size or settings.window_size)

    return build


@cache
def format_of(family: type[Encoder]) -> Format:
    """Returns timm's format of a family that has `state_patterns`."""
    return Format(
        name="timm",
        title=f"timm's {family.title}",
        rules=(
            *same(*family.state_patterns, "mask_token", "decoder.0.{p}"),
            *rename({"head.fc.{p}": f"{family.head_prefix}.{{p}}"}),
        ),
        recognised_by=(rf"^(encoder\.model\.)?{re.escape(family.landmark)}$",),
        kinds=(family.title,),
        prefixes=PREFIXES,
        landmark=family.landmark,
        build=builder(family),
        settings=timm_settings,
        layout="safetensors",
    )


def family_formats() -> tuple[Format, ...]:
    """Returns the formats of all families that are known by now, also those of users."""
    families = dict.fromkeys(known_architectures().values())
    return tuple(format_of(family) for family in families if family.state_patterns)

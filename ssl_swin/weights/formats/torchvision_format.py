"""torchvision's `SwinTransformer`, V1 and V2.

Stages and mergings are numbered through; its Swin V2 has one bias for query, key and value, of
which the key's part has no effect. It pads maps that are smaller than the window.
"""

from dataclasses import replace

from ssl_swin.encoders.resnet import ResNetEncoder
from ssl_swin.encoders.swin import SwinEncoder
from ssl_swin.weights.formats.family_formats import format_of
from ssl_swin.weights.formats.format import (
    BLOCK,
    COORDINATES,
    INDEX,
    Format,
    every,
    needs_one_window,
    needs_rgb,
    stage_windows,
)
from ssl_swin.weights.formats.key_maps import Rule, rename, same
from ssl_swin.weights.formats.tensor_maps import flattened, squared, with_zero_key, without_key

THEIR_BLOCK = "features.{2s+1}.{b}"

_SHARED = (
    *rename(
        {
            "patch_embed.proj.{p}": "features.0.0.{p}",
            "patch_embed.norm.{p}": "features.0.2.{p}",
            "layers.{s+1}.downsample.reduction.weight": "features.{2s+2}.reduction.weight",
            "layers.{s+1}.downsample.norm.{p}": "features.{2s+2}.norm.{p}",
            "head.fc.{p}": "head.{p}",
            f"{BLOCK}.norm1.{{p}}": f"{THEIR_BLOCK}.norm1.{{p}}",
            f"{BLOCK}.norm2.{{p}}": f"{THEIR_BLOCK}.norm2.{{p}}",
            f"{BLOCK}.attn.qkv.weight": f"{THEIR_BLOCK}.attn.qkv.weight",
            f"{BLOCK}.attn.proj.{{p}}": f"{THEIR_BLOCK}.attn.proj.{{p}}",
            f"{BLOCK}.mlp.fc1.{{p}}": f"{THEIR_BLOCK}.mlp.0.{{p}}",
            f"{BLOCK}.mlp.fc2.{{p}}": f"{THEIR_BLOCK}.mlp.3.{{p}}",
        }
    ),
    Rule(
        (f"{BLOCK}.attn.{INDEX}",),
        (f"{THEIR_BLOCK}.attn.{INDEX}",),
        squared,
        flattened,
        "flat there",
    ),
    *same("norm.{p}"),
)
_V1 = rename(
    {
        f"{BLOCK}.attn.qkv.bias": f"{THEIR_BLOCK}.attn.qkv.bias",
        f"{BLOCK}.attn.relative_position_bias_table": (
            f"{THEIR_BLOCK}.attn.relative_position_bias_table"
        ),
    }
)
_V2 = (
    Rule(
        (f"{BLOCK}.attn.q_bias", f"{BLOCK}.attn.v_bias"),
        (f"{THEIR_BLOCK}.attn.qkv.bias",),
        without_key,
        with_zero_key,
        "one bias there, whose part for the key has no effect",
    ),
    *rename(
        {
            f"{BLOCK}.attn.logit_scale": f"{THEIR_BLOCK}.attn.logit_scale",
            f"{BLOCK}.attn.cpb_mlp.{{n}}.{{p}}": f"{THEIR_BLOCK}.attn.cpb_mlp.{{n}}.{{p}}",
            f"{BLOCK}.attn.{COORDINATES}": f"{THEIR_BLOCK}.attn.{COORDINATES}",
        }
    ),
)
_PATCHES = r"^features\.0\.0\.weight$"


def trained_with_own_windows(encoder: SwinEncoder) -> tuple[str, ...]:
    """Returns a reason if Swin V2 measures offsets in another window, or has one of one token."""
    trained = encoder.model_args["pretrained_window_sizes"]
    own = stage_windows(encoder)
    if tuple(trained) != own:
        return (f"it cannot keep the windows of pretraining, {trained}, beside its own, {own}",)
    return ("it divides by zero in windows of one token",) if 1 in own else ()


_NO_HEAD = "a backbone has no head: load with strict=False, or train"

TORCHVISION = Format(
    name="torchvision",
    title="torchvision's Swin",
    rules=(*_SHARED, *_V1),
    recognised_by=(_PATCHES, r"^features\.1\.0\.attn\.relative_position_bias_table$"),
    kinds=("Swin V1",),
    tables=(INDEX,),
    missing={"head.weight, head.bias": _NO_HEAD},
    limits=every(needs_rgb, needs_one_window),
)
TORCHVISION_V2 = Format(
    name="torchvision",
    title="torchvision's Swin V2",
    rules=(*_SHARED, *_V2),
    recognised_by=(_PATCHES, r"^features\.1\.0\.attn\.logit_scale$"),
    kinds=("Swin V2",),
    tables=(INDEX, COORDINATES),
    missing={"head.weight, head.bias": _NO_HEAD},
    limits=every(needs_rgb, needs_one_window, trained_with_own_windows),
)
TORCHVISION_RESNET = replace(  # whose names timm has, so that files are taken for timm's
    format_of(ResNetEncoder),
    name="torchvision",
    title="torchvision's ResNet",
    holds_simmim=False,
    missing={"fc.weight, fc.bias": _NO_HEAD},
    layout="bare",
)

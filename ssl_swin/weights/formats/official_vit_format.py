"""The ViT of the original SimMIM, pretrained or fine-tuned, whose names are timm's."""

from collections.abc import Mapping

from torch import Tensor

from ssl_swin.encoders.beit import BeitEncoder, beit
from ssl_swin.errors import UserError
from ssl_swin.weights.formats.format import (
    FINETUNED_VIT,
    INDEX,
    VIT,
    Config,
    Exported,
    FileSettings,
    Format,
)
from ssl_swin.weights.formats.key_maps import rename, same
from ssl_swin.weights.formats.official_beit import beit_architecture
from ssl_swin.weights.formats.official_format import SIMMIM_HEAD, settings
from ssl_swin.weights.formats.timm_format import settings as timm_settings

_BLOCK = "blocks.{b}"
_RULES = same(
    "cls_token",
    "pos_embed",
    "patch_embed.proj.{p}",
    "rel_pos_bias.relative_position_bias_table",
    f"rel_pos_bias.{INDEX}",
    f"{_BLOCK}.norm1.{{p}}",
    f"{_BLOCK}.norm2.{{p}}",
    f"{_BLOCK}.gamma_1",
    f"{_BLOCK}.gamma_2",
    f"{_BLOCK}.attn.qkv.weight",
    f"{_BLOCK}.attn.q_bias",
    f"{_BLOCK}.attn.v_bias",
    f"{_BLOCK}.attn.relative_position_bias_table",
    f"{_BLOCK}.attn.{INDEX}",
    f"{_BLOCK}.attn.proj.{{p}}",
    f"{_BLOCK}.mlp.fc1.{{p}}",
    f"{_BLOCK}.mlp.fc2.{{p}}",
    "norm.{p}",
)
_OF_CLASSIFIER = (*same("fc_norm.{p}"), *rename({"head.fc.{p}": "head.{p}"}))
_TABLE = r"(rel_pos_bias|blocks\.0\.attn)\.relative_position_bias_table$"


def configs(exported: Exported) -> dict[str, Config]:
    """Writes the part of the original's configuration that a reader may want."""
    return {
        "config": {"MODEL": {"TYPE": "vit"}, "DATA": {"IMG_SIZE": exported.encoder.img_size_px[0]}}
    }


def build_vit(
    state: Mapping[str, Tensor],
    settings: FileSettings,
    img_size_px: int | None,
    window_size: int | None,
) -> BeitEncoder:
    """Builds the ViT that a state dict, by our names, was pretrained or fine-tuned as.

    Its tables of position biases tell the image size.

    Raises:
        UserError: If a tensor is missing that tells the architecture, or a window is given.
    """
    if window_size is not None:
        raise UserError(f"window_size={window_size} is for a Swin; this is a ViT")
    return beit(**beit_architecture({f"encoder.{name}": t for name, t in state.items()}))


SIMMIM_VIT = Format(
    name="simmim",
    title="the original SimMIM's ViT",
    rules=(*_RULES, *SIMMIM_HEAD),
    recognised_by=(r"^encoder\.mask_token$", rf"^encoder\.{_TABLE}"),
    kinds=(VIT,),
    build=build_vit,
    prefixes=("encoder.",),
    tables=(INDEX,),
    settings=settings,
    holds_simmim=True,
    layout="model",
    configs=configs,
)
SIMMIM_FINETUNED_VIT = Format(
    name="simmim",
    title="the original SimMIM's fine-tuned ViT",
    rules=(*_RULES, *_OF_CLASSIFIER),
    recognised_by=(rf"^blocks\.0\.attn\.{INDEX}$", r"^fc_norm\.weight$"),
    kinds=(FINETUNED_VIT,),
    build=build_vit,
    tables=(INDEX,),
    settings=settings,
    layout="model",
    configs=configs,
)
TIMM_VIT = Format(
    name="timm",
    title="timm's BEiT",
    rules=(*_RULES, *_OF_CLASSIFIER, *SIMMIM_HEAD),
    recognised_by=(
        r"^(encoder\.model\.)?blocks\.0\.attn\.qkv\.weight$",
        rf"^(encoder\.model\.)?{_TABLE}",
    ),
    kinds=(VIT, FINETUNED_VIT),
    build=build_vit,
    prefixes=("", "encoder.model."),
    settings=timm_settings,
    layout="safetensors",
)

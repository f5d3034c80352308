"""The ViT of the original SimMIM, whose names are timm's (L1)."""

from ssl_swin.interop.format import INDEX, Config, Exported, Format
from ssl_swin.interop.key_maps import same
from ssl_swin.interop.official_format import SIMMIM_HEAD, settings

_BLOCK = "blocks.{b}"
_RULES = same(
    "cls_token",
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
    f"{_BLOCK}.attn.proj.{{p}}",
    f"{_BLOCK}.mlp.fc1.{{p}}",
    f"{_BLOCK}.mlp.fc2.{{p}}",
    "norm.{p}",
)


def configs(exported: Exported) -> dict[str, Config]:
    """Writes the part of the original's configuration that a reader may want."""
    return {
        "config": {"MODEL": {"TYPE": "vit"}, "DATA": {"IMG_SIZE": exported.encoder.img_size_px[0]}}
    }


SIMMIM_VIT = Format(
    name="simmim",
    title="the original SimMIM's ViT",
    rules=(*_RULES, *SIMMIM_HEAD),
    recognised_by=(r"^encoder\.mask_token$", r"^encoder\.blocks\.0\.", r"^encoder\.rel_pos_bias\."),
    kinds=("ViT",),
    prefixes=("encoder.",),
    tables=(INDEX,),
    settings=settings,
    holds_simmim=True,
    layout="model",
    configs=configs,
)
TIMM_VIT = Format(
    name="timm",
    title="timm's BEiT",
    rules=(*_RULES, *same("fc_norm.{p}"), *SIMMIM_HEAD),
    recognised_by=(
        r"^(encoder\.model\.)?blocks\.0\.attn\.qkv\.weight$",
        r"^(encoder\.model\.)?rel_pos_bias\.relative_position_bias_table$",
    ),
    kinds=("ViT",),
    prefixes=("", "encoder.model."),
    layout="safetensors",
)

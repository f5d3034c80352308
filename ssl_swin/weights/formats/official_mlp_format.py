"""Swin-MLP in the original's names: those of its Swin V1, and `spatial_mlp` for the attention."""

from ssl_swin.encoders.swin_mlp import SwinMlpEncoder
from ssl_swin.weights.formats.family_formats import builder
from ssl_swin.weights.formats.format import (
    BLOCK,
    COMMON_STEM,
    MERGING_AT_END,
    Config,
    Exported,
    Format,
)
from ssl_swin.weights.formats.key_maps import rename, same
from ssl_swin.weights.formats.official_format import settings


def configs(exported: Exported) -> dict[str, Config]:
    """Writes the part of the original's configuration that the weights do not tell."""
    height_px, width_px = exported.encoder.img_size_px
    window = exported.encoder.model_args["window_size"]
    size = height_px if height_px == width_px else [height_px, width_px]
    model = {"TYPE": "swin_mlp", "SWIN_MLP": {"WINDOW_SIZE": window}}
    return {"config": {"MODEL": model, "DATA": {"IMG_SIZE": size}}}


SWIN_MLP = Format(
    name="swin",
    title="the original Swin-MLP",
    rules=(
        *COMMON_STEM,
        *same(
            f"{BLOCK}.norm1.{{p}}",
            f"{BLOCK}.norm2.{{p}}",
            f"{BLOCK}.spatial_mlp.{{p}}",
            f"{BLOCK}.mlp.fc1.{{p}}",
            f"{BLOCK}.mlp.fc2.{{p}}",
            "norm.{p}",
        ),
        *MERGING_AT_END,
        *rename({"head.fc.{p}": "head.{p}"}),
    ),
    recognised_by=(
        r"^layers\.0\.downsample\.",
        r"^layers\.0\.blocks\.0\.spatial_mlp\.weight$",
    ),
    kinds=(SwinMlpEncoder.title,),
    landmark=SwinMlpEncoder.landmark,
    build=builder(SwinMlpEncoder),
    settings=settings,
    layout="model",
    configs=configs,
)

"""The original's Swin V1 with its option of an absolute position embedding (`APE: True`)."""

from ssl_swin.encoders.swin_ape import POSITIONS, SwinApeEncoder
from ssl_swin.weights.formats.family_formats import builder
from ssl_swin.weights.formats.format import INDEX, MASK, Config, Exported, Format
from ssl_swin.weights.formats.key_maps import same
from ssl_swin.weights.formats.official_format import RULES, settings


def configs(exported: Exported) -> dict[str, Config]:
    """Writes the part of the original's configuration that the weights do not tell."""
    height_px, width_px = exported.encoder.img_size_px
    swin = {"WINDOW_SIZE": exported.encoder.model_args["window_size"], "APE": True}
    size = height_px if height_px == width_px else [height_px, width_px]
    return {"config": {"MODEL": {"TYPE": "swin", "SWIN": swin}, "DATA": {"IMG_SIZE": size}}}


SWIN_APE = Format(
    name="swin",
    title="the original Swin Transformer with positions at its input",
    rules=(*RULES, *same(POSITIONS)),
    recognised_by=(r"^(encoder\.)?layers\.0\.downsample\.", rf"^(encoder\.)?{POSITIONS}$"),
    kinds=(SwinApeEncoder.title,),
    prefixes=("", "encoder."),
    tables=(INDEX, MASK),
    landmark=SwinApeEncoder.landmark,
    build=builder(SwinApeEncoder),
    settings=settings,
    layout="model",
    configs=configs,
)

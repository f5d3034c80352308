"""The original's names, of SimMIM and of Swin Transformer V1 and V2.

The original keeps patch merging at the end of a stage, timm at the start of the next one. Some of
its released V2 files name the bias network `rpe_mlp`.
"""

from collections.abc import Mapping
from typing import Any

from ssl_swin.weights.formats.format import (
    BLOCK,
    COMMON_BLOCK,
    COMMON_STEM,
    COMMON_TABLES,
    COORDINATES,
    INDEX,
    MASK,
    MERGING_AT_END,
    Config,
    Exported,
    FileSettings,
    Format,
)
from ssl_swin.weights.formats.key_maps import rename, same

RULES = (
    *COMMON_STEM,
    *COMMON_BLOCK,
    *MERGING_AT_END,
    *COMMON_TABLES,
    *same("norm.{p}"),
    *rename({"head.fc.{p}": "head.{p}"}),
    *rename(
        {f"{BLOCK}.attn.cpb_mlp.{{n}}.{{p}}": f"{BLOCK}.attn.rpe_mlp.{{n}}.{{p}}"},
        reason="its name in the released SimMIM files",
    ),
)

SIMMIM_HEAD = same("mask_token", "decoder.0.{p}")


def settings(config: Config) -> FileSettings:
    """Reads the original's configuration."""
    model, data = _section(config, "MODEL"), _section(config, "DATA")
    swin = _section(model, "SWINV2") or _section(model, "SWIN")
    size, window = data.get("IMG_SIZE"), swin.get("WINDOW_SIZE")
    trained = swin.get("PRETRAINED_WINDOW_SIZES")
    return FileSettings(
        img_size_px=tuple(size) if isinstance(size, list) else size,
        window_size=window if isinstance(window, int) else None,
        pretrained_window_sizes=tuple(trained) if trained else None,
    )


def configs(exported: Exported) -> dict[str, Config]:
    """Writes the part of the original's configuration that the weights do not tell."""
    arguments = exported.encoder.model_args
    height_px, width_px = exported.encoder.img_size_px
    swin: dict[str, Any] = {"WINDOW_SIZE": arguments["window_size"]}
    kind = "swin" if exported.encoder.kind == "Swin V1" else "swinv2"
    if kind == "swinv2":
        swin["PRETRAINED_WINDOW_SIZES"] = list(arguments["pretrained_window_sizes"])
    size = height_px if height_px == width_px else [height_px, width_px]
    return {"config": {"MODEL": {"TYPE": kind, kind.upper(): swin}, "DATA": {"IMG_SIZE": size}}}


def _section(config: Any, name: str) -> Mapping[str, Any]:
    found = config.get(name) if isinstance(config, Mapping) else None
    return found if isinstance(found, Mapping) else {}


SWIN = Format(
    name="swin",
    title="the original Swin Transformer",
    rules=RULES,
    recognised_by=(r"^(encoder\.)?layers\.0\.downsample\.", r"^(encoder\.)?norm\.weight$"),
    prefixes=("", "encoder."),
    tables=(INDEX, COORDINATES, MASK),
    settings=settings,
    layout="model",
    configs=configs,
)
SIMMIM = Format(
    name="simmim",
    title="the original SimMIM",
    rules=(*RULES, *SIMMIM_HEAD),
    recognised_by=(r"^encoder\.mask_token$", r"^encoder\.layers\.0\.blocks\.0\."),
    prefixes=("encoder.",),
    tables=(INDEX, COORDINATES, MASK),
    settings=settings,
    holds_simmim=True,
    layout="model",
    configs=configs,
)

"""Detectron2's Swin V1 and the many forks of it: the original's names, a norm per output."""

from ssl_swin.weights.formats.format import (
    COMMON_BLOCK,
    COMMON_STEM,
    COMMON_TABLES,
    INDEX,
    MERGING_AT_END,
    Format,
    every,
    needs_four_stages,
    needs_one_window,
    needs_square,
    shifts_whole_maps,
)
from ssl_swin.weights.formats.key_maps import rename
from ssl_swin.weights.formats.openmmlab import OUTPUT_NORMS

DETECTRON2 = Format(
    name="detectron2",
    title="Detectron2's Swin",
    rules=(
        *COMMON_STEM,
        *COMMON_BLOCK,
        *COMMON_TABLES,
        *MERGING_AT_END,
        *rename({"norm.{p}": "norm3.{p}"}),
    ),
    recognised_by=(
        r"^(backbone\.)?(bottom_up\.)?layers\.0\.blocks\.0\.attn\.qkv\.weight$",
        r"^(backbone\.)?(bottom_up\.)?layers\.0\.downsample\.",
        r"^(backbone\.)?(bottom_up\.)?norm3\.weight$",
    ),
    kinds=("Swin V1",),
    prefixes=("", "backbone.bottom_up.", "backbone.", "bottom_up."),
    tables=(INDEX,),
    dropped={r"norm[012]\.(weight|bias)": OUTPUT_NORMS},
    missing={"norm0, norm1, norm2": "norms of earlier stages' outputs, which a detector trains"},
    limits=every(needs_four_stages, needs_square, needs_one_window),
    notes=shifts_whole_maps,
    layout="model",
)

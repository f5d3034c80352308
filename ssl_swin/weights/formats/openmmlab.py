"""OpenMMLab's Swin V1: mmpretrain's, and the same names in mmdetection and mmsegmentation.

Its patch merging gathers pixels with `torch.nn.Unfold`, so the weights that follow are reordered.
The last stage's norm is called `norm3`; detectors have one for each stage that they use.
"""

from ssl_swin.weights.formats.format import (
    BLOCK,
    INDEX,
    Config,
    Exported,
    Format,
    every,
    needs_four_stages,
    needs_one_window,
    needs_square,
    shifts_whole_maps,
)
from ssl_swin.weights.formats.key_maps import Rule, rename
from ssl_swin.weights.formats.tensor_maps import from_unfold_order, to_unfold_order

THEIR_BLOCK = "stages.{s}.blocks.{b}"
OUTPUT_NORMS = "a norm of an earlier stage's output, which only a detector has"

_MERGING = "patch merging there ends a stage and takes pixels in another order"


def configs(exported: Exported) -> dict[str, Config]:
    """Writes the empty description that its files have beside the weights."""
    return {"meta": {}}


OPENMMLAB = Format(
    name="openmmlab",
    title="OpenMMLab's Swin (mmpretrain, mmdet, mmseg)",
    rules=(
        *rename(
            {
                "patch_embed.proj.{p}": "patch_embed.projection.{p}",
                "patch_embed.norm.{p}": "patch_embed.norm.{p}",
                "norm.{p}": "norm3.{p}",
                "mask_token": "mask_token",
                "decoder.0.{p}": "neck.decoder.0.{p}",
                "head.fc.{p}": "head.fc.{p}",
                f"{BLOCK}.norm1.{{p}}": f"{THEIR_BLOCK}.norm1.{{p}}",
                f"{BLOCK}.norm2.{{p}}": f"{THEIR_BLOCK}.norm2.{{p}}",
                f"{BLOCK}.attn.qkv.{{p}}": f"{THEIR_BLOCK}.attn.w_msa.qkv.{{p}}",
                f"{BLOCK}.attn.proj.{{p}}": f"{THEIR_BLOCK}.attn.w_msa.proj.{{p}}",
                f"{BLOCK}.attn.relative_position_bias_table": (
                    f"{THEIR_BLOCK}.attn.w_msa.relative_position_bias_table"
                ),
                f"{BLOCK}.attn.{INDEX}": f"{THEIR_BLOCK}.attn.w_msa.{INDEX}",
                f"{BLOCK}.mlp.fc1.{{p}}": f"{THEIR_BLOCK}.ffn.layers.0.0.{{p}}",
                f"{BLOCK}.mlp.fc2.{{p}}": f"{THEIR_BLOCK}.ffn.layers.1.{{p}}",
            }
        ),
        Rule(
            ("layers.{s+1}.downsample.reduction.weight",),
            ("stages.{s}.downsample.reduction.weight",),
            from_unfold_order,
            to_unfold_order,
            _MERGING,
        ),
        Rule(
            ("layers.{s+1}.downsample.norm.{p}",),
            ("stages.{s}.downsample.norm.{p}",),
            from_unfold_order,
            to_unfold_order,
            _MERGING,
        ),
    ),
    recognised_by=(r"^(backbone\.)?stages\.0\.blocks\.0\.attn\.w_msa\.qkv\.weight$",),
    kinds=("Swin V1",),
    prefixes=("backbone.", ""),
    tables=(INDEX,),
    dropped={r"norm[012]\.(weight|bias)": OUTPUT_NORMS},
    missing={"norm0, norm1, norm2": "of detectors alone, which train them"},
    limits=every(needs_four_stages, needs_square, needs_one_window),
    notes=shifts_whole_maps,
    holds_simmim=True,
    layout="state_dict",
    configs=configs,
)

"""Turning timm's Swin into modules that can be called on tokens in any layout."""

from typing import Any

from timm.layers.mlp import Mlp
from timm.layers.patch_embed import PatchEmbed
from timm.models import swin_transformer, swin_transformer_v2
from torch import nn

from ssl_swin.encoders.windows.attention import WindowAttentionV1, WindowAttentionV2
from ssl_swin.encoders.windows.blocks import (
    MergingV1,
    MergingV2,
    RecomputingMlp,
    WindowBlockV1,
    WindowBlockV2,
    WindowStageV1,
    WindowStageV2,
)
from ssl_swin.encoders.windows.patches import PatchEmbedding

_OURS: dict[type[nn.Module], type[nn.Module]] = {
    PatchEmbed: PatchEmbedding,
    Mlp: RecomputingMlp,
    swin_transformer.SwinTransformerStage: WindowStageV1,
    swin_transformer.SwinTransformerBlock: WindowBlockV1,
    swin_transformer.WindowAttention: WindowAttentionV1,
    swin_transformer.PatchMerging: MergingV1,
    swin_transformer_v2.SwinTransformerV2Stage: WindowStageV2,
    swin_transformer_v2.SwinTransformerV2Block: WindowBlockV2,
    swin_transformer_v2.WindowAttention: WindowAttentionV2,
    swin_transformer_v2.PatchMerging: MergingV2,
}


def adopt(model: Any) -> None:
    """Makes the modules of a timm Swin, V1 or V2, instances of the classes here, in place.

    Each class here is a subclass of timm's that also takes a layout, so no module, parameter or
    buffer changes its name or value, and timm's own forward pass stays what it was. Exchanging the
    class is what `torch.nn.utils.parametrize` and `fully_shard` do too.
    """
    for module in model.modules():
        module.__class__ = _OURS.get(type(module), type(module))

"""What ViT the tensors of an original SimMIM checkpoint describe.

timm's BEiT and the original's ViT name every tensor alike; only the index into the table of
position biases, which timm rebuilds, is stored there and not here.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ssl_swin.errors import UserError

_SHARED_TABLE = "encoder.rel_pos_bias.relative_position_bias_table"
_OWN_TABLE = "encoder.blocks.0.attn.relative_position_bias_table"
_NUM_CLS_BIASES = 3  # cls to patch, patch to cls, cls to cls


def beit_architecture(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Reads off an original SimMIM state dict the arguments of `ssl_swin.encoders.beit.beit`.

    Args:
        state: Tensors under the original's names; of a fine-tuned ViT, whose names have no
            `encoder.`, with that put before them.

    Returns:
        Sizes of the square image, of patches and blocks, whether there is a final norm, whether the
        blocks share one table of position biases, and whether tokens have positions at the input.

    Raises:
        UserError: If a tensor that is needed for it is missing or has a shape that a ViT pretrained
            on square images does not give it.
    """
    embed_dim, in_chans, patch_size_px, _ = _shape(state, "encoder.patch_embed.proj.weight", 4)
    table = _OWN_TABLE if _OWN_TABLE in state else _SHARED_TABLE
    num_biases, num_heads = _shape(state, table, 2)
    side = math.isqrt(max(0, num_biases - _NUM_CLS_BIASES))  # 2 * grid - 1
    if side % 2 == 0 or side**2 != num_biases - _NUM_CLS_BIASES:
        raise UserError(
            f"{table} has {num_biases} rows, and a square grid of n x n patches has "
            f"(2n - 1)^2 + {_NUM_CLS_BIASES}"
        )
    return {
        "img_size_px": (side + 1) // 2 * patch_size_px,
        "patch_size_px": patch_size_px,
        "in_chans": in_chans,
        "embed_dim": embed_dim,
        "depth": _depth(state),
        "num_heads": num_heads,
        "final_norm": "encoder.norm.weight" in state,
        "shared_position_bias": table == _SHARED_TABLE,
        "fixed_positions": "encoder.pos_embed" in state,
    }


def _depth(state: Mapping[str, Tensor]) -> int:
    matches = (re.match(r"encoder\.blocks\.(\d+)\.", name) for name in state)
    return len({match[1] for match in matches if match})


def _shape(state: Mapping[str, Tensor], name: str, num_dims: int) -> tuple[int, ...]:
    if name not in state:
        raise UserError(f"the tensor {name} is missing")
    if state[name].ndim != num_dims:
        raise UserError(f"{name} has shape {tuple(state[name].shape)}, not {num_dims} dimensions")
    return tuple(state[name].shape)

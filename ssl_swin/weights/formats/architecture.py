"""What Swin the tensors of a checkpoint describe, by timm's or the original's names."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from ssl_swin.encoders.sizes import Window
from ssl_swin.errors import UserError


class Architecture(NamedTuple):
    """The arguments of `ssl_swin.encoders.swin.swin` that weights determine."""

    version: int
    embed_dim: int
    in_chans: int
    patch_size_px: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]


def infer_architecture(state: Mapping[str, Tensor]) -> Architecture:
    """Reads the architecture off the names and shapes of an encoder's tensors.

    Raises:
        UserError: If a tensor that is needed for it is missing or has another number of dimensions.
    """
    version = 2 if any(name.endswith(".attn.logit_scale") for name in state) else 1
    embed_dim, in_chans, patch_size_px, _ = _shape(state, "patch_embed.proj.weight", 4)
    depths = _depths(state)
    return Architecture(
        version=version,
        embed_dim=embed_dim,
        in_chans=in_chans,
        patch_size_px=patch_size_px,
        depths=depths,
        num_heads=tuple(_num_heads(state, version, stage) for stage in range(len(depths))),
    )


def stored_windows(state: Mapping[str, Tensor], num_stages: int) -> tuple[Window, ...] | None:
    """Finds the attention window of each stage, in tokens, in the tables of the stages.

    Swin V1 always tells it by its position bias tables. The weights of V2 do not depend on it, only
    the tables of coordinates that some implementations store beside them.

    Returns:
        One window per stage; None if nothing tells.
    """
    of_stages = [_window_of_tables(state, stage) for stage in range(num_stages)]
    windows = tuple(window for window in of_stages if window is not None)
    return windows if len(windows) == num_stages else None


def stored_side_px(state: Mapping[str, Tensor], patch_size_px: int) -> int | None:
    """Finds the side of the square image in the masks that shifted windows store beside weights.

    Returns:
        None if no stage has such a mask.
    """
    for name, mask in state.items():
        found = re.fullmatch(r"layers\.(\d+)\.blocks\.\d+\.attn_mask", name)
        if found:  # (windows, w^2, w^2)
            side_tokens = math.isqrt(mask.shape[0] * mask.shape[1])
            return (side_tokens << int(found[1])) * patch_size_px
    return None


def stored_pretrained_windows(
    state: Mapping[str, Tensor], num_stages: int
) -> tuple[Window, ...] | None:
    """Finds in Swin V2's tables of coordinates the windows that they are in units of.

    Returns:
        One window per stage; None if a stage has no table.
    """
    windows = []
    for stage in range(num_stages):
        table = state.get(f"{_first_attention(stage)}.relative_coords_table")
        if table is None:
            return None
        if table.shape[1] < 3:
            windows.append(1)  # any window has the same table
            continue
        reach = (table.shape[1] - 1) // 2
        outermost = (8.0 ** float(table.abs().max()) - 1) / 8  # reach / (window - 1)
        windows.append(round(reach / outermost) + 1)
    return tuple(windows)


def _depths(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    matches = (re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name) for name in state)
    blocks = {(int(match[1]), int(match[2])) for match in matches if match}
    blocks_per_stage = Counter(stage for stage, _ in blocks)
    return tuple(blocks_per_stage[stage] for stage in range(len(blocks_per_stage)))


def _num_heads(state: Mapping[str, Tensor], version: int, stage: int) -> int:
    attention = _first_attention(stage)
    if version == 2:
        return _shape(state, f"{attention}.logit_scale", 3)[0]
    return _shape(state, f"{attention}.relative_position_bias_table", 2)[1]


def _window_of_tables(state: Mapping[str, Tensor], stage: int) -> int | None:
    attention = _first_attention(stage)
    if (biases := state.get(f"{attention}.relative_position_bias_table")) is not None:
        return (math.isqrt(len(biases)) + 1) // 2  # (2w - 1)^2 rows
    if (coordinates := state.get(f"{attention}.relative_coords_table")) is not None:
        return (coordinates.shape[1] + 1) // 2  # (1, 2w - 1, 2w - 1, 2)
    if (index := state.get(f"{attention}.relative_position_index")) is not None:
        return math.isqrt(len(index))  # (w^2, w^2)
    return None


def _first_attention(stage: int) -> str:
    return f"layers.{stage}.blocks.0.attn"


def _shape(state: Mapping[str, Tensor], name: str, num_dims: int) -> tuple[int, ...]:
    if name not in state:
        raise UserError(f"the tensor {name} is missing")
    if state[name].ndim != num_dims:
        raise UserError(f"{name} has shape {tuple(state[name].shape)}, not {num_dims} dimensions")
    return tuple(state[name].shape)

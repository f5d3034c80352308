"""What Swin the tensors of an original SimMIM checkpoint describe (L1)."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from ssl_swin.encoders import Window, stage_window_sizes
from ssl_swin.errors import UserError


class Architecture(NamedTuple):
    """The arguments of `ssl_swin.encoders.swin` that weights determine."""

    version: int
    embed_dim: int
    in_chans: int
    patch_size_px: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]


def infer_architecture(state: Mapping[str, Tensor]) -> Architecture:
    """Reads the architecture off the names and shapes of `encoder.*`.

    Raises:
        UserError: If a tensor that is needed for it is missing or has another number of dimensions.
    """
    version = 2 if any(name.endswith(".attn.logit_scale") for name in state) else 1
    embed_dim, in_chans, patch_size_px, _ = _shape(state, "encoder.patch_embed.proj.weight", 4)
    depths = _depths(state)
    return Architecture(
        version=version,
        embed_dim=embed_dim,
        in_chans=in_chans,
        patch_size_px=patch_size_px,
        depths=depths,
        num_heads=tuple(_num_heads(state, version, stage) for stage in range(len(depths))),
    )


def trained_windows(
    state: Mapping[str, Tensor], architecture: Architecture, config: Mapping[str, Any] | None
) -> tuple[Window, ...] | None:
    """Finds the attention window of each stage, in tokens.

    Swin V1 always tells it by its position bias tables. The weights of V2 do not depend on it; it
    then follows from the tables of coordinates that were stored beside them, or else from the
    original's configuration.

    Returns:
        One window per stage; None if nothing tells.
    """
    of_stages = [_window_of_tables(state, stage) for stage in range(len(architecture.depths))]
    windows = tuple(window for window in of_stages if window is not None)
    if len(windows) == len(of_stages):
        return windows
    return _windows_of_config(config, architecture)


def _depths(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    matches = (re.match(r"encoder\.layers\.(\d+)\.blocks\.(\d+)\.", name) for name in state)
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


def _windows_of_config(
    config: Mapping[str, Any] | None, architecture: Architecture
) -> tuple[Window, ...] | None:
    match config:
        case {
            "MODEL": {"SWINV2": {"WINDOW_SIZE": int(window_size)}},
            "DATA": {"IMG_SIZE": int(side_px)},
        }:
            return stage_window_sizes(
                (side_px, side_px),
                architecture.patch_size_px,
                window_size,
                num_stages=len(architecture.depths),
            )
    return None


def _first_attention(stage: int) -> str:
    return f"encoder.layers.{stage}.blocks.0.attn"


def _shape(state: Mapping[str, Tensor], name: str, num_dims: int) -> tuple[int, ...]:
    if name not in state:
        raise UserError(f"the tensor {name} is missing")
    if state[name].ndim != num_dims:
        raise UserError(f"{name} has shape {tuple(state[name].shape)}, not {num_dims} dimensions")
    return tuple(state[name].shape)

"""Another image size or attention window for an encoder that is already trained.

Reference: the change of window in SimMIM's fine-tuning. Swin V1 and BEiT have one position bias per
offset, a table that is resized here. Swin V2 computes its bias from offsets in units of the window
that it was trained with, so that one is only built anew. Positions at the input are resized as timm
does. No other weight depends on size or window.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ssl_swin.encoders.build import build_encoder
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.positions import resized_positions
from ssl_swin.encoders.sizes import Size, Window, as_size
from ssl_swin.encoders.spline import spline_matrix
from ssl_swin.errors import UserError

_TABLE = "relative_position_bias_table"


def resize_encoder(
    encoder: Encoder,
    *,
    img_size_px: int | Sequence[int] | None = None,
    window_size: int | None = None,
    drop_path_rate: float = 0.0,
    grad_checkpointing: bool = False,
) -> Encoder:
    """Builds an encoder of another input size or window, with the weights of this one.

    Args:
        encoder: Left as it is.
        img_size_px: Side of the square input, or (height, width); None keeps it.
        window_size: Window of a Swin in tokens. None scales it with the image, as the recipe does
            from 192 px and 6 to 224 px and 7; where that does not tile the image, it keeps it.
        drop_path_rate: Drop path rate of the training to come.
        grad_checkpointing: Gradient checkpointing in the training to come.

    Raises:
        UserError: If the encoder cannot take the size, naming sizes that it can; or the window.
    """
    size = encoder.img_size_px if img_size_px is None else _checked_size(img_size_px)
    resized = build_encoder(
        encoder.architecture,
        encoder.resized_args(size, window_size),
        drop_path_rate=drop_path_rate,
        grad_checkpointing=grad_checkpointing,
    )
    state, _ = fit_state_to(
        encoder.model.state_dict(),
        resized,
        source_windows=encoder.bias_windows(),
        source_grid=_grid(encoder),
    )
    resized.model.load_state_dict(state)
    return resized


def fit_state_to(
    state: Mapping[str, Tensor],
    encoder: Encoder,
    *,
    source_windows: Sequence[Window] | None = None,
    source_grid: Size | None = None,
) -> tuple[dict[str, Tensor], list[str]]:
    """Resizes the position-bias tables of a state, and positions, to the windows of an encoder.

    Args:
        state: Tensors by timm's names; whatever is not a table of this encoder passes through.
        encoder: Encoder that the state is for.
        source_windows: Windows by stage; None takes every table for one of a square window.
        source_grid: Rows and columns of patches; None takes positions for those of a square.

    Returns:
        The state, and a note on each table that was resized.

    Raises:
        UserError: If a table is not one of its window, or positions not those of a square.
    """
    targets, fitted, notes = encoder.bias_windows(), dict(state), []
    num_kept = encoder.num_class_token_rows
    for name, stage in _tables(encoder, state):
        table = state[name]
        offsets, kept = table[: len(table) - num_kept], table[len(table) - num_kept :]
        source = source_windows[stage] if source_windows else _square_window(name, len(offsets))
        if source != targets[stage]:
            fitted[name] = torch.cat([resize_bias_table(offsets, source, targets[stage]), kept])
            notes.append(f"{name}: resized from window {source} to {targets[stage]}")
    if encoder.positions and encoder.positions[0] in state:
        name, num_tokens = encoder.positions
        grid = source_grid or _square_grid(name, state[name].shape[1] - num_tokens)
        target = _grid(encoder)
        fitted[name] = resized_positions(state[name], grid, target, num_tokens=num_tokens)
        notes += [f"{name}: resized from {grid} to {target} patches"] * (grid != target)
    return fitted, notes


def _grid(encoder: Encoder) -> Size:
    """Returns the rows and columns of an encoder's patches."""
    height_px, width_px = encoder.img_size_px
    return height_px // encoder.patch_size_px, width_px // encoder.patch_size_px


def _square_grid(name: str, number: int) -> Size:
    side = math.isqrt(number)
    if side**2 != number:
        raise UserError(f"{name} has positions of {number} patches, which are no square")
    return side, side


def resize_bias_table(table: Tensor, source_window: Window, target_window: Window) -> Tensor:
    """Resizes a position bias to another window.

    The known offsets are taken to lie 1, q, q^2, ... apart from the centre outwards, so that the
    outermost falls on the new window's outermost, and a bicubic spline through them is read at
    whole offsets: steps near the centre, which matter most, keep their meaning. As in the original,
    q lies in [1.01, 1.5], and what is then beyond the outermost known offset takes its value.

    Args:
        table: (L1, heads), L1 = (2 h - 1) (2 w - 1) offsets of the source window, row by row.
        source_window: Tokens, a side or (height, width).
        target_window: Tokens, a side or (height, width).

    Returns:
        (L2, heads) of the table's type and device; the table itself if the windows are equal.

    Raises:
        UserError: If the table is not one of the source window.
    """
    source, target = _sides(source_window), _sides(target_window)
    high, wide = (2 * side - 1 for side in source)
    if len(table) != high * wide:
        raise UserError(
            f"a position bias of window {source_window} has {high * wide} rows, "
            f"this table has {len(table)}"
        )
    if source == target:
        return table
    values = table.detach().cpu().double().numpy().reshape(high, wide, -1)
    rows, columns = (spline_matrix(*sides) for sides in zip(source, target, strict=True))
    resized = np.einsum("ih,jw,hwc->ijc", rows, columns, values)
    return torch.from_numpy(resized.reshape(-1, table.shape[1])).to(table)


def _tables(encoder: Encoder, state: Mapping[str, Tensor]) -> Iterator[tuple[str, int]]:
    """Yields the name of each table, and the number of its stage."""
    for name in encoder.model.state_dict().keys() & state.keys():
        if name.endswith(_TABLE):
            stage = re.match(r"layers\.(\d+)\.", name)
            yield name, int(stage.group(1)) if stage else 0


def _square_window(name: str, num_offsets: int) -> int:
    side = (math.isqrt(num_offsets) + 1) // 2
    if (2 * side - 1) ** 2 != num_offsets:
        raise UserError(f"{name} has {num_offsets} rows, which are those of no square window")
    return side


def _checked_size(img_size_px: int | Sequence[int]) -> Size:
    sides = [img_size_px] if isinstance(img_size_px, int | float | str) else list(img_size_px)
    if not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError(f"img_size_px must be a number or [height, width], got {img_size_px!r}")
    return as_size(img_size_px)


def _sides(window: Window) -> Size:
    return (window, window) if isinstance(window, int) else window

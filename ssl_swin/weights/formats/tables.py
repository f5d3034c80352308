"""The tables that others store beside weights, and that follow from sizes alone."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.weights.formats.format import COORDINATES, INDEX, MASK

_KINDS = (INDEX, COORDINATES, MASK)


def is_table(name: str) -> bool:
    """Returns whether a name is that of such a table."""
    return name.rpartition(".")[2] in _KINDS


def tables_of(encoder: Encoder, kinds: Collection[str]) -> dict[str, Tensor]:
    """Returns the tables of an encoder, by timm's names.

    Args:
        encoder: Swin V1 has no table of coordinates, and only shifted blocks have a mask.
        kinds: Last parts of the names to give.
    """
    return {
        name: table
        for name, table in encoder.model.named_buffers()
        if table is not None and name.rpartition(".")[2] in kinds
    }


def check_tables(encoder: Encoder, given: Mapping[str, Tensor]) -> None:
    """Compares tables of a file with those of the encoder that was built for it.

    Raises:
        UserError: If they differ: the encoder then does not compute what the file is for.
    """
    own = tables_of(encoder, _KINDS)
    for name, table in given.items():
        rebuilt = own.get(name)
        if rebuilt is None or rebuilt.shape != table.shape or not _close(rebuilt, table):
            height_px, width_px = encoder.img_size_px
            raise UserError(
                f"{name} is not that of a {encoder.title} for {height_px}x{width_px} px: give the "
                "image size that the file was trained with"
            )


def _close(rebuilt: Tensor, table: Tensor) -> bool:
    return torch.allclose(rebuilt.double(), table.double(), rtol=0, atol=1e-5)

"""The few tensors that other implementations do not only name otherwise.

Each function turns a tuple of tensors into another one, and has an inverse beside it.
"""

import torch

from ssl_swin.weights.formats.key_maps import Tensors


def split_rows(tensors: Tensors) -> Tensors:
    """Splits `qkv` into query, key and value: equal blocks of rows."""
    (qkv,) = tensors
    return tuple(part.contiguous() for part in qkv.chunk(3))


def join_rows(tensors: Tensors) -> Tensors:
    """Joins query, key and value into `qkv`."""
    return (torch.cat(tensors),)


def with_zero_key(tensors: Tensors) -> Tensors:
    """Joins the biases of query and value around that of the key, which is zero in Swin V2."""
    query, value = tensors
    return (torch.cat([query, torch.zeros_like(query), value]),)


def without_key(tensors: Tensors) -> Tensors:
    """Takes the biases of query and value; the key's has no effect in Swin V2."""
    query, _, value = tensors[0].chunk(3)
    return query.contiguous(), value.contiguous()


def flattened(tensors: Tensors) -> Tensors:
    """Flattens a table."""
    return (tensors[0].flatten(),)


def squared(tensors: Tensors) -> Tensors:
    """Makes a flat table of pairs square again."""
    side = round(len(tensors[0]) ** 0.5)
    return (tensors[0].view(side, side),)


def to_unfold_order(tensors: Tensors) -> Tensors:
    """Reorders what patch merging sees from ours to that of `torch.nn.Unfold`.

    Ours is four pixels of C channels each, down the columns first; Unfold's is C channels of four
    pixels each, along the rows first. The last axis, 4 C long, is reordered.
    """
    (ours,) = tensors
    pixels = ours.reshape(*ours.shape[:-1], 2, 2, -1)  # column, row, channel
    return (pixels.movedim(-1, -3).transpose(-1, -2).flatten(-3).contiguous(),)


def from_unfold_order(tensors: Tensors) -> Tensors:
    """Reorders what patch merging sees from that of `torch.nn.Unfold` to ours."""
    (theirs,) = tensors
    pixels = theirs.reshape(*theirs.shape[:-1], -1, 2, 2)  # channel, row, column
    return (pixels.movedim(-3, -1).transpose(-2, -3).flatten(-3).contiguous(),)

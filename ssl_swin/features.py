"""Frozen features: one vector per labelled image from any stage of an encoder (L1)."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ssl_swin.errors import UserError

Pooling = Literal["mean", "max"]


class NoLabelsError(UserError):
    """There is nothing to judge features by."""


class StagedEncoder(Protocol):
    """The part of an encoder that feature extraction uses."""

    def stages(self, images: Tensor) -> list[Tensor]:
        """Gives one map (B, C_i, H_i, W_i) per stage for normalised images (B, C, H, W)."""

    def modules(self) -> Iterator[nn.Module]:
        """As in `torch.nn.Module`."""

    def eval(self) -> object:
        """As in `torch.nn.Module`."""


class Features(NamedTuple):
    """Labelled feature vectors: `features` (N, C) float32 and `labels` (N,) int64, on the CPU."""

    features: Tensor
    labels: Tensor


def pool_map(features: Tensor, pooling: Pooling) -> Tensor:
    """Pools feature maps (B, C, H, W) over space to (B, C).

    Raises:
        UserError: If `pooling` is neither "mean" nor "max".
    """
    if pooling == "mean":
        return features.mean(dim=(2, 3))
    if pooling == "max":
        return features.amax(dim=(2, 3))
    raise UserError(f"unknown pooling '{pooling}': use 'mean' or 'max'")


def extract_features(
    encoder: StagedEncoder,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    stages: Sequence[int],
    pooling: Pooling,
    device: torch.device | str,
) -> dict[int, Features]:
    """Computes the features of all asked stages in one pass, with the encoder in eval mode.

    The training mode of every submodule is put back afterwards. Maps are pooled in float32, also
    under `torch.autocast`.

    Args:
        encoder: Already on `device`.
        batches: Yields images (B, C, H, W), normalised, and their labels (B,). A label below 0
            means unlabelled; such samples are left out.
        stages: Which stages, counted from 1. The last one is taken after the final norm.
        pooling: How a map becomes a vector.
        device: Where the encoder computes.

    Returns:
        Features by stage number, samples in the order of `batches`.

    Raises:
        UserError: If no stage is asked for, or a stage does not exist.
        NoLabelsError: If no sample has a label.
    """
    if not stages:
        raise UserError("no stage to take features from: name at least one, counted from 1")
    pooled: dict[int, list[Tensor]] = {stage: [] for stage in stages}
    kept_labels: list[Tensor] = []
    with _evaluating(encoder), torch.inference_mode():
        for images, labels in batches:
            labelled = labels >= 0
            if not labelled.any():
                continue
            maps = encoder.stages(images[labelled].to(device, non_blocking=True))
            for stage, vectors in pooled.items():
                vectors.append(pool_map(_map_of(stage, maps).float(), pooling).cpu())
            kept_labels.append(labels[labelled].long().cpu())
    if not kept_labels:
        raise NoLabelsError("no labelled sample to take features of: every label is missing")
    # Joined outside inference mode, so that the result may take part in training.
    all_labels = torch.cat(kept_labels)
    return {stage: Features(torch.cat(vectors), all_labels) for stage, vectors in pooled.items()}


def _map_of(stage: int, maps: Sequence[Tensor]) -> Tensor:
    if not 1 <= stage <= len(maps):
        raise UserError(f"there is no stage {stage}: this encoder's stages are 1 to {len(maps)}")
    return maps[stage - 1]


@contextmanager
def _evaluating(encoder: StagedEncoder) -> Iterator[None]:
    training = [(module, module.training) for module in encoder.modules()]
    encoder.eval()
    try:
        yield
    finally:
        for module, mode in training:  # one by one: parts of an encoder may be frozen in eval mode
            module.training = mode

"""Frozen features: vectors per labelled image from any stages of an encoder."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ssl_swin.errors import UserError

Pooling = Literal["mean", "max"]


class NoLabelsError(UserError):
    """There is nothing to judge features by."""


class StagedEncoder(Protocol):
    """The part of an encoder that feature extraction uses."""

    def stages(self, images: Tensor) -> list[Tensor]:
        """Returns one map (B, C_i, H_i, W_i) per stage for normalised images (B, C, H, W)."""

    def modules(self) -> Iterator[nn.Module]:
        """As in `torch.nn.Module`."""

    def eval(self) -> Any:
        """As in `torch.nn.Module`."""


class Tap(NamedTuple):
    """Where features are taken: after which stage, counted from 1, and how its map is pooled."""

    stage: int
    pooling: Pooling


class Features(NamedTuple):
    """Labelled feature vectors: `features` (N, C) floats and `labels` (N,) int64, on the CPU."""

    features: Tensor
    labels: Tensor


class PooledBatch(NamedTuple):
    """Features of a batch: float32 (B, C_i) by tap, and `labels` (B,) int64, on the CPU."""

    features: dict[Tap, Tensor]
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


def pooled_batches(
    encoder: StagedEncoder,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    taps: Sequence[Tap],
    device: torch.device | str,
) -> Iterator[PooledBatch]:
    """Computes the features at all taps in one pass, batch by batch, with the encoder in eval mode.

    The training mode of every submodule is put back after each batch. Maps are pooled in float32,
    also under `torch.autocast`.

    Args:
        encoder: Already on `device`.
        batches: Yields images (B, C, H, W), normalised, and their labels (B,). A label below 0
            means unlabelled; such samples are left out.
        taps: Which features. Those of the last stage are taken after the final norm.
        device: Device on which the encoder computes.

    Raises:
        UserError: If no tap is named, or its stage or pooling does not exist.
        NoLabelsError: If no sample has a label.
    """
    if not taps:
        raise UserError("no stage to take features from: name at least one, counted from 1")
    found_any = False
    for images, labels in batches:
        labelled = labels >= 0
        if labelled.any():
            found_any = True
            vectors = pooled(encoder, images[labelled].to(device, non_blocking=True), taps)
            yield PooledBatch(vectors, labels[labelled].long().cpu())
    if not found_any:
        raise NoLabelsError("no labelled sample to take features of: every label is missing")


def extract_features(
    encoder: StagedEncoder,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    stages: Sequence[int],
    pooling: Pooling,
    device: torch.device | str,
) -> dict[int, Features]:
    """Collects the features of all asked stages in memory; see `pooled_batches`.

    Args:
        encoder: Already on `device`.
        batches: Images and labels.
        stages: Which stages, counted from 1.
        pooling: How a map becomes a vector.
        device: Device on which the encoder computes.

    Returns:
        Features by stage number, float32, samples in the order of `batches`.

    Raises:
        UserError: If no stage is asked for, or a stage does not exist.
        NoLabelsError: If no sample has a label.
    """
    taps = [Tap(stage, pooling) for stage in stages]
    pooled = list(pooled_batches(encoder, batches, taps=taps, device=device))
    labels = torch.cat([batch.labels for batch in pooled])
    return {
        tap.stage: Features(torch.cat([batch.features[tap] for batch in pooled]), labels)
        for tap in taps
    }


def pooled(encoder: StagedEncoder, images: Tensor, taps: Sequence[Tap]) -> dict[Tap, Tensor]:
    """Compute float32 features (B, C_i) of images at taps, on the CPU; see `pooled_batches`.

    Args:
        encoder: As in `pooled_batches`.
        images: Normalised (B, C, H, W), on the encoder's device.
        taps: Which features.
    """
    with _evaluating(encoder), torch.no_grad():
        maps = encoder.stages(images)
        return {tap: pool_map(_map_of(tap.stage, maps).float(), tap.pooling).cpu() for tap in taps}


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

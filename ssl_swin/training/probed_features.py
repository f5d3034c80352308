"""Features of held-out and training images, computed by all devices of a run together."""

import time
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_swin.errors import UserError
from ssl_swin.probing.features import Features, Tap, pooled
from ssl_swin.training.all_ranks import done_by_all
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.module import TrainingModule


class ProbedImages(NamedTuple):
    """Features of images, pooled by the mean, in the order of the images."""

    by_stage: dict[int, Tensor]  # float32 (N, C_i) by stage, counted from 1
    labels: Tensor  # int64 (N,), below 0 where there is none
    names: list[str]  # N

    def labelled(self, stage: int) -> Features:
        """Return those images that have a label, with the features of a stage."""
        known = self.labels >= 0
        return Features(self.by_stage[stage][known], self.labels[known])


class Taken(NamedTuple):
    """Images, and how many there were time for."""

    images: ProbedImages
    num_batches: int  # of a device
    was_cut: bool  # there were more


class _Share(NamedTuple):
    """What one device computed."""

    batches: list[ProbedImages]
    is_whole: bool  # the time did not end before its images did


def probed_images(
    module: TrainingModule,
    data: ImageDataModule,
    split: str,
    *,
    num_batches: int | None,
    until_s: float,
) -> Taken:
    """Compute features of every stage with the model in eval mode; the devices share the images.

    Args:
        module: What is trained.
        data: Has the images.
        split: Which ones, from the first one on.
        num_batches: Of each device; None takes all images.
        until_s: Moment of `time.perf_counter` after which no further batch is begun, of which all
            devices then leave out as many.

    Raises:
        UserError: If no image can be read, or computing fails on another device.
    """
    shares = done_by_all(lambda: _own_share(module, data, split, num_batches, until_s))
    ended = [len(share.batches) for share in shares if not share.is_whole]
    taken = min([*ended, max(len(share.batches) for share in shares)])
    images = _joined([_one(share.batches[:taken]) for share in shares if share.batches])
    return Taken(images, taken, was_cut=bool(ended))


def _own_share(
    module: TrainingModule,
    data: ImageDataModule,
    split: str,
    num_batches: int | None,
    until_s: float,
) -> _Share:
    encoder = module.model.encoder
    taps = [Tap(stage, "mean") for stage in range(1, len(encoder.stage_dims) + 1)]
    found: list[ProbedImages] = []
    for batch in islice(data.labelled_loader(split), num_batches):
        if found and time.perf_counter() > until_s:
            return _Share(found, is_whole=False)
        images = module.normalized(batch.pixels.to(module.device))
        with module.trainer.precision_plugin.forward_context():
            features = pooled(encoder, images, taps)
        by_stage = {tap.stage: rows for tap, rows in features.items()}
        found.append(ProbedImages(by_stage, batch.labels, batch.names))
    return _Share(found, is_whole=True)


def _one(batches: Sequence[ProbedImages]) -> ProbedImages:
    return ProbedImages(
        {stage: torch.cat([each.by_stage[stage] for each in batches]) for stage in batches[0][0]},
        torch.cat([each.labels for each in batches]),
        [name for each in batches for name in each.names],
    )


def _joined(shares: Sequence[ProbedImages]) -> ProbedImages:
    """Return the images of all devices, which were dealt out in turn, in their own order."""
    if not shares:
        raise UserError("no image to probe features of can be read")
    positions = [
        torch.arange(len(share.names)) * len(shares) + rank for rank, share in enumerate(shares)
    ]
    order = torch.cat(positions).argsort()
    whole = _one(shares)
    return ProbedImages(
        {stage: rows[order] for stage, rows in whole.by_stage.items()},
        whole.labels[order],
        [whole.names[at] for at in order.tolist()],
    )

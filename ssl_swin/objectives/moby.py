"""MoBY: self-distillation by contrast, between two views, against a queue of earlier images.

References: MoBY (arXiv:2105.04553), to which it is equal to rounding, see
tests/objectives/test_moby.py; MIM-Refiner (arXiv:2402.10093) for heads on several stages, whose
losses add up.
"""

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_swin.arguments import EACH_ONCE, Above0, Fraction, NotEmpty, Positive, checked
from ssl_swin.data.samples import Augmentation, PixelFormat
from ssl_swin.data.views import ColorViews
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.figure import Figure, ImageColumn
from ssl_swin.objectives.base import Collate, Normalize, Objective, Output, Progress
from ssl_swin.objectives.collapse import unit_spread
from ssl_swin.objectives.momentum import cosine_momentum, follow, momentum_encoder
from ssl_swin.objectives.over_ranks import GlobalBatchNorm1d, gathered_rows
from ssl_swin.objectives.view_batches import ViewsBatch, ViewsTransform, collate_views


class MoBY(Objective):
    """Finds an image's other view, as a momentum target sees it, among a queue of other images.

    Differs from the reference: the momentum is a function of the step also after a resume, batch
    statistics are over all devices on CPUs too, and no queue grows in an evaluation.

    Attributes:
        momentum: Of the target in the first step; it rises to 1.
        stages: Numbers, from 1, of the maps that have a projector, a predictor and queues each.
        projectors: Of each of these stages.
        predictors: Of each of these stages.
        target: Encoder that follows.
        target_projectors: Follow the projectors.
        keys1: Queues of keys of the first views, (stages, queue_length, out_dim).
        keys2: The same of the second views.
        next_key: Place of the oldest key in each queue.
    """

    title = "MoBY"
    tags = ("moby", "self-supervised")
    keys1: Tensor
    keys2: Tensor
    next_key: Tensor

    @checked
    def __init__(
        self,
        encoder: Encoder,
        *,
        colors: ColorViews,
        temperature: Above0 = 0.2,
        queue_length: Positive = 4096,
        momentum: Fraction = 0.99,
        hidden_dim: Positive = 4096,
        out_dim: Positive = 256,
        stages: Annotated[NotEmpty, EACH_ONCE] | None = None,
    ) -> None:
        """Put an encoder beside its target.

        Args:
            encoder: The encoder to train.
            colors: Changes of colours, by view.
            temperature: What similarities are divided by.
            queue_length: Keys of earlier images that are kept, a multiple of the images per step.
            momentum: What remains of the target in the first step; it rises to 1 in half a cosine.
            hidden_dim: Width of the hidden layer of projector and predictor.
            out_dim: Width of what is compared.
            stages: Numbers, from 1, of the encoder's maps that are compared, each by heads and
                queues of its own, the last one among them; None for the last one alone.

        Raises:
            UserError: If there is no such stage, or the last one is left out.
        """
        super().__init__(encoder)
        self.stages = _stages(encoder, stages)
        self.colors = colors
        self.temperature = temperature
        self.queue_length = queue_length
        self.momentum = momentum
        widths = [encoder.stage_dims[stage - 1] for stage in self.stages]
        self.projectors = _heads(widths, hidden_dim, out_dim)
        self.predictors = _heads([out_dim] * len(widths), hidden_dim, out_dim)
        self.target = momentum_encoder(encoder)
        self.target_projectors = _heads(widths, hidden_dim, out_dim)
        self.target_projectors.load_state_dict(self.projectors.state_dict())
        self.target_projectors.requires_grad_(False)
        for name in ("keys1", "keys2"):
            keys = torch.randn(len(widths), queue_length, out_dim)
            self.register_buffer(name, F.normalize(keys, dim=-1))
        self.register_buffer("next_key", torch.zeros((), dtype=torch.int64))
        self._num_steps: int | None = None

    def make_transform(
        self, augmentation: Augmentation, pixels: PixelFormat, *, seed: int
    ) -> ViewsTransform:
        """See `Objective.make_transform`."""
        self.colors.check(pixels, ("view 1", "view 2"), "objective.colors")
        return ViewsTransform([augmentation] * 2, self.colors, pixels, seed=seed)

    def make_collate(self) -> Collate:
        """See `Objective.make_collate`."""
        return collate_views

    def check_batch_size(self, batch_size: int, global_batch_size: int) -> None:
        """See `Objective.check_batch_size`."""
        if self.queue_length % global_batch_size:
            multiple = max(1, self.queue_length // global_batch_size) * global_batch_size
            raise UserError(
                f"objective.queue_length={self.queue_length} is no multiple of the "
                f"{global_batch_size} images of a batch over all devices: set "
                f"objective.queue_length={multiple}, or another batch_size"
            )
        if batch_size < 2:
            raise UserError(
                "batch_size=1 has no batch statistics, which MoBY's heads need: give 2 or more"
            )

    def forward(self, batch: ViewsBatch, normalize: Normalize) -> Output:
        """See `Objective.forward`; in training, the keys then join the queues."""
        view1, view2 = normalize(batch.pixels), normalize(batch.others[0])
        queries1, queries2 = self._queries(view1), self._queries(view2)
        with torch.no_grad():
            features, keys1 = self._keys(view1)
            _, keys2 = self._keys(view2)
        sides = ((queries1, keys2, self.keys2), (queries2, keys1, self.keys1))
        losses = [self._contrast(*each) for side in sides for each in zip(*side, strict=True)]
        if self.training:
            self._enqueue(keys1, keys2)
        logs = self._logs(features, (queries1, queries2), (keys1, keys2))
        return Output(torch.stack(losses).sum(), logs)

    def before_step(self, progress: Progress) -> None:
        """See `Objective.before_step`."""
        self._num_steps = progress.num_steps

    def after_step(self, step: int) -> None:
        """Let the target follow, as the reference does at the start of the next step."""
        assert self._num_steps is not None
        momentum = self.momentum_at(step / self._num_steps)
        leaders = [self.encoder, self.projectors]
        follow([self.target, self.target_projectors], leaders, momentum)

    def momentum_at(self, share: float) -> float:
        """Return the target's momentum where a share of the run is done."""
        return cosine_momentum(self.momentum, min(1.0, share))

    def preview(self, batch: ViewsBatch, normalize: Normalize) -> Figure:
        """The two views."""
        return (
            ImageColumn("view 1", normalize(batch.pixels)),
            ImageColumn("view 2", normalize(batch.others[0])),
        )

    def describe(self) -> str:
        """See `Objective.describe`."""
        several = ""
        if len(self.stages) > 1:
            several = f"heads on stages {' and '.join(map(str, self.stages))}, "
        return (
            f"MoBY, {several}{self.queue_length} keys, temperature {self.temperature:g}, momentum "
            f"from {self.momentum:g}"
        )

    def _queries(self, images: Tensor) -> list[Tensor]:
        features = self._features(self.encoder, images)
        heads = zip(self.projectors, self.predictors, features, strict=True)
        return [_unit(predictor(projector(rows))) for projector, predictor, rows in heads]

    def _keys(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the last map's features, and the keys of each stage."""
        features = self._features(self.target, images)
        heads = zip(self.target_projectors, features, strict=True)
        return features[-1], [_unit(projector(rows)) for projector, rows in heads]

    def _features(self, encoder: Encoder, images: Tensor) -> list[Tensor]:
        """Return the pooled map (B, C_i) of each stage; the last one as a classifier sees it.

        Others are means of what no norm follows; the batch statistics of the heads take their
        place.
        """
        *inner, last = self.stages
        if not inner:
            return [encoder.pool(encoder(images))]
        maps = encoder.stages(images)
        means = [maps[stage - 1].mean(dim=(2, 3)) for stage in inner]
        return [*means, encoder.pool(maps[last - 1])]

    @torch.no_grad()
    def _logs(
        self, features: Tensor, queries: Sequence[list[Tensor]], keys: Sequence[list[Tensor]]
    ) -> dict[str, Tensor]:
        """Return what is logged; of several stages, the last by the plain names."""
        logs = {"rep/std_mean": unit_spread(features)}
        for stage, query1, query2, key1, key2 in zip(self.stages, *queries, *keys, strict=True):
            cosines = (query1 * key2).sum(1).mean() + (query2 * key1).sum(1).mean()
            suffix = "" if stage == self.stages[-1] else f"/stage{stage}"
            logs[f"positive_cosine{suffix}"] = cosines / 2
            logs[f"key_std{suffix}"] = unit_spread(key1)
        return logs

    def _contrast(self, query: Tensor, key: Tensor, keys: Tensor) -> Tensor:
        """Cross-entropy of finding the key among the keys of the queue."""
        with torch.autocast(query.device.type, enabled=False):
            right = (query * key).sum(1, keepdim=True)
            # A copy, since the queue changes before the backward pass.
            similarities = torch.cat([right, query @ keys.t().clone()], dim=1) / self.temperature
            return F.cross_entropy(similarities, similarities.new_zeros(len(query)).long())

    @torch.no_grad()
    def _enqueue(self, keys1: list[Tensor], keys2: list[Tensor]) -> None:
        """Put the keys of all devices in place of the oldest."""
        for queues, new in ((self.keys1, keys1), (self.keys2, keys2)):
            for queue, keys in zip(queues, new, strict=True):
                rows = gathered_rows(keys)
                places = self.next_key + torch.arange(len(rows), device=rows.device)
                queue.index_copy_(0, places % len(queue), rows)
        self.next_key.copy_((self.next_key + len(rows)) % self.queue_length)


def _stages(encoder: Encoder, stages: Sequence[int] | None) -> tuple[int, ...]:
    """Return the numbers of the stages that are compared, in their order.

    Raises:
        UserError: If there is no such stage, or the last one is left out.
    """
    last = len(encoder.stage_dims)
    if stages is None:
        return (last,)
    asked = f"objective.stages={list(stages)}"
    if max(stages) > last:
        nearest = list(range(max(1, last - 1), last + 1))
        raise UserError(
            f"{asked}: the encoder has the stages 1 to {last}; give some of these, as "
            f"objective.stages={nearest}"
        )
    if last not in stages:
        raise UserError(
            f"{asked} leaves stage {last} without a loss, which is the one that is handed on: name "
            "it too"
        )
    return tuple(sorted(stages))


def _heads(in_dims: Sequence[int], hidden_dim: int, out_dim: int) -> nn.ModuleList:
    return nn.ModuleList(
        nn.Sequential(
            nn.Linear(in_dim, hidden_dim),
            GlobalBatchNorm1d(hidden_dim),
            nn.ReLU(inplace=True),
            nn.Linear(hidden_dim, out_dim),
        )
        for in_dim in in_dims
    )


def _unit(rows: Tensor) -> Tensor:
    with torch.autocast(rows.device.type, enabled=False):
        return F.normalize(rows.float(), dim=1)

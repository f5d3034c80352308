"""MoBY: self-distillation by contrast, between two views, against a queue of earlier images.

Reference: MoBY (arXiv:2105.04553). Equal to the original implementation to rounding, see
tests/objectives/test_moby.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_swin.arguments import Above0, Fraction, Positive, checked
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
        """
        super().__init__(encoder)
        self.colors = colors
        self.temperature = temperature
        self.queue_length = queue_length
        self.momentum = momentum
        self.projector = _head(encoder.num_features, hidden_dim, out_dim)
        self.predictor = _head(out_dim, hidden_dim, out_dim)
        self.target = momentum_encoder(encoder)
        self.target_projector = _head(encoder.num_features, hidden_dim, out_dim)
        self.target_projector.load_state_dict(self.projector.state_dict())
        self.target_projector.requires_grad_(False)
        for name in ("keys1", "keys2"):
            self.register_buffer(name, F.normalize(torch.randn(queue_length, out_dim), dim=1))
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
        query1, query2 = self._query(view1), self._query(view2)
        with torch.no_grad():
            features, key1 = self._key(view1)
            _, key2 = self._key(view2)
        loss = self._contrast(query1, key2, self.keys2) + self._contrast(query2, key1, self.keys1)
        if self.training:
            self._enqueue(key1, key2)
        with torch.no_grad():
            logs = {
                "positive_cosine": ((query1 * key2).sum(1).mean() + (query2 * key1).sum(1).mean())
                / 2,
                "key_std": unit_spread(key1),
                "rep/std_mean": unit_spread(features),
            }
        return Output(loss, logs)

    def before_step(self, progress: Progress) -> None:
        """See `Objective.before_step`."""
        self._num_steps = progress.num_steps

    def after_step(self, step: int) -> None:
        """Let the target follow, as the reference does at the start of the next step."""
        assert self._num_steps is not None
        momentum = self.momentum_at(step / self._num_steps)
        follow([self.target, self.target_projector], [self.encoder, self.projector], momentum)

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
        return (
            f"MoBY, {self.queue_length} keys, temperature {self.temperature:g}, momentum from "
            f"{self.momentum:g}"
        )

    def _query(self, images: Tensor) -> Tensor:
        features = self.encoder.pool(self.encoder(images))
        return _unit(self.predictor(self.projector(features)))

    def _key(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.target.pool(self.target(images))
        return features, _unit(self.target_projector(features))

    def _contrast(self, query: Tensor, key: Tensor, keys: Tensor) -> Tensor:
        """Cross-entropy of finding the key among the keys of the queue."""
        with torch.autocast(query.device.type, enabled=False):
            right = (query * key).sum(1, keepdim=True)
            # A copy, since the queue changes before the backward pass.
            similarities = torch.cat([right, query @ keys.t().clone()], dim=1) / self.temperature
            return F.cross_entropy(similarities, similarities.new_zeros(len(query)).long())

    @torch.no_grad()
    def _enqueue(self, key1: Tensor, key2: Tensor) -> None:
        """Put the keys of all devices in place of the oldest."""
        for keys, new in ((self.keys1, key1), (self.keys2, key2)):
            rows = gathered_rows(new)
            places = (self.next_key + torch.arange(len(rows), device=rows.device)) % len(keys)
            keys.index_copy_(0, places, rows)
        self.next_key.copy_((self.next_key + len(rows)) % len(self.keys1))


def _head(in_dim: int, hidden_dim: int, out_dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_dim, hidden_dim),
        GlobalBatchNorm1d(hidden_dim),
        nn.ReLU(inplace=True),
        nn.Linear(hidden_dim, out_dim),
    )


def _unit(rows: Tensor) -> Tensor:
    with torch.autocast(rows.device.type, enabled=False):
        return F.normalize(rows.float(), dim=1)

"""An objective of one's own: two views, a momentum encoder, logs and a figure.

PYTHONPATH=examples python pretrain.py --config-dir examples/conf objective=two_views

It resumes to the bit, draws, and exports its backbone like any other.
"""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import ssl_swin
from ssl_swin.data.samples import augmented
from ssl_swin.encoders.build import build_encoder
from ssl_swin.figure import ImageColumn


class Views(NamedTuple):
    """A batch: two augmentations of each image."""

    pixels: Tensor  # (B, C, H, W)
    others: Tensor  # (B, C, H, W)
    names: list[str]  # B


def two_views(encoded, epoch, *, augmentation, pixels, seed):
    view = partial(augmented, encoded, augmentation, pixels, seed=seed, epoch=epoch)
    return view(purpose="first view").pixels, view(purpose="second view").pixels, encoded.name


def collate(examples):
    first, second, names = zip(*examples, strict=True)
    return Views(torch.stack(first), torch.stack(second), list(names))


def spread(features):
    """About 1 where images are told apart, 0 where all features are alike."""
    unit = F.normalize(features, dim=1)
    return unit.std(dim=0).mean() * unit.shape[1] ** 0.5


class TwoViews(ssl_swin.Objective):
    """Predicts the features that a moving average of the encoder finds in another view."""

    title = "two views"

    def __init__(self, encoder, *, momentum: float = 0.99):
        super().__init__(encoder)
        self.momentum = momentum
        self.teacher = build_encoder(encoder.architecture, encoder.model_args)
        self.teacher.load_state_dict(encoder.state_dict())
        self.teacher.requires_grad_(False)
        self.predictor = torch.nn.Linear(encoder.num_features, encoder.num_features)

    def make_transform(self, augmentation, pixels, *, seed):
        return partial(two_views, augmentation=augmentation, pixels=pixels, seed=seed)

    def make_collate(self):
        return collate

    def forward(self, batch, normalize):
        student = self.predictor(self.encoder.pool(self.encoder(normalize(batch.pixels))))
        with torch.no_grad():
            teacher = self.teacher.pool(self.teacher(normalize(batch.others)))
        similarity = F.cosine_similarity(student, teacher).mean()
        logs = {"similarity": similarity.detach(), "rep/std_mean": spread(teacher)}
        return ssl_swin.Output(1 - similarity, logs)

    @torch.no_grad()
    def after_step(self, step):
        pairs = zip(self.teacher.parameters(), self.encoder.parameters(), strict=True)
        for teacher, student in pairs:
            teacher.lerp_(student, 1 - self.momentum)

    def preview(self, batch, normalize):
        views = ("view", batch.pixels), ("other view", batch.others)
        return tuple(ImageColumn(title, normalize(pixels)) for title, pixels in views)

    def describe(self):
        return f"two views, momentum {self.momentum}"

"""Classifiers on frozen features, to judge them before anyone pays for fine-tuning (L1).

Reference: MAE's linear probe, and the weighted kNN of arXiv:1805.01978. SimMIM publishes one linear
number (ViT-B: 56.7, on its 8th of 12 blocks) and none for Swin. The best features of masked image
models lie in the middle, so ask several stages.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_swin.errors import UserError
from ssl_swin.features import Features
from ssl_swin.lars import LARS

REFERENCE_BATCH_SIZE = 256  # MAE states the probe's rate per this many images
KNN_CHUNK_SIMILARITIES = 2**26  # held at a time: 256 MiB of float32


class LinearProbe(nn.Module):
    """Batch norm without affine parameters, then one linear layer: (B, C) to (B, num_classes).

    The weight starts truncated normal with a std of 0.01, the bias at 0.
    """

    def __init__(self, num_features: int, num_classes: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(num_features, affine=False, eps=1e-6)
        # By way of "meta", since the usual constructor draws from the global generator.
        self.linear = nn.Linear(num_features, num_classes, device="meta").to_empty(device="cpu")
        nn.init.trunc_normal_(self.linear.weight, std=0.01, generator=generator)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Gives class scores (B, num_classes) for features (B, C)."""
        scores: Tensor = self.linear(self.norm(features))
        return scores


def fit_linear_probe(
    train: Features,
    *,
    num_classes: int,
    optimizer: Literal["sgd", "lars"],
    base_lr: float,
    batch_size: int,
    epochs: int,
    warmup_epochs: int,
    weight_decay: float,
    momentum: float = 0.9,
    seed: int,
    device: torch.device | str,
    on_epoch_end: Callable[[int, float], None] | None = None,
) -> LinearProbe:
    """Trains a linear probe with cross-entropy, by MAE's recipe.

    The rate peaks at `base_lr * batch_size / 256`: step by step a linear warm-up from 0, then half
    a cosine to 0. Every epoch visits all samples in a new order; the last batch may be smaller, and
    is dropped if it holds a single sample, which batch norm cannot normalise.

    Args:
        train: Two samples or more.
        num_classes: Labels lie in [0, num_classes).
        optimizer: MAE uses "lars".
        base_lr: Rate per 256 samples (MAE: 0.1).
        batch_size: Samples per step, at least 2 (MAE: 16384).
        epochs: Passes over the samples (MAE: 90).
        warmup_epochs: The first of them, fewer than `epochs` (MAE: 10).
        weight_decay: L2 penalty (MAE: 0).
        momentum: Of either optimiser.
        seed: Decides initial weights and orders; same seed, same probe.
        device: Where the probe is trained.
        on_epoch_end: Called with the epoch, counted from 1, and the mean loss of its steps.

    Returns:
        The probe in eval mode, on `device`.

    Raises:
        UserError: If a setting is out of range, or a label is not one of the classes.
    """
    num_samples = len(train.labels)
    if batch_size < 2 or num_samples < 2:
        raise UserError(
            "batch norm needs 2 samples per step or more: "
            f"batch_size is {batch_size}, and there are {num_samples} samples to train on"
        )
    if not 0 <= warmup_epochs < epochs:
        raise UserError(f"warmup_epochs must lie in [0, {epochs}), the epochs; got {warmup_epochs}")
    _check_labels(train.labels, num_classes)

    generator = torch.Generator().manual_seed(seed)
    probe = LinearProbe(train.features.shape[1], num_classes, generator=generator).to(device)
    lr = base_lr * batch_size / REFERENCE_BATCH_SIZE
    updates = _optimizer(optimizer, probe, lr, momentum, weight_decay)
    steps_per_epoch = len(_batches(torch.arange(num_samples), batch_size))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        updates, lambda step: _warmup_cosine(step / steps_per_epoch, warmup_epochs, epochs)
    )
    for epoch in range(1, epochs + 1):
        losses = []
        for batch in _batches(torch.randperm(num_samples, generator=generator), batch_size):
            scores = probe(train.features[batch].to(device))
            loss = functional.cross_entropy(scores, train.labels[batch].to(device))
            updates.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            updates.step()
            schedule.step()
            losses.append(loss.detach())
        if on_epoch_end is not None:
            on_epoch_end(epoch, torch.stack(losses).mean().item())
    return probe.eval()


def knn_predict(
    train: Features, queries: Tensor, *, k: int, temperature: float, num_classes: int
) -> Tensor:
    """Classifies features by their nearest neighbours, weighted by similarity.

    Each of the `k` training samples of highest cosine similarity votes for its label with a weight
    proportional to exp(similarity / temperature). Computed where `queries` lie, a chunk at a time.

    Args:
        train: The labelled samples, N_train of them.
        queries: Features to classify, (N, C).
        k: Number of neighbours, at least 1; above N_train, all vote.
        temperature: Above 0; the lower, the more the nearest decides (usual: 0.07).
        num_classes: Labels lie in [0, num_classes).

    Returns:
        Scores (N, num_classes); each row sums to 1.

    Raises:
        UserError: If a setting is out of range, or a label is not one of the classes.
    """
    if k < 1:
        raise UserError(f"kNN needs at least 1 neighbour, got k={k}")
    if not temperature > 0:
        raise UserError(f"the kNN temperature must be above 0, got {temperature}")
    _check_labels(train.labels, num_classes)
    bank = functional.normalize(train.features.to(queries.device), dim=1)
    labels = train.labels.to(queries.device)
    chunk_size = max(1, KNN_CHUNK_SIMILARITIES // len(bank))
    scores = queries.new_zeros(len(queries), num_classes)
    chunks = zip(torch.split(queries, chunk_size), torch.split(scores, chunk_size), strict=True)
    for chunk, chunk_scores in chunks:
        similarities = functional.normalize(chunk, dim=1) @ bank.T
        nearest, indices = similarities.topk(min(k, len(bank)), dim=1)
        # Softmax is exp(similarity / temperature) up to a factor per row, and cannot overflow.
        chunk_scores.scatter_add_(1, labels[indices], (nearest / temperature).softmax(dim=1))
    return scores


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Gives the percentage of scores (N, num_classes) with their maximum at the label (N,)."""
    return 100 * (scores.argmax(dim=1) == labels.to(scores.device)).double().mean().item()


def _optimizer(
    name: str, probe: LinearProbe, lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    if name == "lars":
        return LARS(probe.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)
    if name == "sgd":
        return torch.optim.SGD(
            probe.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay
        )
    raise UserError(f"unknown probe optimizer '{name}': use 'sgd' or 'lars'")


def _warmup_cosine(epoch: float, warmup_epochs: int, epochs: int) -> float:
    if epoch < warmup_epochs:
        return epoch / warmup_epochs
    return 0.5 + 0.5 * math.cos(math.pi * (epoch - warmup_epochs) / (epochs - warmup_epochs))


def _batches(order: Tensor, batch_size: int) -> list[Tensor]:
    return [batch for batch in torch.split(order, batch_size) if len(batch) > 1]


def _check_labels(labels: Tensor, num_classes: int) -> None:
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if len(outside):
        raise UserError(
            f"label {outside[0].item()} is not a class: num_classes is {num_classes}, "
            f"so labels lie in [0, {num_classes - 1}]"
        )

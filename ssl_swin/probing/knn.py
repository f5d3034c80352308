"""Nearest neighbours on frozen features, the weighted kNN of arXiv:1805.01978."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ssl_swin.errors import UserError
from ssl_swin.probing.features import Features
from ssl_swin.probing.scoring import check_labels

CHUNK_SIMILARITIES = 2**26  # held at a time: 256 MiB of float32


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
    by_k = knn_predict_each(
        train, queries, ks=[k], temperature=temperature, num_classes=num_classes
    )
    return by_k[k]


def knn_predict_each(
    train: Features, queries: Tensor, *, ks: Sequence[int], temperature: float, num_classes: int
) -> dict[int, Tensor]:
    """Does `knn_predict` for several `ks` with one search; gives the scores by k.

    Raises:
        UserError: As in `knn_predict`, or if `ks` is empty.
    """
    if not ks or min(ks) < 1:
        got = f"k={min(ks)}" if ks else "no k at all"
        raise UserError(f"kNN needs at least 1 neighbour, got {got}")
    if not temperature > 0:
        raise UserError(f"the kNN temperature must be above 0, got {temperature}")
    check_labels(train.labels, num_classes)
    bank = functional.normalize(train.features.to(queries.device).float(), dim=1)
    labels = train.labels.to(queries.device)
    scores = {k: torch.zeros(len(queries), num_classes, device=queries.device) for k in ks}
    chunk_size = max(1, CHUNK_SIMILARITIES // len(bank))
    for start in range(0, len(queries), chunk_size):
        chunk = slice(start, start + chunk_size)
        similarities = functional.normalize(queries[chunk].float(), dim=1) @ bank.T
        nearest, indices = similarities.topk(min(max(ks), len(bank)), dim=1)
        for k in ks:
            # Softmax is exp(similarity / temperature) up to a factor per row, without overflow.
            votes = (nearest[:, :k] / temperature).softmax(dim=1)
            scores[k][chunk].scatter_add_(1, labels[indices[:, :k]], votes)
    return scores

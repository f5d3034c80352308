"""Linear heads on the same features, side by side."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_swin.probing.features import Features

CHUNK_SCORES = 2**26  # held at a time: 256 MiB of float32


class LinearHeads(nn.Module):
    """MAE's probe several times over: one batch norm without affine parameters, then linear layers.

    The heads see the same normalised features and differ in what they are trained with. They start
    alike: weights truncated normal with a std of 0.01, biases at 0. Each has parameters of its own,
    so that an optimiser treats it as if it were alone; one matrix product serves all.

    Attributes:
        weights: One (num_classes, C) per head.
        biases: One (num_classes,) per head.
    """

    def __init__(
        self, num_features: int, num_classes: int, num_heads: int, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(num_features, affine=False, eps=1e-6)
        start = torch.empty(num_classes, num_features)
        nn.init.trunc_normal_(start, std=0.01, generator=generator)
        self.weights = nn.ParameterList(nn.Parameter(start.clone()) for _ in range(num_heads))
        self.biases = nn.ParameterList(
            nn.Parameter(torch.zeros(num_classes)) for _ in range(num_heads)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Returns class scores (B, num_heads, num_classes) for features (B, C)."""
        scores = functional.linear(
            self.norm(features), torch.cat(tuple(self.weights)), torch.cat(tuple(self.biases))
        )
        return scores.view(len(features), len(self.weights), -1)

    def head(self, index: int) -> "LinearHeads":
        """Returns one head alone; it shares its parameters with this module."""
        alone = LinearHeads(self.norm.num_features, 1, 0, generator=torch.Generator())
        alone.norm = self.norm
        alone.weights.append(self.weights[index])
        alone.biases.append(self.biases[index])
        return alone.train(self.training)


def chunked_scores(
    heads: LinearHeads, features: Tensor, device: torch.device | str
) -> Iterator[Tensor]:
    """Scores features (N, C) of any float type a chunk at a time, where the heads are.

    Yields:
        float32 (B, num_heads, num_classes), in order; B is what fits `CHUNK_SCORES`.
    """
    per_sample = sum(bias.numel() for bias in heads.biases)
    with torch.no_grad():
        for chunk in torch.split(features, max(1, CHUNK_SCORES // per_sample)):
            yield heads(chunk.to(device).float())


def head_accuracies(
    heads: LinearHeads, queries: Features, device: torch.device | str
) -> list[float]:
    """Returns the percentage of right answers per head; scores that are not finite are wrong."""
    right = torch.zeros(len(heads.weights), dtype=torch.int64, device=device)
    start = 0
    for scores in chunked_scores(heads, queries.features, device):
        labels = queries.labels[start : start + len(scores), None].to(device)
        right += ((scores.argmax(dim=2) == labels) & scores.isfinite().all(dim=2)).sum(dim=0)
        start += len(scores)
    return [100 * count / start for count in right.tolist()]


def head_predictions(head: LinearHeads, features: Tensor, device: torch.device | str) -> Tensor:
    """Returns the classes (N,) that a single head predicts, on the CPU."""
    chunks = chunked_scores(head, features, device)
    return torch.cat([scores[:, 0].argmax(dim=1).cpu() for scores in chunks])

"""What an objective computes over the images of all devices: rows gathered, batch statistics."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def num_ranks() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@torch.no_grad()
def gathered_rows(rows: Tensor) -> Tensor:
    """Return the rows (N, D) of all ranks, those of the first rank first; without a gradient.

    All ranks must call it, with as many rows.
    """
    if num_ranks() == 1:
        return rows.detach()
    parts = [torch.empty_like(rows) for _ in range(num_ranks())]
    dist.all_gather(parts, rows.detach().contiguous())
    return torch.cat(parts)


@torch.no_grad()
def mean_over_ranks(values: Tensor) -> Tensor:
    """Return the mean of a tensor over all ranks, without a gradient; all ranks must call it."""
    if num_ranks() == 1:
        return values.detach()
    total = values.detach().clone()
    dist.all_reduce(total)
    return total / num_ranks()


class _SumOverRanks(torch.autograd.Function):
    """The sum over ranks, whose gradient is the sum of the gradients of all of them."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class GlobalBatchNorm1d(nn.BatchNorm1d):
    """Batch normalisation over the images of all devices, on any device, in float32.

    torch's SyncBatchNorm does the same on GPUs alone. In one process it is `nn.BatchNorm1d`. In
    training all ranks must call it, with as many images.
    """

    def forward(self, rows: Tensor) -> Tensor:
        """Normalise rows (N, C) by the statistics of all ranks; in eval mode by the kept ones."""
        with torch.autocast(rows.device.type, enabled=False):
            rows = rows.float()
            if not self.training or num_ranks() == 1:
                return super().forward(rows)
            return self._over_ranks(rows)

    def _over_ranks(self, rows: Tensor) -> Tensor:
        count = len(rows) * num_ranks()
        mean = _sum_over_ranks(rows.sum(0)) / count
        centred = rows - mean
        variance = _sum_over_ranks(centred.square().sum(0)) / count
        with torch.no_grad():
            assert self.num_batches_tracked is not None and self.momentum is not None
            assert self.running_mean is not None and self.running_var is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias


def _sum_over_ranks(values: Tensor) -> Tensor:
    total: Tensor = _SumOverRanks.apply(values)
    return total

"""What a step costs, on a model whose operations and bytes can be counted by hand."""

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ssl_swin.training.measuring import MAX_STEPS, measure_steps


class Batch(NamedTuple):
    pixels: Tensor
    names: list[str]


def test_measure_steps__counts_operations_and_bytes() -> None:
    model = nn.Linear(8, 4, bias=False)
    batches = 0

    def next_batch() -> Batch:
        nonlocal batches
        batches += 1
        return Batch(torch.ones(16, 8), ["name"] * 16)

    cost = measure_steps(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        lambda batch: model(batch.pixels).sum(),
        next_batch,
        device=torch.device("cpu"),
        precision=nullcontext,
    )
    assert cost.flops_per_image == 2 * (2 * 8 * 4)  # forward, and the gradient of the weights
    assert cost.kept_bytes_per_image == 8 * 4  # the input; weights are no activations
    assert cost.state_bytes == 2 * (8 * 4 * 4)  # weights and momentum
    assert cost.fixed_bytes == 3 * (8 * 4 * 4)  # and gradients
    assert cost.batch_size == 16 and cost.cast_bytes == 0
    # After the forward pass: weights, momentum and the last gradients; input, output and loss.
    assert cost.peak_bytes == 3 * (8 * 4 * 4) + (16 * 8 + 16 * 4 + 1) * 4
    assert batches == 1 + 2 + cost.num_steps + 1 and 1 <= cost.num_steps <= MAX_STEPS
    assert 0 <= cost.data_wait_ratio < 1

"""Two processes compute MoBY as one does: loss, gradients, batch statistics and queues."""

import copy
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from plain_views import plain_views
from torch import Tensor

from ssl_swin.encoders.swin import swin
from ssl_swin.objectives.base import Output
from ssl_swin.objectives.moby import MoBY
from ssl_swin.objectives.view_batches import ViewsBatch

pytestmark = pytest.mark.slow
NUM_RANKS, PER_RANK = 2, 4


def moby(stages: tuple[int, ...]) -> MoBY:
    torch.manual_seed(0)
    encoder = swin(version=1, img_size_px=32, window_size=4, embed_dim=8, depths=(1, 1),
                   num_heads=(1, 2))  # fmt: skip
    sizes = {"queue_length": 24, "hidden_dim": 32, "out_dim": 16}
    return MoBY(encoder, colors=plain_views(), stages=stages, **sizes)


def batch(images: slice) -> ViewsBatch:
    draw = torch.Generator().manual_seed(1)
    views = torch.randn(2, NUM_RANKS * PER_RANK, 3, 32, 32, generator=draw)[:, images]
    return ViewsBatch(views[0], [views[1]], ["x"] * views.shape[1])


def step(objective: MoBY, images: slice) -> dict[str, Tensor]:
    """Computes a batch twice, so that the second meets the keys of the first."""
    objective.train()
    for _ in range(2):
        objective.zero_grad()
        output: Output = objective(batch(images), lambda pixels: pixels)
        output.loss.backward()
    gradients = {n: p.grad for n, p in objective.named_parameters() if p.grad is not None}
    return {"loss": output.loss.detach(), **gradients, **dict(objective.named_buffers())}


def on_rank(rank: int, folder: Path, stages: tuple[int, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=NUM_RANKS
    )
    found = step(moby(stages), slice(rank * PER_RANK, (rank + 1) * PER_RANK))
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("stages", [(2,), (1, 2)])
def test_two_ranks__equal_one(tmp_path: Path, stages: tuple[int, ...]) -> None:
    context = multiprocessing.get_context("spawn")
    ranks: list[Any] = [
        context.Process(target=on_rank, args=(rank, tmp_path, stages)) for rank in range(2)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(100)
        assert process.exitcode == 0
    whole = moby(stages)
    start = copy.deepcopy(whole.state_dict())
    expected = step(whole, slice(None))
    one, two = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    parameters = {name for name, _ in whole.named_parameters()}
    for name, value in expected.items():
        if name == "loss" or name in parameters:
            torch.testing.assert_close((one[name] + two[name]) / 2, value, rtol=1e-4, atol=1e-5)
        else:
            if "keys" in name or "running" in name:
                assert not value.equal(start[name]), name
            assert one[name].equal(two[name]), name
            torch.testing.assert_close(one[name], value, rtol=1e-5, atol=1e-6)

"""Two processes compute iBOT as one does: loss, gradients and centres."""

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from plain_views import plain_views
from torch import Tensor

from ssl_swin.encoders.swin import swin
from ssl_swin.objectives.base import Output
from ssl_swin.objectives.ibot import IBOT
from ssl_swin.objectives.masked_views import MaskedViewsBatch, MaskedViewsExample

pytestmark = pytest.mark.slow
NUM_RANKS, PER_RANK = 2, 4
ALL = slice(None)
SETTINGS: dict[str, dict[str, Any]] = {
    "dense": {"pixel_weight": 1.0, "region_weight": 0.5, "local_views": 1, "local_size_px": 16},
    "sparse": {"pixel_weight": 1.0, "sparse": True, "mask_ratio": 0.6, "mask_probability": 1.0},
}


def ibot(kind: str) -> IBOT:
    torch.manual_seed(0)
    encoder = swin(version=1, img_size_px=32, window_size=4, embed_dim=8, depths=(1, 1),
                   num_heads=(1, 2))  # fmt: skip
    sizes = {"num_prototypes": 16, "hidden_dim": 32, "bottleneck_dim": 8}
    return IBOT(encoder, colors=plain_views(), **sizes, **SETTINGS[kind])


def batch(objective: IBOT, images: slice) -> MaskedViewsBatch:
    """Part of a batch whose views differ in how much is masked, but for sparse students."""
    noise = torch.Generator().manual_seed(1)
    views = torch.randn(NUM_RANKS * PER_RANK, 2, 3, 32, 32, generator=noise)
    local = torch.randn(NUM_RANKS * PER_RANK, 3, 16, 16, generator=noise)
    draw = np.random.default_rng(1)
    examples = []
    for pair, detail in zip(views, local, strict=True):
        all_views = [*pair, detail] if objective.local_views.number else [*pair]
        masks = [objective.mask_draw(draw) for _ in range(2)]
        examples.append(MaskedViewsExample(all_views, masks, "x"))
    return objective.make_collate()(examples[images])


def step(objective: IBOT, images: slice) -> dict[str, Tensor]:
    """Computes a batch twice, so that the second meets the centres of the first."""
    objective.train()
    for _ in range(2):
        objective.zero_grad()
        output: Output = objective(batch(objective, images), lambda pixels: pixels)
        output.loss.backward()
    gradients = {n: p.grad for n, p in objective.named_parameters() if p.grad is not None}
    centres = {n: b for n, b in objective.named_buffers() if "centre" in n}
    return {"loss": output.loss.detach(), **gradients, **centres}


def on_rank(rank: int, kind: str, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=NUM_RANKS
    )
    found = step(ibot(kind), slice(rank * PER_RANK, (rank + 1) * PER_RANK))
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", SETTINGS)
def test_two_ranks__equal_one(tmp_path: Path, kind: str) -> None:
    context = multiprocessing.get_context("spawn")
    ranks: list[Any] = [context.Process(target=on_rank, args=(r, kind, tmp_path)) for r in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(100)
        assert process.exitcode == 0
    whole = ibot(kind)
    expected = step(whole, ALL)
    one, two = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert one.keys() == expected.keys()
    parameters = {name for name, _ in whole.named_parameters()}
    for name, value in expected.items():
        if name == "loss" or name in parameters:
            assert not one[name].equal(two[name]) or not value.any(), name
            torch.testing.assert_close((one[name] + two[name]) / 2, value, rtol=1e-4, atol=1e-5)
        else:
            assert value.any() and one[name].equal(two[name]), name
            torch.testing.assert_close(one[name], value, rtol=1e-5, atol=1e-6)

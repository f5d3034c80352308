"""Bytes of tensors that live at once, on tensors whose lives are known."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from ssl_swin.masking import random_mask
from ssl_swin.objectives.masked_images import MaskedExample
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.objectives.simmim_sparse import SparseSimMIM
from ssl_swin.pixels import normalize
from ssl_swin.training.live_memory import LiveBytes, largest_batch, tensors_in
from ssl_swin.training.measuring import StepCost, measure_steps

KILOBYTE = 250  # numbers of float32
AUTOCAST = partial(torch.autocast, "cpu", torch.bfloat16)


def test_live_bytes__counts_storages_while_they_live():
    with LiveBytes() as live:
        first = torch.ones(KILOBYTE)
        assert live.now == 1000
        view = first.view(10, 25)[2:].flatten()  # no storage of its own
        assert live.now == 1000
        second = view + 1
        assert live.now == 1000 + 800
        del first
        assert live.now == 1800  # the view holds it
        del view
        assert live.now == 800
        second.add_(1)
        assert (live.now, live.peak) == (800, 1800)


def test_live_bytes__takes_off_what_was_there_and_is_freed():
    held = torch.ones(KILOBYTE)
    with LiveBytes([held, held[:10]]) as live:
        assert live.now == 1000
        del held
        assert (live.now, live.peak) == (0, 1000)


def test_tensors_in__finds_nested_ones():
    one, two = torch.ones(1), torch.ones(2)
    found = list(tensors_in({"state": {0: {"exp_avg": one, "step": 3}}, "groups": [(two, "lr")]}))
    assert found == [one, two]


@pytest.mark.parametrize(
    ("room", "number"), [(1000, 0), (1099, 0), (1100, 1), (2050, 10), (900, 0)]
)
def test_largest_batch__shares_what_is_not_fixed(room: int, number: int):
    assert largest_batch(room, fixed_bytes=1000, peak_bytes=1400, batch_size=4) == number


def cost_of(
    encoder: Any, objective: Any, batch_size: int, precision: Callable[[], Any]
) -> StepCost:
    model = objective(encoder)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    draw = np.random.default_rng(0)

    def batch() -> Any:
        size = (batch_size, 3, *model.encoder.img_size_px)
        pixels = torch.from_numpy(draw.integers(256, size=size, dtype=np.uint8))
        masks = random_mask(model.mask_grid, 0.5, draw, batch_size=batch_size)
        pairs = zip(pixels, masks, strict=True)
        return model.make_collate()([MaskedExample(*each, 0, "") for each in pairs])

    return measure_steps(
        model,
        optimizer,
        lambda given: model(given, lambda x: normalize(x, (0.5,) * 3, (0.25,) * 3)).loss,
        batch,
        device=torch.device("cpu"),
        precision=precision,
    )


@pytest.mark.parametrize("objective", [SimMIM, SparseSimMIM])
@pytest.mark.parametrize("precision", [nullcontext, AUTOCAST], ids=["float32", "bf16"])
@pytest.mark.parametrize("grad_checkpointing", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_peak__is_predicted_from_a_smaller_batch_to_a_tenth(
    tiny_encoder, objective: Any, precision: Callable[[], Any], grad_checkpointing: bool
):
    def cost(batch_size: int) -> StepCost:
        encoder = tiny_encoder(img_size_px=64, grad_checkpointing=grad_checkpointing)
        return cost_of(encoder, objective, batch_size, precision)

    small, large = cost(4), cost(12)
    assert small.peak_bytes is not None and large.peak_bytes is not None
    fixed = small.fixed_bytes + small.cast_bytes
    predicted = fixed + (small.peak_bytes - fixed) / 4 * 12
    assert predicted == pytest.approx(large.peak_bytes, rel=0.1)
    fits = largest_batch(
        large.peak_bytes, fixed_bytes=fixed, peak_bytes=small.peak_bytes, batch_size=4
    )
    assert fits == pytest.approx(12, abs=2)

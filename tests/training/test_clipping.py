"""`clip_gradients` against torch's own."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from ssl_swin.training import clipping
from ssl_swin.training.clipping import clip_gradients


def parameters(*gradients: list[float]) -> list[nn.Parameter]:
    made = [nn.Parameter(torch.zeros(len(values))) for values in gradients]
    for parameter, values in zip(made, gradients, strict=True):
        parameter.grad = torch.tensor(values)
    return made


@pytest.mark.parametrize("largest", [1.0, 4.9, 5.0, math.nextafter(5.000001, 6), 5.1, 100.0])
def test_clip_gradients__are_those_of_torch_to_the_bit(largest: float) -> None:
    ours, theirs = parameters([3.0, 0.0], [-4.0]), parameters([3.0, 0.0], [-4.0])
    norm, expected = clip_gradients(ours, largest), clip_grad_norm_(theirs, largest)
    assert norm == expected == 5
    for one, other in zip(ours, theirs, strict=True):
        assert one.grad is not None and other.grad is not None and one.grad.equal(other.grad)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_clip_gradients__shows_what_is_not_finite(bad: float) -> None:
    assert not clip_gradients(parameters([bad, 1.0]), 5.0).isfinite()


@pytest.mark.parametrize(("largest", "passes"), [(None, 0), (5.1, 0), (4.9, 1)])
def test_clip_gradients__within_the_norm_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, largest: float | None, passes: int
) -> None:
    calls: list[float] = []
    monkeypatch.setattr(clipping, "clip_grads_with_norm_", lambda _, norm, *__: calls.append(norm))
    assert clip_gradients(parameters([3.0], [4.0]), largest) == 5
    assert len(calls) == passes

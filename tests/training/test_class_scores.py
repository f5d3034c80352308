"""Scores that are kept of a validation: all of the last one, or none where they are too many."""

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssl_swin.data.batch import LabeledBatch
from ssl_swin.encoders.swin import SwinEncoder
from ssl_swin.tasks.classification import Classification
from ssl_swin.training.callbacks import class_scores
from ssl_swin.training.callbacks.class_scores import ClassScores
from ssl_swin.training.module import TrainingModule

TRAINER: Any = SimpleNamespace(
    precision_plugin=SimpleNamespace(forward_context=nullcontext), world_size=1
)


@pytest.fixture
def module(tiny_encoder: Callable[[], SwinEncoder]) -> TrainingModule:
    unused: Any = None
    task = Classification(tiny_encoder(), classes=["a", "b", "c"]).eval()
    return TrainingModule(
        task, optimizer=unused, schedule=unused, mean=[0.0] * 3, std=[1.0] * 3, seed=0
    )


def batch(labels: list[int], seed: int) -> LabeledBatch:
    noise = torch.Generator().manual_seed(seed)
    pixels = torch.rand(len(labels), 3, 64, 64, generator=noise)
    return LabeledBatch(pixels, torch.tensor(labels), [""] * len(labels))


def validate(scores: ClassScores, module: TrainingModule, *batches: LabeledBatch) -> None:
    scores.on_validation_start(TRAINER, module)
    for number, each in enumerate(batches):
        scores.on_validation_batch_end(TRAINER, module, None, each, number)
    scores.on_validation_end(TRAINER, module)


def test_scores__are_those_of_the_last_validation(module: TrainingModule) -> None:
    scores = ClassScores()
    first, second = batch([0, 1], 0), batch([2], 1)
    validate(scores, module, first, second)
    assert scores.labels is not None and scores.labels.tolist() == [0, 1, 2]
    with torch.no_grad():
        expected = module.model.predict(torch.cat([first.pixels, second.pixels]))
    torch.testing.assert_close(scores.logits, expected)
    validate(scores, module, second)
    assert scores.labels is not None and scores.labels.tolist() == [2]
    torch.testing.assert_close(scores.logits, expected[2:])


def test_scores__that_are_too_many_are_not_kept(
    module: TrainingModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = ClassScores()
    batches = [batch([0, 1], seed) for seed in range(3)]  # 24 bytes of scores each
    monkeypatch.setattr(class_scores, "MOST_BYTES", 72)
    validate(scores, module, *batches)
    assert scores.labels is not None and len(scores.labels) == 6
    monkeypatch.setattr(class_scores, "MOST_BYTES", 71)
    validate(scores, module, *batches)
    assert scores.logits is None and scores.labels is None

"""What the trainer and its checkpoints refuse, here where there is no GPU."""

import re
from typing import Any

import pytest
import torch

from ssl_swin.errors import UserError
from ssl_swin.training.checkpointing.schedule import StepCheckpoint
from ssl_swin.training.trainer import Trainer

ON_CPU = {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "logger": False}


def test_trainer__is_lightnings() -> None:
    trainer = Trainer(**ON_CPU, max_time={"seconds": 5}, limit_train_batches=0.5)
    assert (trainer.max_epochs, trainer.limit_train_batches) == (1, 0.5)
    assert trainer.max_time_s == 5


@pytest.mark.parametrize(
    ("max_time", "seconds"),
    [("01:02:03:04", 93_784), ({"hours": 1, "minutes": 2}, 3720), ({"seconds": 0.5}, 0.5)],
)
def test_trainer__max_time_in_seconds(max_time: Any, seconds: float) -> None:
    assert Trainer(**ON_CPU, max_time=max_time).max_time_s == seconds


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_epochs": 0}, "max_epochs must be a whole number of at least 1, got 0"),
        ({"max_steps": 0}, "max_steps must be a whole number of at least 1 or -1, got 0"),
        ({"limit_train_batches": 0}, "limit_train_batches must be"),
        ({"limit_train_batches": 1.5}, "limit_train_batches must be"),
        ({"gradient_clip_val": -1}, "gradient_clip_val must be a number of at least 0 or null"),
        ({"devices": []}, "devices must be"),
        ({"precision": "fp17"}, "precision must be 32-true or bf16-mixed"),
        ({"strategy": "nonsense"}, "nonsense"),
        ({"max_time": "soon"}, "max_time must be DD:HH:MM:SS, or units"),
        ({"max_time": "10:00"}, "max_time must be DD:HH:MM:SS, or units"),
        ({"max_time": {"fortnights": 1}}, "max_time must be DD:HH:MM:SS, or units"),
        ({"max_time": "00:00:00:00"}, "max_time must be DD:HH:MM:SS, or units"),
    ],
)
def test_trainer__refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Trainer(**(ON_CPU | changes))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_trainer__refuses_a_device_that_is_not_there() -> None:
    with pytest.raises(UserError, match="No supported gpu backend found"):
        Trainer(**(ON_CPU | {"accelerator": "gpu"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filename": "../x"}, "filename must be text, not empty, of letters"),
        ({"filename": "{nonsense}"}, "filename must be text"),
        ({"filename": ""}, "filename must be text"),
        ({"dirpath": ""}, "dirpath must be"),
        ({"mode": "nope"}, "mode must be min or max, got 'nope'"),
        ({"every_n_epochs": 1, "every_n_train_steps": 5}, "of the checkpoint last exclude each"),
        ({"save_top_k": -2}, "save_top_k must be a whole number of at least -1, got -2"),
        ({"save_top_k": 2}, "checkpoint last: "),
    ],
)
def test_step_checkpoint__refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        StepCheckpoint(**({"filename": "last", "dirpath": "x"} | changes))


def test_step_checkpoint__takes_names_with_the_step() -> None:
    checkpoint = StepCheckpoint(filename="step_{step:07d}", dirpath="x", save_top_k=-1)
    assert checkpoint.filename == "step_{step:07d}"

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim import SGD
from torch.utils.data import DataLoader

from ssl_swin.errors import UserError
from ssl_swin.training.checkpointing.schedule import StepCheckpoint

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}


class OneWeight(LightningModule):
    """Pulls a weight to each batch in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return (self.weight - batch).square().mean()

    def configure_optimizers(self) -> SGD:
        return SGD(self.parameters(), lr=0.1)


class Saves(Callback):
    """Writes down (optimiser steps, batches) of every checkpoint, and stops after a batch."""

    def __init__(self, last_batch: int) -> None:
        self.last_batch = last_batch
        self.saves: list[tuple[int, int]] = []

    def on_save_checkpoint(self, trainer: Trainer, *args: Any) -> None:
        self.saves.append((trainer.global_step, self.num_batches(trainer)))

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        trainer.should_stop = self.num_batches(trainer) >= self.last_batch

    def num_batches(self, trainer: Trainer) -> int:
        return trainer.fit_loop.epoch_loop.batch_progress.current.ready


def saves_of_a_run(
    checkpoint: type[ModelCheckpoint], folder: Path, last_batch: int, resume_from: Path | None
) -> list[tuple[int, int]]:
    saves = Saves(last_batch)
    save = checkpoint(dirpath=folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    options = {"max_epochs": 1, "accumulate_grad_batches": 3, "logger": False, **QUIET}
    trainer = Trainer(callbacks=[saves, save], **options)
    trainer.fit(OneWeight(), DataLoader(torch.arange(12.0)), ckpt_path=resume_from)
    return saves.saves


@pytest.mark.parametrize(
    ("checkpoint", "after_resuming"),
    [
        (StepCheckpoint, [(3, 9), (4, 12)]),
        (ModelCheckpoint, [(2, 7), (3, 9), (4, 12)]),  # the error that StepCheckpoint is there for
    ],
)
def test_step_checkpoint__never_saves_inside_an_accumulation(tmp_path, checkpoint, after_resuming):
    assert saves_of_a_run(checkpoint, tmp_path, 6, None) == [(1, 3), (2, 6)]
    resume_from = tmp_path / "step=2.ckpt"
    assert saves_of_a_run(checkpoint, tmp_path, 12, resume_from) == after_resuming


class Chosen:
    title = "segmentation"

    def new_metrics(self) -> dict[str, None]:
        return {"loss": None, "miou": None}


class ChosenTask(Chosen):
    monitor = "miou"


@pytest.mark.parametrize(
    ("monitor", "expected"),
    [("task", "val/miou"), ("val/loss", "val/loss"), ("train/loss", "train/loss"), (None, None)],
)
def test_choose_metric__of_a_task(monitor, expected):
    checkpoint = StepCheckpoint(filename="best", dirpath="x", monitor=monitor)
    checkpoint.choose_metric(ChosenTask())
    assert checkpoint.monitor == expected


@pytest.mark.parametrize(
    ("monitor", "message"),
    [
        ("task", "monitor=task needs a task, segmentation is none: name a metric"),
        ("val/iou", "there is no metric val/iou to monitor; segmentation has val/loss, val/miou"),
    ],
)
def test_choose_metric__refuses(monitor, message):
    with pytest.raises(UserError, match=f"^{message}$"):
        StepCheckpoint(filename="best", dirpath="x", monitor=monitor).choose_metric(Chosen())


def checkpoint(folder: Path, **options: Any) -> StepCheckpoint:
    return StepCheckpoint(dirpath=folder, **{"filename": "best", "monitor": "val/loss", **options})


def test_state_key__differs_by_file(tmp_path):
    last, kept = (
        checkpoint(tmp_path, filename=name, monitor=None, every_n_epochs=1)
        for name in ("last", "{step}")
    )
    assert last.state_key != kept.state_key
    Trainer(callbacks=[last, kept], logger=False, **QUIET)  # refused before


def test_on_load_checkpoint__takes_the_key_of_version_0_1_0(tmp_path):
    best = checkpoint(tmp_path)
    of_old = ModelCheckpoint.state_key.fget(best)  # type: ignore[attr-defined]
    states = {of_old: {"best_model_path": "old"}}
    best.on_load_checkpoint(None, None, {"callbacks": states})
    assert states[best.state_key] == {"best_model_path": "old"}
    states = {of_old: {"best_model_path": "old"}, best.state_key: {"best_model_path": "new"}}
    best.on_load_checkpoint(None, None, {"callbacks": states})
    assert states[best.state_key] == {"best_model_path": "new"}


@pytest.mark.parametrize("was_moved", [True, False])
def test_load_state_dict__of_another_folder(tmp_path, was_moved):
    """A run's folder was moved, or another run starts from one of its checkpoints."""
    before, now = checkpoint(tmp_path / "old"), checkpoint(tmp_path / "new")
    path = str(tmp_path / "old" / "best.ckpt")
    before.best_model_path = before.kth_best_model_path = path
    before.best_k_models, before.best_model_score = {path: torch.tensor(0.5)}, torch.tensor(0.5)
    if was_moved:
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "best.ckpt").touch()
    now.load_state_dict(before.state_dict())
    there = str(tmp_path / "new" / "best.ckpt")
    assert now.best_model_path == (there if was_moved else "")
    assert now.best_k_models == ({there: torch.tensor(0.5)} if was_moved else {})

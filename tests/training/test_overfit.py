"""overfit_batches: the same batches over and over, which are learnt."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from test_datamodule import data_module
from torch import Tensor

from ssl_swin.data.loading.repeating import RepeatingLoader


class Seen(Callback):
    """Keeps what training and validation were given."""

    def __init__(self) -> None:
        self.train: list[tuple[Tensor, Tensor]] = []
        self.val: list[tuple[Tensor, Tensor]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.train.append((batch.pixels.clone(), batch.mask.clone()))

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.val.append((batch.pixels.clone(), batch.mask.clone()))


def equal(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    return all(map(torch.equal, one, other))


def test_overfit_batches__repeat_and_are_learnt(pretrain: Any, tmp_path: Path) -> None:
    seen = Seen()
    trainer = pretrain(
        seen,
        overfit_batches=2,
        max_epochs=40,
        check_val_every_n_epoch=20,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
    )
    assert trainer.global_step == 80
    first, second = seen.train[:2]
    assert not equal(first, second)
    assert all(equal(batch, first) for batch in seen.train[::2])
    assert all(equal(batch, second) for batch in seen.train[1::2])
    assert len(seen.val) == 4
    assert all(map(equal, seen.val, [first, second] * 2))
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    assert sum(losses[-2:]) < 0.5 * sum(losses[:2])
    (*_, last) = [float(row["val/loss"]) for row in rows if row["val/loss"]]
    assert last < 0.5 * losses[0]


@pytest.mark.parametrize(("limit", "number"), [(2, 2), (0.5, 3), (99, 6)])
def test_data_module__overfits_a_number_or_a_fraction(limit: int | float, number: int) -> None:
    data = data_module(train=24, val=8)
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        overfit_batches=limit, global_rank=0, world_size=1, current_epoch=0
    )
    loader = data.train_dataloader()
    assert data.val_dataloader() is loader
    batches = list(loader)
    assert len(batches) == len(loader) == 6
    different = {tuple(batch.flatten().tolist()) for batch in batches}
    assert len(different) == number
    assert [*map(torch.Tensor.tolist, loader)] == [*map(torch.Tensor.tolist, batches)]


def test_repeating_loader__hands_on_what_could_not_be_read() -> None:
    loader = data_module(train=8).train_dataloader()
    repeating = RepeatingLoader(loader, 1)
    assert repeating.bad_samples is loader.bad_samples

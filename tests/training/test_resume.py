"""Continuing a run from any of its checkpoints gives what the uninterrupted run gives.

Lightning itself gets several of these cases wrong, each in silence: a loader's state is dropped
when something asks for the loader early, a checkpoint inside a gradient accumulation loses
gradients, an epoch's edge repeats or skips a batch.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.training.checkpointing.schedule import StepCheckpoint
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.module import TrainingModule
from ssl_swin.training.trainer import Trainer

NUM_IMAGES = 29
pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


class Numbers(ImageDataset):
    classes = ()
    fingerprint = "numbers"

    def __len__(self) -> int:
        return NUM_IMAGES

    def __getitem__(self, index: int) -> EncodedSample:
        return EncodedSample.of_image(bytes([index]), "png", None, str(index))


class Layers(nn.Sequential):
    """What the training module asks of an objective besides its loss."""

    def new_metrics(self) -> dict[str, Any]:
        return {}

    def check_batch_size(self, batch_size: int, global_batch_size: int) -> None: ...

    def after_backward(self) -> None: ...

    def after_step(self, step: int) -> None: ...

    def outside(self) -> dict[str, str]:
        return {}

    def evaluate(self, metrics: Any, batch: Any, normalized: Any) -> None: ...


class Recorder(TrainingModule):
    """Learns from (number, epoch) with dropout, and writes down what it saw."""

    seen: list[list[int]]
    events: list[tuple[str, int]]  # at which step

    def __init__(self, asks_for_length: bool = False) -> None:
        torch.manual_seed(0)
        layers = Layers(nn.Linear(1, 16), nn.Dropout(0.5), nn.Linear(16, 1))
        super().__init__(layers, optimizer=adam, schedule=None, mean=[0.0], std=[1.0], seed=0)
        self.asks_for_length = asks_for_length
        self.seen = []
        self.events = []

    def on_validation_start(self) -> None:
        self.events.append(("validation", self.global_step))

    def on_train_epoch_end(self) -> None:
        self.events.append(("epoch end", self.global_step))

    def configure_optimizers(self) -> Any:
        if self.asks_for_length:
            assert self.trainer.estimated_stepping_batches > 0
        return adam(self.model)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.seen.append(batch.flatten().tolist())
        self.events.append(("batch", self.global_step))
        return (self.model(batch[:, :1] / NUM_IMAGES) - batch[:, 1:]).square().mean()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val", torch.rand(()))  # draws, as a user's callback may


class Drawing(Recorder):
    """Notes a number that is drawn in every batch, as dropped paths and mixing are."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[float] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.draws.append(torch.rand(()).item())
        return super().training_step(batch, batch_idx)


def adam(model: nn.Module, **length: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01)


def fit(
    folder: Path, checkpoint: Path | None = None, *, num_workers: int = 0, **options: Any
) -> tuple[list[list[int]], Tensor]:
    """Trains three epochs of seven batches; gives batches and final weights."""
    module = options.pop("module", None) or Recorder(options.pop("asks_for_length", False))
    data = ImageDataModule(
        {"train": IndexedSplit(Numbers(), OrderConstants(4, 64, 1)),
         "val": IndexedSplit(Numbers(), OrderConstants(4, 64, 1))},
        train_samples=lambda record, epoch: (float(record.data[0]), float(epoch)),
        eval_samples=lambda record, epoch: (0.0, 0.0),
        collate=torch.tensor,
        batch_size=options.pop("batch_size", 4),
        num_workers=num_workers,
        seed=0,
    )  # fmt: skip
    every = options.pop("every_n_train_steps", 1)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=options.pop("max_epochs", 3),
        logger=False,
        callbacks=[
            *options.pop("callbacks", ()),
            StepCheckpoint(
                dirpath=folder, filename="{step}", every_n_train_steps=every, save_top_k=-1
            ),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    weights = nn.utils.parameters_to_vector(module.parameters()).detach()
    return module.seen, weights


def check_every_checkpoint(folder: Path, num_batches: int, **options: Any) -> int:
    """Continues from each checkpoint of a whole run; gives how many there were."""
    whole, weights = fit(folder / "whole", **options)
    assert len(whole) == num_batches
    accumulated = options.get("accumulate_grad_batches", 1)
    length = num_batches // 3  # of an epoch
    checkpoints = sorted((folder / "whole").glob("*.ckpt"))
    for checkpoint in checkpoints:
        rest, weights_after = fit(folder / checkpoint.stem, checkpoint, **options)
        epochs, steps = divmod(
            int(checkpoint.stem.removeprefix("step=")), -(-length // accumulated)
        )
        done = epochs * length + min(steps * accumulated, length)
        assert rest == whole[done:], checkpoint
        assert weights_after.equal(weights), checkpoint
    return len(checkpoints)


@pytest.mark.slow
@pytest.mark.parametrize("asks_for_length", [False, True])
def test_resume__from_every_step(tmp_path, asks_for_length):
    """Epochs 0 to 2, at their edges and inside."""
    assert check_every_checkpoint(tmp_path, 21, asks_for_length=asks_for_length) == 21


@pytest.mark.slow
def test_resume__with_workers(tmp_path):
    assert check_every_checkpoint(tmp_path, 21, num_workers=2, every_n_train_steps=5) == 4


@pytest.mark.parametrize("accumulated", [2, slow(3)])
def test_resume__inside_accumulation(tmp_path, accumulated):
    """Seven batches an epoch are no multiple: each epoch ends in a smaller step."""
    steps = 3 * -(-7 // accumulated)
    options = {"accumulate_grad_batches": accumulated}
    assert check_every_checkpoint(tmp_path, 21, **options) == steps


def test_resume__of_a_resumed_run(tmp_path):
    """A run that goes on must save where its own steps end, and not inside an accumulation."""
    options: Any = {"accumulate_grad_batches": 2, "every_n_train_steps": 2}
    whole, weights = fit(tmp_path / "whole", **options)
    fit(tmp_path / "a", **options | {"max_epochs": 1})
    fit(tmp_path / "b", tmp_path / "a" / "step=2.ckpt", **options | {"max_epochs": 2})
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [
        "step=4.ckpt", "step=6.ckpt", "step=8.ckpt"
    ]  # fmt: skip
    rest, weights_after = fit(tmp_path / "c", tmp_path / "b" / "step=6.ckpt", **options)
    assert rest == whole[-len(rest) :]
    assert weights_after.equal(weights)


@pytest.mark.slow
def test_resume__shortened_epochs_continue_the_order(tmp_path):
    """Three batches an epoch: nine in all run over the end of the data's own epoch of seven."""
    assert check_every_checkpoint(tmp_path, 9, limit_train_batches=3) == 9
    passes, _ = fit(tmp_path / "passes", max_epochs=2)
    shortened, _ = fit(tmp_path / "shortened", limit_train_batches=3)
    assert shortened == passes[:9]


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 4), (4, 7)])
def test_resume__other_batch_size_continues_the_order(tmp_path, before, after):
    fit(tmp_path / "a", batch_size=before)
    rest, _ = fit(tmp_path / "b", tmp_path / "a" / "step=3.ckpt", batch_size=after)
    order, _ = fit(tmp_path / "c", batch_size=1)
    first_epoch = [sample for batch in order[:NUM_IMAGES] for sample in batch]
    continued = [sample for batch in rest for sample in batch if batch[1] == 0.0]
    start = 2 * 3 * before
    assert continued == first_epoch[start : start + len(continued)]
    assert len(continued) // 2 > NUM_IMAGES - 3 * before - after
    steps = NUM_IMAGES // after  # of Lightning's epochs, whose number stays what was asked for
    assert len(rest) == max(steps - 3, 0) + 2 * steps


def test_draws__differ_in_every_batch_also_of_one_accumulated_step(tmp_path):
    module = Drawing()
    fit(tmp_path, module=module, accumulate_grad_batches=3)
    assert len(set(module.draws)) == len(module.draws) == 21


class SavesInValidation(Callback):
    """Saves in the middle of each validation, and at its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if args[3] == 2:
            trainer.save_checkpoint(self.folder / f"middle={trainer.global_step}.ckpt")

    def on_validation_end(self, trainer: Trainer, *args: Any) -> None:
        trainer.save_checkpoint(self.folder / f"end={trainer.global_step}.ckpt")


def events_of(
    folder: Path, checkpoint: Path | None = None, **options: Any
) -> tuple[list[Any], Tensor]:
    module = Recorder()
    options = {"module": module, "callbacks": [SavesInValidation(folder)], **options}
    _, weights = fit(folder, checkpoint, **options)
    return module.events, weights


@pytest.mark.parametrize(
    ("options", "kills"),
    [
        ({}, ("step=7", "step=9", "step=14", "step=20", "step=21")),  # one epoch too many before
        slow({}, ("step=7", "middle=14", "end=14", "step=15", "middle=21", "end=21")),
        slow({"accumulate_grad_batches": 3}, ("step=3", "step=4", "step=6", "middle=9")),
        slow({"check_val_every_n_epoch": 2}, ("step=7", "step=8", "step=14", "step=21")),
        slow({"val_check_interval": 3}, ("step=3", "middle=6", "step=10", "end=10", "step=14")),
        slow({"max_steps": 17, "max_epochs": 9}, ("step=7", "step=10", "step=14", "step=17")),
    ],
)
def test_resume__again_and_again_ends_the_same(tmp_path, options, kills):
    """Killed right after each of these checkpoints, the next time in the continued run."""
    whole, weights = events_of(tmp_path / "0", **options)
    for number, kill in enumerate(kills):
        checkpoint = tmp_path / str(number) / f"{kill}.ckpt"
        done = torch.load(checkpoint)["global_step"]
        rest, weights_after = events_of(tmp_path / str(number + 1), checkpoint, **options)
        assert rest == whole[-len(rest) or len(whole) :], kill
        assert [event for event in rest if event[0] == "batch"] == [
            event for event in whole if event[0] == "batch" and event[1] >= done
        ], kill
        assert weights_after.equal(weights), kill
        kind, step = kill.split("=")
        if kind != "end" and ("validation", int(step)) in whole:
            assert rest[0] == ("validation", int(step)), kill

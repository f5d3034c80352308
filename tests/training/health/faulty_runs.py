"""Tiny runs of an objective that is not finite where a test says so."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.objectives.base import Output
from ssl_swin.optim.schedules import CosineSchedule
from ssl_swin.training.callbacks.skipped_steps import SkippedSteps
from ssl_swin.training.checkpointing.schedule import StepCheckpoint
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.metrics_csv import MetricsCsv
from ssl_swin.training.module import TrainingModule
from ssl_swin.training.progress import TrainingProgress

NUM_IMAGES, BATCH_SIZE = 32, 4
Fault = tuple[int, int, str]  # step, batch of the step, and what: see `Faulty`


class Numbers(ImageDataset):
    classes = ()
    fingerprint = "numbers"

    def __len__(self) -> int:
        return NUM_IMAGES

    def __getitem__(self, index: int) -> EncodedSample:
        return EncodedSample.of_image(bytes([index]), "png", None, str(index))


class Batch(tuple):  # type: ignore[type-arg]
    """Pixels (B, 1, 1, 1) and names."""

    pixels = property(lambda self: self[0])
    names = property(lambda self: self[1])


def example(encoded: EncodedSample, epoch: int) -> tuple[float, str]:
    return encoded.data[0] / NUM_IMAGES, encoded.name


def collate(examples: Sequence[tuple[float, str]]) -> Batch:
    values, names = zip(*examples, strict=True)
    return Batch((torch.tensor(values).reshape(-1, 1, 1, 1), list(names)))


class Faulty(nn.Module):
    """A layer with dropout, batch statistics and a momentum copy, as an objective has them.

    Faults: "loss" makes the loss nan with its gradient, "lonely" adds inf to the loss and leaves
    the gradient finite, "gradient" makes the gradient inf and leaves the loss finite. All of them
    go through the batch statistics.
    """

    title = "faulty"

    def __init__(self, faults: Collection[Fault]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(1, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 1))
        self.momentum = nn.Linear(1, 8).requires_grad_(False)
        self.faults = {(step, batch): kind for step, batch, kind in faults}
        self.now = (-1, 0)
        self.after: list[int] = []

    def forward(self, batch: Batch, normalize: Any) -> Output:
        kind = self.faults.get(self.now) if self.training else None
        values = batch.pixels.flatten(1)
        features = self.norm(self.layer(values if kind is None else values * 1e30))
        loss = (self.head(features)[:, 0] - values[:, 0]).square().mean()
        if kind == "loss":
            loss = loss * torch.nan
        elif kind == "lonely":
            loss = loss + torch.inf
        elif kind == "gradient":
            loss = Explodes.apply(loss)
        return Output(loss)

    def new_metrics(self) -> dict[str, Any]:
        return {}

    def evaluate(self, metrics: Any, batch: Batch, normalize: Any) -> None: ...

    def check_batch_size(self, batch_size: int, global_batch_size: int) -> None: ...

    def before_step(self, progress: Any) -> None: ...

    def after_backward(self) -> None: ...

    def outside(self) -> dict[str, str]:
        return {}

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        self.after.append(step)
        for mine, theirs in zip(self.momentum.parameters(), self.layer.parameters(), strict=True):
            mine.lerp_(theirs, 0.5)


class Explodes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * torch.inf


class Clock(Callback):
    """Tells the objective the step and the batch of it, on the one rank that has faults."""

    def __init__(self, rank: int = 0) -> None:
        self.rank = rank

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        batch_of_step = batch_idx % trainer.accumulate_grad_batches
        here = trainer.global_rank == self.rank
        pl_module.model.now = (trainer.global_step, batch_of_step) if here else (-1, 0)


def optimizer(model: nn.Module, **settings: Any) -> Any:
    from ssl_swin.training.optim import _with_schedule

    weights = [p for p in model.parameters() if p.requires_grad]
    groups = [{"name": "all", "params": weights, "lr": 0.05, "weight_decay": 0.1}]
    bound = settings["schedule"].bind(settings["length"])
    return _with_schedule(groups, (0.9, 0.99), 1e-8, bound)


def module_of(faults: Collection[Fault]) -> TrainingModule:
    return TrainingModule(
        Faulty(faults),  # type: ignore[arg-type]
        optimizer=optimizer,
        schedule=CosineSchedule(0, 0.0, 0.0, warmup_prefix=False),
        mean=[0.0],
        std=[1.0],
        seed=0,
    )


def data() -> ImageDataModule:
    return ImageDataModule(
        {"train": IndexedSplit(Numbers(), OrderConstants(64, 512, 1))},
        train_samples=example,
        eval_samples=example,
        collate=collate,
        batch_size=BATCH_SIZE,
        num_workers=0,
        seed=0,
    )


def watcher(folder: Path, **settings: Any) -> SkippedSteps:
    numbers = {"max_in_a_row": 3, "max_rollbacks": 1, "max_records": 20, "max_weights": 2}
    return SkippedSteps(
        folder / "nonfinite", checkpoints=folder / "checkpoints", **{**numbers, **settings}
    )


def train(
    folder: Path,
    faults: Collection[Fault] = (),
    *,
    checkpoint: Path | None = None,
    callbacks: Sequence[Callback] = (),
    every_n_steps: int = 1,
    make_module: Callable[[Collection[Fault]], TrainingModule] = module_of,
    rank_of_faults: int = 0,
    **options: Any,
) -> tuple[TrainingModule, Trainer]:
    """Two epochs of eight batches; checkpoints step_N.ckpt."""
    module = make_module(faults)
    checkpoints = StepCheckpoint(
        dirpath=folder / "checkpoints",
        filename="step_{step}",
        auto_insert_metric_name=False,
        every_n_train_steps=every_n_steps,
        save_top_k=-1,
    )
    progress = TrainingProgress()
    metrics = MetricsCsv(folder / "metrics.csv", resume=checkpoint is not None, progress=progress)
    settings = {"max_epochs": 2, "log_every_n_steps": 1, "accelerator": "cpu", **options}
    trainer = Trainer(
        callbacks=[progress, Clock(rank_of_faults), *callbacks, checkpoints],
        logger=[metrics],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    trainer.fit(module, datamodule=data(), ckpt_path=checkpoint, weights_only=True)
    return module, trainer


def logged(trainer: Trainer, name: str) -> dict[int, float]:
    """Values of a metric by the number of steps that were done."""
    (metrics,) = trainer.loggers
    assert isinstance(metrics, MetricsCsv)
    rows = metrics.file.rows(after=-1, up_to=10**9)
    return {step: row[name] for step, row in rows if name in row}


def state(module: TrainingModule, trainer: Trainer) -> dict[str, Tensor]:
    """Weights, buffers and the optimiser's tensors by name."""
    found = {name: value.clone() for name, value in module.model.state_dict().items()}
    for number, values in trainer.optimizers[0].state_dict()["state"].items():
        found |= {f"{number}.{name}": value.clone() for name, value in values.items()}
    return found


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)

"""What a run will leave on the disk, as `plan=true` tells it before the run."""

import io
import math
from typing import Any, NamedTuple

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image

from ssl_swin.launch.run import Run
from ssl_swin.launch.space import checkpoint_bytes, in_bytes, num_kept
from ssl_swin.launch.targets import TARGET, located
from ssl_swin.optim.schedules import RunLength
from ssl_swin.plurals import counted
from ssl_swin.reporting.animation import film_bytes
from ssl_swin.reporting.page import MAX_RECONSTRUCTIONS
from ssl_swin.reporting.pictures import as_webp
from ssl_swin.tasks.classification import Classification
from ssl_swin.training.callbacks.held_out_figures import HeldOutFigures
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.module import TrainingModule

# Bytes, as `python -m benchmarks.long_run` measures them: docs/RESULTS.md.
METRICS_ROW, WANDB_ROW, TENSORBOARD_ROW = 100, 1150, 600
WANDB_RUN, REPORT, SMALL_FILES = 90_000, 60_000, 20_000  # of any length
# What the demo's classifier leaves: confusion.png 58 kB, mistakes.png 303 kB, both in the report.
PREDICTIONS = 500_000
BASE64 = 4 / 3  # of a picture inside the report


class Pictures(NamedTuple):
    """What a callback draws."""

    number: int
    size_bytes: int
    film_bytes: int = 0  # of all of them together, if there is one
    bytes_in_report: int = 0  # of those that a report shows

    @property
    def total_bytes(self) -> int:
        """All pictures, without the film."""
        return self.number * self.size_bytes


class DiskUse(NamedTuple):
    """What lies in a run's folder at its end, in bytes."""

    num_checkpoints: int
    checkpoint_bytes: int
    pictures: list[Pictures]
    metrics_bytes: int
    dashboard_bytes: int
    others_bytes: int  # weights to hand on, report, records

    @property
    def total_bytes(self) -> int:
        """All of it."""
        drawn = sum(each.total_bytes + each.film_bytes for each in self.pictures)
        kept = self.num_checkpoints * self.checkpoint_bytes
        return kept + drawn + self.metrics_bytes + self.dashboard_bytes + self.others_bytes

    def __str__(self) -> str:
        parts = [_each(self.num_checkpoints, "checkpoint", self.checkpoint_bytes)]
        for each in self.pictures:
            parts += [_each(each.number, "picture", each.size_bytes)]
            parts += [f"a film of {in_bytes(each.film_bytes)}"] if each.film_bytes else []
        parts += [f"metrics {in_bytes(self.metrics_bytes)}"]
        if self.dashboard_bytes:
            parts += [f"dashboard {in_bytes(self.dashboard_bytes)}"]
        parts += [f"weights and report {in_bytes(self.others_bytes)}"]
        return f"{in_bytes(self.total_bytes)} in all: {', '.join(parts)}"


def _each(number: int, what: str, size_bytes: int) -> str:
    return f"{counted(number, what)} of {in_bytes(size_bytes)}"


def pictures_of(
    trainer: Trainer, module: TrainingModule, data: ImageDataModule, num_steps: int
) -> list[Pictures]:
    """Draw a picture of each callback that draws, without writing it.

    Args:
        trainer: Has the callbacks.
        module: On the device.
        data: Has the images.
        num_steps: Of the run.
    """
    module.eval()
    found = []
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, HeldOutFigures):
            batch = data.held_out_batch(callback.num_images)
            batch = trainer.strategy.batch_to_device(batch, trainer.strategy.root_device)
            precision = trainer.precision_plugin.forward_context
            if picture := callback.sample(module, batch, precision):
                number = callback.num_pictures(num_steps)
                film = 0 if callback.animation is None else film_bytes(picture, number)
                in_report = min(number, MAX_RECONSTRUCTIONS) * len(as_webp(picture))
                found.append(Pictures(number, _png_bytes(picture), film, in_report))
    return found


def _png_bytes(picture: Image.Image) -> int:
    file = io.BytesIO()
    picture.save(file, format="png")
    return len(file.getvalue())


def disk_use(
    run: Run,
    trainer: Trainer,
    module: TrainingModule,
    length: RunLength,
    duration_s: float,
    pictures: list[Pictures],
) -> DiskUse:
    """Return what a run will leave in its folder.

    Args:
        run: The run.
        trainer: Its trainer.
        module: What is trained.
        length: Its length.
        duration_s: How long it will take.
        pictures: What will be drawn.
    """
    whole = length.num_epochs * length.steps_per_epoch
    num_steps = whole if trainer.max_steps < 0 else min(whole, trainer.max_steps)
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    num_rows = (num_steps // every if every else 0) + math.ceil(num_steps / length.steps_per_epoch)
    drawn = sum(each.total_bytes for each in pictures)
    shown = sum(each.bytes_in_report for each in pictures)
    predictions = PREDICTIONS if isinstance(module.model, Classification) else 0
    weights = sum(t.numel() * t.element_size() for t in module.model.state_dict().values())
    return DiskUse(
        num_checkpoints=num_kept(
            trainer.checkpoint_callbacks, length, trainer.max_steps, duration_s
        ),
        checkpoint_bytes=checkpoint_bytes(module.model, has_average=bool(run.cfg.get("ema_decay"))),
        pictures=pictures,
        metrics_bytes=num_rows * METRICS_ROW,
        dashboard_bytes=_dashboard_bytes(run.config.get("logger"), num_rows, drawn),
        others_bytes=int(weights + REPORT + SMALL_FILES + predictions + BASE64 * shown),
    )


def _dashboard_bytes(settings: Any, num_rows: int, drawn_bytes: int) -> int:
    """Return what a logger writes; it takes every picture."""
    if not settings or settings.get(TARGET) is None:
        return 0
    logger = located(f"logger.{TARGET}", settings[TARGET])
    if issubclass(logger, WandbLogger):
        return WANDB_RUN + num_rows * WANDB_ROW + drawn_bytes
    if issubclass(logger, TensorBoardLogger):
        return num_rows * TENSORBOARD_ROW + drawn_bytes
    return 0

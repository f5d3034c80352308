"""The Lightning module of every job that trains: it knows the contract of an objective, no more."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import Metric

from ssl_swin.data.rng import keyed_generator, seed_globals
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.objectives.base import Objective
from ssl_swin.optim.schedules import Schedule
from ssl_swin.pixels import normalize
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.metrics_csv import MetricsCsv
from ssl_swin.training.optim import run_length

MakeOptimizer = Callable[..., OptimizerLRScheduler]  # of (model, *, schedule, length)


class TrainingModule(LightningModule):
    """Trains and evaluates an objective: normalisation, optimiser, clipping, logging."""

    model: Objective

    def __init__(
        self,
        model: Objective,
        *,
        optimizer: MakeOptimizer,
        schedule: Schedule,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
        suffix: str = "",
    ) -> None:
        """Puts the pieces together.

        Args:
            model: What to train.
            optimizer: Gives optimiser and scheduler.
            schedule: Schedule of the learning rate.
            mean: Per channel, of pixel values in [0, 1].
            std: Per channel, of pixel values in [0, 1].
            seed: Seed of what the model draws while it trains, such as dropped paths.
            suffix: Appended to the names of evaluation metrics.
        """
        super().__init__()
        self.model = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.mean = mean
        self.std = std
        self.seed = seed
        self.suffix = suffix
        # Sums and counts over all devices; `log(..., sync_dist=True)` would round the mean count of
        # images per device down, and so give too large a loss where they share unevenly.
        self.val_metrics = nn.ModuleDict(model.new_metrics())
        self.test_metrics = nn.ModuleDict(model.new_metrics())
        self._step = -1
        self._batch_of_step = 0

    def normalized(self, pixels: Tensor) -> Tensor:
        """Turns raw pixels (B, C, H, W) into model input, on their device."""
        return normalize(pixels, self.mean, self.std)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One batch; Lightning accumulates, steps and clips."""
        output = self.model(batch, self.normalized)
        num_images = len(batch.names)
        self.log("train/loss", output.loss, prog_bar=True, batch_size=num_images)
        for name, value in output.logs.items():
            self.log(f"train/{name}", value, batch_size=num_images)
        return output.loss  # type: ignore[no-any-return]

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Metrics on held-out images, always prepared in the same way."""
        self._evaluate("val", self.val_metrics, batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """The same metrics on the test images."""
        self._evaluate("test", self.test_metrics, batch)

    def _evaluate(self, split: str, metrics: nn.ModuleDict, batch: Any) -> None:
        self.model.evaluate(metrics, batch, self.normalized)  # type: ignore[arg-type]
        for name, metric in metrics.items():
            assert isinstance(metric, Metric)
            self.log(
                f"{split}/{name}{self.suffix}", metric, prog_bar=True, on_step=False, on_epoch=True
            )

    def on_fit_start(self) -> None:
        """Refuses batches that the objective cannot take.

        Raises:
            UserError: If it cannot.
        """
        batch_size = self.trainer.datamodule.batch_size  # type: ignore[attr-defined]
        self.model.check_batch_size(batch_size, batch_size * self.trainer.world_size)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Steps, and lets the objective do what follows; checkpoints are written after both."""
        super().optimizer_step(*args, **kwargs)
        self.model.after_step(self.global_step + 1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimiser and schedule for the length of this run."""
        return self.optimizer_for(self.trainer, self.trainer.datamodule)  # type: ignore[attr-defined]

    def optimizer_for(self, trainer: Trainer, data: ImageDataModule) -> OptimizerLRScheduler:
        """Optimiser and schedule for a run of this trainer over this data."""
        num_batches = data.num_train_batches()
        length = run_length(trainer, num_batches=num_batches, batch_size=data.batch_size)
        return self.optimizer(self.model, schedule=self.schedule, length=length)

    def on_train_start(self) -> None:
        """Drops metrics from beyond the step that a continued run starts at."""
        for logger in self._metrics_files():
            logger.forget_after(self.global_step)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Makes what is drawn for a batch a function of the step, its batch and the rank.

        Dropped paths and mixing are then the same in a run that was interrupted, and in one that
        evaluates or draws pictures at other times.
        """
        self._batch_of_step = 0 if self.global_step != self._step else self._batch_of_step + 1
        self._step = self.global_step
        key = (self.seed, "training", self._step, self._batch_of_step, self.global_rank)
        seed_globals(keyed_generator(*key))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what rebuilds the encoder, and brings metrics.csv up to the checkpoint's step."""
        encoder = getattr(self.model, "encoder", None)
        if isinstance(encoder, Encoder):
            checkpoint["ssl_swin"] = {
                "architecture": encoder.architecture,
                "model_args": encoder.model_args,
                "pretrained_cfg": {"mean": list(self.mean), "std": list(self.std)},
            }
        for logger in self._metrics_files():
            logger.flush()

    def _metrics_files(self) -> list[MetricsCsv]:
        return [logger for logger in self.loggers if isinstance(logger, MetricsCsv)]

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips by the global L2 norm, and stops the run before a non-finite update.

        Raises:
            UserError: If the norm is not finite. No checkpoint of such a step is written.
        """
        parameters = [p for p in self.parameters() if p.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val or math.inf)
        if not torch.isfinite(norm):
            raise UserError(
                f"the gradient norm became {norm.item()} at step {self.global_step} (rank "
                f"{self.global_rank}); checkpoints are from before it. Lower optim.base_lr, "
                "lengthen the warm-up, or use trainer.precision=bf16-mixed or 32-true"
            )
        self.log("optim/grad_norm", norm)
        self.log("optim/lr", max(group["lr"] for group in optimizer.param_groups))

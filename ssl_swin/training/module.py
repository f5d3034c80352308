"""The Lightning module of every job that trains: it knows the contract of an objective, no more."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW
from torchmetrics import Metric

from ssl_swin.data.rng import keyed_generator, seed_globals
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.kernels import HasKernels, Kernels
from ssl_swin.encoders.kernels import Optimizer as OptimizerKernel
from ssl_swin.objectives.base import Objective, Progress
from ssl_swin.optim.schedules import RunLength, Schedule
from ssl_swin.pixels import normalize
from ssl_swin.training.checkpointing.outside import OUTSIDE, check_outside
from ssl_swin.training.clipping import clip_gradients
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.freezing import Freeze
from ssl_swin.training.half_weights import follow_masters, step_masters, with_gradients
from ssl_swin.training.health.step_guard import StepGuard, Verdict, leave_out
from ssl_swin.training.health.weights_check import check_result, check_start
from ssl_swin.training.implementation import implement
from ssl_swin.training.optim import progress_at, run_length

LEAST_LOSS_SCALE = 1.0  # of fp16: below it, overflows are no longer a search for the right scale
HEALTH = "health"  # in a checkpoint: what is counted of steps left out
RandomKey = tuple[int, str, int, int, int]
MakeOptimizer = Callable[..., OptimizerLRScheduler]  # of (model, *, schedule, length)


class TrainingModule(LightningModule, HasKernels):
    """Trains and evaluates an objective: normalisation, optimiser, clipping, logging.

    A step whose loss or gradient is not finite on any rank is left out on all of them: it counts in
    `global_step`, in the schedule and in the order of the data, but weights, buffers and the
    optimiser's state stay as they were.

    Attributes:
        adamw_kernel: AdamW's implementation, where torch's own is used and may be fused.
        verdict: What was found of the last optimiser step.
        loss_scale: fp16's factor of the loss in that step; None in other formats.
        freezing: Keeps the backbone as it is at the start; None where it is trained throughout.
        made_step: Whether the last optimiser step changed the weights.
        num_skipped: Steps left out so far, those not counted that fp16 leaves out to find its
            scale.
        skipped_in_a_row: How many of the last steps were left out.
    """

    model: Objective
    verdict: Verdict
    adamw_kernel: OptimizerKernel = "fused"

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
        freeze_backbone_epochs: float | None = None,
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
            freeze_backbone_epochs: Epochs in which only what is not the backbone is trained.

        Raises:
            UserError: If nothing would be trained in these.
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
        self.guard = StepGuard(model)
        epochs = freeze_backbone_epochs
        self.freezing = None if epochs is None else Freeze(model, epochs)
        self.made_step = True
        self.loss_scale: float | None = None
        self.num_skipped = 0
        self.skipped_in_a_row = 0
        self._step = -1
        self._batch_of_step = 0
        self._length: RunLength | None = None

    def normalized(self, pixels: Tensor) -> Tensor:
        """Turns raw pixels (B, C, H, W) into model input, on their device."""
        return normalize(pixels, self.mean, self.std)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One batch; Lightning accumulates, steps and clips."""
        output = self.model(batch, self.normalized)
        num_images = len(batch.names)
        self.guard.watch(output.loss)
        # Every device has as many images, so that the mean over devices is that over images.
        self.log("train/loss", output.loss, prog_bar=True, batch_size=num_images, sync_dist=True)
        for name, value in output.logs.items():
            self.log(f"train/{name}", value, batch_size=num_images, sync_dist=True)
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

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Steps, and lets the objective do what follows; checkpoints are written after both.

        Nothing follows a step that was left out.
        """
        super().optimizer_step(*args, **kwargs)
        if self.made_step:
            follow_masters(self.parameters())
            self.model.after_step(self.global_step + 1)
        else:
            self.guard.undo_forward()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimiser and schedule for the length of this run."""
        return self.optimizer_for(self.trainer, self.trainer.datamodule)  # type: ignore[attr-defined]

    def optimizer_for(self, trainer: Trainer, data: ImageDataModule) -> OptimizerLRScheduler:
        """Optimiser and schedule for a run of this trainer over this data."""
        num_batches = data.num_train_batches()
        length = run_length(trainer, num_batches=num_batches, batch_size=data.batch_size)
        self._length = length
        made = self.optimizer(self.model, schedule=self.schedule, length=length)
        optimizer = made["optimizer"] if isinstance(made, dict) else made
        step_masters(optimizer)
        if type(optimizer) is AdamW and optimizer.defaults["fused"]:  # else a recipe says which
            implement(optimizer, self.adamw_kernel)
        return made

    def use_kernels(self, kernels: Kernels) -> None:
        """See `HasKernels.use_kernels`."""
        self.adamw_kernel = kernels.optimizer

    def on_train_start(self) -> None:
        """Looks at the weights to start from.

        Raises:
            UserError: If the weights to start from are not finite.
        """
        check_start(self)

    def on_train_end(self) -> None:
        """Looks at what the last step has made of the weights.

        Raises:
            TrainingGaveUp: If they are of no use.
        """
        check_result(self)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Makes what is drawn for a batch a function of the step, its batch and the rank.

        Dropped paths and mixing are then the same in a run that was interrupted, and in one that
        evaluates or draws pictures at other times.
        """
        self._batch_of_step = 0 if self.global_step != self._step else self._batch_of_step + 1
        self._step = self.global_step
        if self._batch_of_step == 0:
            self.guard.begin()
            if self._length is not None:  # else a subclass brought an optimiser of its own
                self._begin_step(progress_at(self.global_step, self._length))
        seed_globals(keyed_generator(*self.random_key))

    def _begin_step(self, progress: Progress) -> None:
        self.model.before_step(progress)
        if self.freezing is not None:
            # Of several devices, each waits for every gradient of the others.
            is_alone = not isinstance(self.trainer.strategy, DDPStrategy)
            self.freezing.begin(self.model, progress, is_alone=is_alone)

    @property
    def random_key(self) -> RandomKey:
        """What the draws of the current batch are a function of."""
        return (self.seed, "training", self._step, self._batch_of_step, self.global_rank)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what rebuilds the encoder, what lies outside, and the count of steps left out."""
        checkpoint |= self.facts()
        checkpoint[OUTSIDE] = self.model.outside()
        checkpoint[HEALTH] = {
            "num_skipped": self.num_skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on counting the steps that are left out.

        Raises:
            UserError: If what the objective computes with has changed since.
        """
        check_outside(checkpoint, self.model.outside())
        health = checkpoint.get(HEALTH, {})
        self.num_skipped = health.get("num_skipped", 0)
        self.skipped_in_a_row = health.get("skipped_in_a_row", 0)

    def facts(self) -> dict[str, Any]:
        """Return what rebuilds the encoder, to lie beside its weights; nothing if there is none."""
        encoder = getattr(self.model, "encoder", None)
        if not isinstance(encoder, Encoder):
            return {}
        return {
            "ssl_swin": {
                "architecture": encoder.architecture,
                "model_args": encoder.model_args,
                "pretrained_cfg": {"mean": list(self.mean), "std": list(self.std)},
            }
        }

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips by the global L2 norm, or leaves the step out where something is not finite."""
        self.model.after_backward()
        if self.freezing is not None:
            self.freezing.after_backward(self.model)
        parameters = [*with_gradients(self.parameters())]
        norm = clip_gradients(parameters, gradient_clip_val or None)
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        self.loss_scale = None if scaler is None else float(scaler.get_scale())
        self.verdict = verdict = self.guard.judge(norm)
        self.made_step = verdict.gradient_is_finite and verdict.losses_are_finite
        if self.made_step:
            self.skipped_in_a_row = 0
            self.log("optim/grad_norm", verdict.gradient_norm)
        else:
            leave_out(optimizer)
            self._count_skipped(verdict)
        self.log("optim/lr", max(group["lr"] for group in optimizer.param_groups))
        self.log("health/skipped_steps", float(self.num_skipped))
        if self.loss_scale is not None:
            self.log("amp/scale", self.loss_scale)

    def _count_skipped(self, verdict: Verdict) -> None:
        """Counts a step that was left out, unless fp16 is only looking for its loss scale."""
        is_searching = self.loss_scale is not None and self.loss_scale >= LEAST_LOSS_SCALE
        if not (is_searching and verdict.losses_are_finite):
            self.num_skipped += 1
            self.skipped_in_a_row += 1

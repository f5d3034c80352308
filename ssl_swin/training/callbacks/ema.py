"""A moving average of the weights."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ssl_swin.arguments import InnerFraction, checked
from ssl_swin.errors import UserError
from ssl_swin.training.strategy import ShardedStrategy


class WeightEma(WeightAveraging):
    """Averages the weights exponentially over the optimiser steps, and validates the average.

    A checkpoint's `state_dict` is the average, so that the best epoch's is handed on; the weights
    that training goes on with lie beside it. After training the module holds the average.
    """

    @checked
    def __init__(self, decay: InnerFraction) -> None:
        """Sets the callback up.

        Args:
            decay: What remains of the average after each optimiser step, in (0, 1); the first
                step's weights start it.

        Raises:
            UserError: If `decay` is out of range.
        """
        # Buffers are copied: averaging would truncate the integers among them.
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        super().__init__(use_buffers=False, multi_avg_fn=average)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copies the weights to the device of training, where the module is not yet.

        Raises:
            UserError: If the weights are divided over devices.
        """
        if isinstance(trainer.strategy, ShardedStrategy):
            raise UserError(
                "ema_decay needs the whole weights on each device: leave ema_decay=null, or set "
                "trainer=ddp"
            )
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Averages after a step; one that was left out is not averaged."""
        if getattr(pl_module, "made_step", True):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        else:
            self._latest_update_step = trainer.global_step

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lets go of the average, which a later validation would put in place of other weights."""
        self._average_model = None

"""How fast a run is, and how much of its time it waits for data (L2)."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Throughput(Callback):
    """Logs `perf/samples_per_s` over all devices and `perf/data_wait_frac`, now and then."""

    def __init__(self) -> None:
        self._batch_ended = 0.0
        self._reset(0.0)

    def _reset(self, now: float) -> None:
        self._window_started = now
        self._waited_s = 0.0
        self._num_batches = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts a window, so that validation time does not count."""
        self._batch_ended = time.perf_counter()
        self._reset(self._batch_ended)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Adds the time since the last batch ended to the wait."""
        self._waited_s += time.perf_counter() - self._batch_ended

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs the window when it is time, and starts the next."""
        self._batch_ended = now = time.perf_counter()
        self._num_batches += 1
        if self._num_batches < trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        elapsed_s = now - self._window_started
        num_samples = self._num_batches * len(batch[0]) * trainer.world_size
        pl_module.log("perf/samples_per_s", num_samples / elapsed_s)
        pl_module.log("perf/data_wait_frac", self._waited_s / elapsed_s)
        self._reset(now)

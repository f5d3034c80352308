"""How fast a run is, and how much of its time it waits for data."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ssl_swin.training.batch_clock import BatchClock


class Throughput(Callback):
    """Logs `perf/samples_per_s` over all devices and `perf/data_wait_frac`, between logged steps.

    Time between epochs, in validation, and of pictures and probes does not count.
    """

    def __init__(self) -> None:
        self._clock = BatchClock()
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock, also where a run resumes inside an epoch."""
        self._clock.go_on()
        self._step = trainer.global_step

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves out the time since the last epoch."""
        self._clock.go_on()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves out the time of a validation inside an epoch."""
        self._clock.go_on()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Adds the time since the last batch ended to the wait."""
        self._clock.batch_started()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs the window at the steps that Lightning logs, and starts the next."""
        self._clock.batch_ended()
        if not self._is_logged(trainer):
            return
        clock = self._clock
        num_samples = clock.num_batches * len(batch.names) * trainer.world_size
        pl_module.log("perf/samples_per_s", num_samples / clock.elapsed_s)
        pl_module.log("perf/data_wait_frac", clock.waited_s / clock.elapsed_s)
        clock.start_window()

    def _is_logged(self, trainer: Trainer) -> bool:
        """Returns whether this batch made an optimiser step, and one that is logged."""
        every_n_steps: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        made_step = trainer.global_step != self._step
        self._step = trainer.global_step
        return made_step and every_n_steps > 0 and self._step % every_n_steps == 0

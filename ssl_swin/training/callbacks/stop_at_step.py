"""A run that is told to stop saves its state at the next step, and ends."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from ssl_swin.stopping.stopped import RunStopped
from ssl_swin.stopping.watch import SignalWatch
from ssl_swin.training.callbacks.ema import AVERAGES
from ssl_swin.training.peers import Peers

ANSWER = "Ctrl-C: saving at the next step, then stopping; once more stops at once"


class StopAtStep(Checkpoint):
    """Asks at every optimiser step whether to stop; then all processes save, and end together.

    A stop during validation or a probe does not wait for its end: what is saved is the state after
    the last step, with the validation still to do. Every job that trains gets this callback, as
    the last one (Lightning puts checkpoints there), so that the others have done their part.
    """

    def __init__(self, path: Path, watch: SignalWatch) -> None:
        """Set the callback up.

        Args:
            path: The run's last checkpoint.
            watch: Knows whether to stop.
        """
        self.path = path
        self.watch = watch
        self._peers = Peers()
        self._step = 0
        self._common_batches = 0  # of a validation, that every process has
        self._after_step: dict[str, Any] | None = None  # the state, until weights change again
        self._replaces = False  # whether it is saved in place of the present one
        self._averages_shown = False
        self._stopped: RunStopped | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Connects the processes."""
        if stage == "fit":
            self._peers = Peers(getattr(trainer.strategy, "_timeout", None))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From now on, a signal interrupts nothing."""
        self._step = trainer.global_step
        self.watch.defer(True, ANSWER if trainer.is_global_zero else "")

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Ends after a step that was saved, now that its metrics are logged."""
        if self._stopped is not None:
            raise self._stopped

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Asks after every optimiser step, and saves; the run ends when the step is logged."""
        if trainer.global_step == self._step:
            return  # inside an accumulation: the last step's state is still the one to save
        self._step = trainer.global_step
        is_kept = _may_be_left_behind(trainer, batch_idx)
        self._after_step = _state_after_step(trainer) if is_kept else None
        self.watch.between_steps = is_kept and trainer.world_size == 1
        if status := self._peers.largest(self.watch.asked()):
            self._stopped = RunStopped(status)
            self._save(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends before the first batch, if the step before was the last one."""
        if _in_training(trainer):
            self._common_batches = self._peers.smallest(sum(map(int, trainer.num_val_batches)))
            self._stop_between_steps(trainer)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remembers that averaged weights, if any, are in place of the trained ones."""
        self._averages_shown = True

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Asks at every batch that all processes have."""
        if _in_training(trainer) and batch_idx < self._common_batches:
            self._stop_between_steps(trainer)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remembers that the trained weights are back."""
        self._averages_shown = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Asks once the epoch is complete, with all that the other callbacks do at its end."""
        self._after_step, self.watch.between_steps = None, False
        if self._stopped is None and (status := self._peers.largest(self.watch.asked())):
            self._stopped = RunStopped(status)
            self._save(trainer)
        if self._stopped is not None:
            raise self._stopped

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From now on, a signal interrupts again: there is nothing more to save."""
        if status := self._peers.largest(self.watch.status):
            raise RunStopped(status)
        self.watch.defer(False)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Saves if a probe was left between two steps."""
        if isinstance(exception, RunStopped):
            exception.step = trainer.global_step
            if exception.between_steps and self._after_step is not None:
                self._stopped = exception
                self._save_state_after_step(trainer)
        self.watch.disregard()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Puts the state after the last step in place of that inside a validation."""
        if self._replaces and self._after_step is not None:
            checkpoint |= {**self._after_step, "loops": checkpoint["loops"]}
            checkpoint["loops"] |= self._after_step["loops"]

    def _stop_between_steps(self, trainer: Trainer) -> None:
        if self._stopped is not None:
            raise self._stopped
        status = self._peers.largest(self.watch.asked())
        if not status:
            return
        self._stopped = RunStopped(status)
        if self._after_step is not None:  # else no step was made since the run was started
            self._save_state_after_step(trainer)
        raise self._stopped

    def _save_state_after_step(self, trainer: Trainer) -> None:
        if self._averages_shown:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, AVERAGES):
                    callback.on_validation_epoch_end(trainer, trainer.lightning_module)
            self._averages_shown = False
        self._replaces = True
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        assert self._stopped is not None
        self._stopped.let_others_go = self._peers.wait
        trainer.save_checkpoint(self.path)
        self._stopped.saved = self.path
        self._stopped.step = trainer.global_step


def _in_training(trainer: Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def _may_be_left_behind(trainer: Trainer, batch_idx: int) -> bool:
    """Return whether more than the next batch follows a step, so that its state has to be kept.

    That is a validation, also one inside the next accumulation, or the end of an epoch.
    """
    interval = trainer.val_check_batch
    is_last = batch_idx + 1 >= trainer.num_training_batches
    if is_last or not interval or trainer.accumulate_grad_batches > 1:
        return True
    by_epoch = trainer.check_val_every_n_epoch is not None
    num_batches = (batch_idx if by_epoch else trainer.fit_loop.total_batch_idx) + 1
    return num_batches % interval == 0


def _state_after_step(trainer: Trainer) -> dict[str, Any]:
    """Return what a checkpoint holds that changes in a validation: all but weights and optimiser.

    A run that starts from it does first what follows the step, as the validation.
    """
    states = {each.state_key: each.state_dict() for each in trainer.callbacks}  # type: ignore[attr-defined]
    data = trainer.datamodule  # type: ignore[attr-defined]
    return {
        "epoch": trainer.current_epoch,
        "global_step": trainer.global_step,
        "loops": {"fit_loop": trainer.fit_loop.state_dict()},
        "callbacks": deepcopy({key: state for key, state in states.items() if state}),
        type(data).__qualname__: data.state_dict(),
    }

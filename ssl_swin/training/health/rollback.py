"""Back to the weights of an earlier checkpoint, inside a run that goes on."""

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer

from ssl_swin.runs.catalogue import Catalogue
from ssl_swin.training.callbacks.ema import AVERAGES


def roll_back(
    trainer: Trainer, module: LightningModule, folder: Path, *, latest_step: int
) -> int | None:
    """Sets weights, buffers, averages, the optimiser's state and fp16's scale back.

    The run keeps its number of steps, its learning rate and its place in the data: the batches that
    led here are not repeated, which would lead here again.

    Args:
        trainer: In training.
        module: What it trains.
        folder: Folder of the run's checkpoints.
        latest_step: Checkpoints of later steps are left alone.

    Returns:
        The step that the weights are of; None if there is no healthy checkpoint.
    """
    found = _newest_healthy(folder, latest_step) if trainer.is_global_zero else None
    found = trainer.strategy.broadcast(found)
    if found is None:
        return None
    path, step = found
    optimizer = trainer.optimizers[0]
    settings = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    checkpoint = trainer.strategy.load_checkpoint(path, weights_only=True)
    if "state_dict" in checkpoint:  # else the strategy has loaded its shards in place
        trainer.strategy.load_model_state_dict(checkpoint)
        trainer.strategy.load_optimizer_state_dict(checkpoint)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, AVERAGES):
            callback.on_load_checkpoint(trainer, module, checkpoint)
    plugin = trainer.precision_plugin
    if state := checkpoint.get(type(plugin).__qualname__):
        plugin.load_state_dict(state)
    for group, before in zip(optimizer.param_groups, settings, strict=True):
        group.update(before)
    return step


def _newest_healthy(folder: Path, latest_step: int) -> tuple[Path, int] | None:
    """Returns the checkpoint to go back to and its step, and notes that later ones are no good."""
    catalogue = Catalogue(folder)
    entry = catalogue.last_healthy_before(latest_step + 1)
    if entry is None:
        return None
    catalogue.mark_unhealthy_from(latest_step + 1)
    return folder / entry.name, entry.step

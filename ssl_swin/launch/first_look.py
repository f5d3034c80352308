"""What would fail after hours, looked at before the first step of every run."""

from itertools import islice
from typing import Any

from lightning.pytorch import Trainer

from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.protocol import LoaderConfig, Split
from ssl_swin.data.overlap import overlap
from ssl_swin.errors import UserError
from ssl_swin.files import check_can_be_made
from ssl_swin.launch.printing import say
from ssl_swin.launch.run import Run
from ssl_swin.launch.space import check_space, checkpoint_bytes, num_kept
from ssl_swin.optim.schedules import RunLength
from ssl_swin.plurals import counted
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.module import TrainingModule
from ssl_swin.training.optim import run_length


def look_first(run: Run, trainer: Trainer, module: TrainingModule, data: ImageDataModule) -> None:
    """Check batches, folder, space and one image of every split; tell of what will never happen.

    Raises:
        UserError: If the objective or the encoder cannot take such batches, the backbone would
            never be trained, or the run cannot keep its checkpoints or read one of its splits.
    """
    module.model.encoder.check_batch_size(data.batch_size)
    module.model.check_batch_size(data.batch_size, data.batch_size * trainer.world_size)
    length = length_of(trainer, data)
    _check_freeze(trainer, module, length)
    if trainer.is_global_zero:
        check_can_be_made(run.folder.path, "run_dir")
        size = checkpoint_bytes(module.model, has_average=bool(run.cfg.get("ema_decay")))
        number = num_kept(trainer.checkpoint_callbacks, length, trainer.max_steps)
        check_space(run.folder.path, number=number, size_bytes=size)
        for split, reader in data.readers.items():
            _check_readable(split, reader, data)
            _check_labels(split, reader, len(data.readers["train"].classes))
        _tell_overlap(data)
        _tell_few_images(run, data)
    _tell_never_written(run, length)
    _tell_of_long_warmup(run, length)
    _tell_of_milestones(run, length)
    for note in module.model.notes():
        say(f"note: {note}")


def length_of(trainer: Trainer, data: ImageDataModule) -> RunLength:
    """Return how long the run is."""
    data.trainer = trainer
    num_batches = data.num_train_batches()
    return run_length(trainer, num_batches=num_batches, batch_size=data.batch_size)


def _check_freeze(trainer: Trainer, module: TrainingModule, length: RunLength) -> None:
    """Refuse a run that ends before its backbone is trained, and a freeze of no step."""
    if module.freezing is None:
        return
    asked = f"freeze_backbone_epochs={module.freezing.num_epochs:g}"
    frozen = module.freezing.num_steps(length.steps_per_epoch)
    if not frozen:
        raise UserError(
            f"{asked} is less than half a step, of {length.steps_per_epoch} an epoch, so that no "
            f"step would be frozen: give 1/{length.steps_per_epoch} or more, or null"
        )
    if frozen >= length.num_epochs * length.steps_per_epoch:
        raise UserError(
            f"{asked} is the whole run of {counted(length.num_epochs, 'epoch')}, which would not "
            "change the backbone: give less, or more trainer.max_epochs"
        )
    if 0 <= trainer.max_steps <= frozen:
        raise UserError(
            f"{asked} is {counted(frozen, 'step')} here, and trainer.max_steps={trainer.max_steps} "
            "would not change the backbone: give less, or more steps"
        )


def _check_readable(split: str, reader: Split, data: ImageDataModule) -> None:
    """Make an example of a split as it will be made later; damaged images are passed over."""
    loader = reader.eval_loader(data.eval_samples, data.collate, LoaderConfig(1, 0, 0, 1))
    if next(islice(loader, 1), None) is None:
        name, reason = loader.bad_samples[0] if loader.bad_samples else (split, "it holds none")
        raise UserError(f"no image of {split} can be read, the first is {name}: {reason}")


def _check_labels(split: str, reader: Split, num_classes: int) -> None:
    if not num_classes or not isinstance(reader, IndexedSplit):
        return
    labels: Any = reader.dataset.labels()
    if len(labels) and (largest := int(labels.max())) >= num_classes:
        raise UserError(
            f"{split} has an image of class {largest}, and train names "
            f"{counted(num_classes, 'class')}, from 0: pack both splits from one list of classes"
        )


def _tell_overlap(data: ImageDataModule) -> None:
    """Say that held-out images are trained on; that may be meant, as in a test of the whole."""
    known = {s: each.dataset for s, each in data.readers.items() if isinstance(each, IndexedSplit)}
    for split, held_out in known.items():
        if split == "train" or "train" not in known:
            continue
        seen = overlap(known["train"], held_out)
        if seen.num_found:
            say(
                f"note: {seen.num_found} of {counted(seen.num_looked_at, 'image')} of {split} that "
                "were looked at are in train too, byte for byte: what is measured there tells "
                "nothing of new images"
            )


def _tell_few_images(run: Run, data: ImageDataModule) -> None:
    """Say that a picture will have fewer rows than it is asked for."""
    split = "val" if "val" in data.readers else "train"
    number = data.readers[split].num_samples
    for name, settings in run.config["callbacks"].items():
        asked = (settings or {}).get("num_images")
        if isinstance(asked, int) and asked > number:
            say(
                f"note: callbacks.{name}.num_images={asked} is more than the "
                f"{counted(number, 'image')} of {split}: so many are drawn"
            )


def _tell_of_long_warmup(run: Run, length: RunLength) -> None:
    """Say that a warm-up in steps outlasts the run; of one in epochs, `fit` says it."""
    warmup_steps = run.cfg.schedule.get("warmup_steps", 0)
    num_steps = length.steps_per_epoch * length.num_epochs
    if warmup_steps >= num_steps:
        say(
            f"note: schedule.warmup_steps={warmup_steps} is no less than the run's "
            f"{counted(num_steps, 'step')}: the learning rate never reaches its peak"
        )


def _tell_of_milestones(run: Run, length: RunLength) -> None:
    """Say that the rate falls after the run, or so early that most of it runs at the smallest."""
    milestones = run.cfg.schedule.get("milestone_epochs") or []
    if not milestones:
        return
    asked = f"schedule.milestone_epochs={list(milestones)}"
    epochs = counted(length.num_epochs, "epoch")
    if max(milestones) >= length.num_epochs:
        say(f"note: {asked} lies beyond the run's {epochs}: the learning rate does not fall there")
    elif max(milestones) < length.num_epochs / 2:
        say(
            f"note: {asked} is early in the run's {epochs}: more than half of them have the lowest "
            "learning rate"
        )


def _tell_never_written(run: Run, length: RunLength) -> None:
    for name, settings in run.config["callbacks"].items():
        every = (settings or {}).get("every_n_epochs")
        if name != "milestones" and every and every > length.num_epochs:
            say(
                f"note: callbacks.{name}.every_n_epochs={every} is more than the run's "
                f"{counted(length.num_epochs, 'epoch')}: it will not happen again after the start"
            )

"""The job of semantic segmentation."""

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from lightning.pytorch import Trainer
from omegaconf import DictConfig

from ssl_swin.data.decoding import decode_mask
from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.protocol import Split
from ssl_swin.data.mask_classes import IGNORED
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.jobs.dense_classes import dense_classes
from ssl_swin.jobs.labels import train_on_few_images
from ssl_swin.jobs.loop import training_module
from ssl_swin.jobs.next_steps import after_training_on_images
from ssl_swin.jobs.settings import SegmentSettings
from ssl_swin.jobs.summary import finish
from ssl_swin.jobs.training_tasks import export_with_backbone, measure, train_task
from ssl_swin.launch.build import backbone_folder, build_encoder, check_splits, open_data
from ssl_swin.launch.command_line import command
from ssl_swin.launch.keeping import keep_folders
from ssl_swin.launch.printing import say
from ssl_swin.launch.run import Run, open_run
from ssl_swin.launch.targets import located, make
from ssl_swin.plurals import counted
from ssl_swin.tasks.base import Task
from ssl_swin.tasks.segmentation import Segmentation
from ssl_swin.training.callbacks.class_ious import ClassIous
from ssl_swin.training.checkpointing.best import load_best
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.module import TrainingModule

MOST_LOOKED_AT = 256  # masks of a split, before a run
MOST_NAMED = 5  # classes in a message


def main(cfg: DictConfig) -> None:
    """Train on masks, keep the best epoch by the validation metric, and export the task."""
    run = open_run(cfg, SegmentSettings)
    task, readers = task_and_data(cfg, build_encoder(cfg, backbone_folder(cfg)))
    check_splits(readers, ("val",))
    for split, reader in readers.items():
        look_at_masks(split, reader, task)
    hand_over = partial(_hand_over, run, task)
    train_task(run, task, readers, hand_over, any_sizes=[task.crop_px])


def task_and_data(cfg: DictConfig, encoder: Encoder) -> tuple[Segmentation, dict[str, Split]]:
    """Build the task, and open the data that it is trained on.

    Args:
        cfg: Configuration of the job.
        encoder: Pretrained, or with random weights.

    Raises:
        UserError: If the task is no segmentation, it cannot have this encoder, or there is no such
            data.
    """
    task_class: type[Task] = located("task._target_", cfg.task._target_)
    if not issubclass(task_class, Segmentation):
        raise UserError(
            f"task._target_={cfg.task._target_} is no segmentation: give task=segmentation, or a "
            f"subclass of ssl_swin.Segmentation; {command(task_class.job)} trains this one"
        )
    readers = open_data(cfg, task_class.members)
    classes = dense_classes(cfg.classes, readers["train"], "masks")
    task: Segmentation = make(cfg.task)(encoder, classes)
    train_on_few_images(cfg, readers)
    return task, readers


def look_at_masks(split: str, reader: Split, task: Segmentation) -> None:
    """Read masks before training: some of each split, evenly spread, or all of few.

    Says which classes are in none of them.

    Args:
        split: Name of the split.
        reader: The split; one that is streamed is passed over.
        task: Says what values stand for.

    Raises:
        UserError: If a mask holds a value or colour of no class, with its file and the value.
    """
    if not isinstance(reader, IndexedSplit) or not reader.num_samples:
        return
    num_classes, dataset = len(task.classes), reader.dataset
    number = min(MOST_LOOKED_AT, len(dataset))
    seen = torch.zeros(num_classes, dtype=torch.bool)
    for index in np.linspace(0, len(dataset) - 1, number).astype(np.int64).tolist():
        try:
            encoded = dataset[index]
            mask = decode_mask(encoded, as_colours=task.masks.are_colours)
        except (UserError, OSError):  # damaged, which the loader passes over and counts
            continue
        file = dataset.file_name(index)
        name = f"{encoded.name} ({file})" if file and file != encoded.name else encoded.name
        found = task.masks.read(mask, num_classes, name)
        seen[found[found != IGNORED].long()] = True
    if not seen.all():
        missing = [task.classes[label] for label in (~seen).nonzero().flatten().tolist()]
        more = f" and {len(missing) - MOST_NAMED} others" if len(missing) > MOST_NAMED else ""
        say(
            f"note: {counted(number, 'mask')} of {split} that were looked at hold no pixel of "
            f"class {', '.join(missing[:MOST_NAMED])}{more}"
        )


def _hand_over(
    run: Run, task: Segmentation, trainer: Trainer, module: TrainingModule, data: ImageDataModule
) -> None:
    """Measure the best epoch's weights, export them, and conclude."""
    best = load_best(trainer, module, run.folder.last_checkpoint)
    measured = _measured(run.cfg, trainer, task, module, data)
    export_with_backbone(run, trainer, task, data.readers["train"])
    path = run.folder.path
    keep_folders(run, trainer.loggers, task.folder, "predictions")
    finish(
        run,
        trainer,
        results=lambda: [
            (task.result_title, measured),
            *([] if best is None else [("best", f"{path}/checkpoints/{best.name}")]),
            (task.folder, f"{path}/{task.folder}/"),
            ("", f'ssl_swin.load_segmenter("{path}")'),
            ("backbone", f"{path}/backbone/"),
        ],
        next_steps=lambda: after_training_on_images(run, "segment", "segments"),
    )


def _measured(
    cfg: DictConfig,
    trainer: Trainer,
    task: Segmentation,
    module: TrainingModule,
    data: ImageDataModule,
) -> str:
    """Measure the best weights, at several scales and mirrored too where that is asked for."""
    results = []
    if cfg.test_ratios is not None:
        once = task.inference
        task.inference = replace(once, ratios=tuple(cfg.test_ratios), flip=True)
        several = training_module(cfg, task, suffix="_multi_scale")
        results.append(measure(trainer, task, several, data, "several scales, mirrored too"))
        task.inference = once
    trainer.callbacks.append(ClassIous(trainer.default_root_dir))  # type: ignore[attr-defined]
    if "test" not in data.readers:  # their values are kept apart from those of the last epoch
        module = training_module(cfg, task, suffix="_best")
    results.append(measure(trainer, task, module, data, "one scale"))
    return ", ".join(reversed(results))

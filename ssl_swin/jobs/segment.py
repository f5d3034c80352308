"""The job of semantic segmentation."""

from dataclasses import replace
from functools import partial

from lightning.pytorch import Trainer
from omegaconf import DictConfig

from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.loading.protocol import Split
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.jobs.dense_classes import dense_classes
from ssl_swin.jobs.dense_tasks import class_of_task, conclude
from ssl_swin.jobs.labels import train_on_few_images
from ssl_swin.jobs.loop import training_module
from ssl_swin.jobs.mask_look import look_at_masks
from ssl_swin.jobs.settings import SegmentSettings
from ssl_swin.jobs.training_tasks import measure, train_task
from ssl_swin.launch.build import backbone_folder, build_encoder, check_splits, open_data
from ssl_swin.launch.run import Run, open_run
from ssl_swin.launch.targets import make
from ssl_swin.tasks.segmentation import Segmentation
from ssl_swin.training.callbacks.class_ious import ClassIous
from ssl_swin.training.checkpointing.best import load_best
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.module import TrainingModule


def main(cfg: DictConfig) -> None:
    """Train on masks, keep the best epoch by the validation metric, and export the task."""
    run = open_run(cfg, SegmentSettings)
    task, readers = task_and_data(cfg, build_encoder(cfg, backbone_folder(cfg)))
    check_splits(readers, ("val",))
    for split, reader in readers.items():
        look_at_masks(split, reader, task, PixelFormat.from_settings(cfg.data))
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
    task_class = class_of_task(cfg, Segmentation, "task=segmentation")
    readers = open_data(cfg, task_class.members)
    classes = dense_classes(cfg.classes, readers["train"], "masks")
    task: Segmentation = make(cfg.task)(encoder, classes)
    train_on_few_images(cfg, readers)
    return task, readers


def _hand_over(
    run: Run, task: Segmentation, trainer: Trainer, module: TrainingModule, data: ImageDataModule
) -> None:
    """Measure the best epoch's weights, export them, and conclude."""
    best = load_best(trainer, module, run.folder.last_checkpoint)
    measured = _measured(run.cfg, trainer, task, module, data)
    results = [(task.result_title, measured)]
    conclude(run, trainer, task, data, best=best, measured=results, predicted="segments")


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

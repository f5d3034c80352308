"""The job of detection: boxes, and masks of single objects."""

from functools import partial

from lightning.pytorch import Trainer
from omegaconf import DictConfig

from ssl_swin.data.loading.paired import UNLABELLED
from ssl_swin.data.loading.protocol import Split
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.jobs.box_look import look_at_boxes, object_masks
from ssl_swin.jobs.dense_classes import dense_classes
from ssl_swin.jobs.dense_tasks import class_of_task, conclude
from ssl_swin.jobs.labels import train_on_few_images
from ssl_swin.jobs.loop import training_module
from ssl_swin.jobs.semi import teach_softly
from ssl_swin.jobs.settings import DetectSettings
from ssl_swin.jobs.training_tasks import measure, train_task
from ssl_swin.launch.build import backbone_folder, build_encoder, check_splits, open_data
from ssl_swin.launch.run import Run, open_run
from ssl_swin.launch.targets import make
from ssl_swin.tasks.detection import Detection
from ssl_swin.training.callbacks.class_aps import ClassAps
from ssl_swin.training.checkpointing.best import load_best
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.module import TrainingModule


def main(cfg: DictConfig) -> None:
    """Train on boxes, keep the best epoch by the validation metric, and export the task."""
    run = open_run(cfg, DetectSettings)
    task, readers = task_and_data(cfg, build_encoder(cfg, backbone_folder(cfg)))
    check_splits(readers, ("val",))
    if cfg.compile and task.encoder.bias_windows():
        raise UserError(
            f"compile=true: the windows of a {task.encoder.title} are compiled for one size of "
            "images, and every batch of a detection has another one, for which it would compile "
            "again: leave compile=false"
        )
    for split, reader in readers.items():
        if split == UNLABELLED:
            continue
        look_at_boxes(split, reader, task.classes, with_masks=task.with_masks)
    train_task(run, task, readers, partial(_hand_over, run, task))


def task_and_data(cfg: DictConfig, encoder: Encoder) -> tuple[Detection, dict[str, Split]]:
    """Build the task, and open the data that it is trained on.

    Args:
        cfg: Configuration of the job.
        encoder: Pretrained, or with random weights.

    Raises:
        UserError: If the task is no detection, it cannot have this encoder, or there is no such
            data.
    """
    task_class = class_of_task(cfg, Detection, "task=mask_rcnn", "task=cascade_mask_rcnn")
    readers = open_data(cfg, task_class.members)
    train_on_few_images(cfg, readers)
    classes = dense_classes(cfg.classes, readers["train"], "boxes")
    with_masks = cfg.task.with_masks
    if with_masks is None:
        with_masks = object_masks(readers["train"])
    task: Detection = make(cfg.task)(encoder, classes, with_masks=with_masks)
    teach_softly(cfg, task, readers)
    return task, readers


def _hand_over(
    run: Run, task: Detection, trainer: Trainer, module: TrainingModule, data: ImageDataModule
) -> None:
    """Measure the best epoch's weights, export them, and conclude."""
    best = load_best(trainer, module, run.folder.last_checkpoint)
    trainer.callbacks.append(ClassAps(trainer.default_root_dir))  # type: ignore[attr-defined]
    if "test" not in data.readers:  # their values are kept apart from those of the last epoch
        module = training_module(run.cfg, task, suffix="_best")
    measured = [(task.result_title, measure(trainer, task, module, data, "one scale"))]
    if task.with_masks:
        split = "test" if "test" in data.readers else "val"
        value = float(trainer.callback_metrics[f"{split}/mask_map{module.suffix}"])
        measured.append(("mask AP", f"{value:.4f}"))
    conclude(run, trainer, task, data, best=best, measured=measured, predicted="objects")

"""What the jobs of segmentation and detection share: which class the task is of, and the end."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from lightning.pytorch import Trainer
from omegaconf import DictConfig

from ssl_swin.errors import UserError
from ssl_swin.jobs.next_steps import after_training_on_images
from ssl_swin.jobs.summary import finish
from ssl_swin.jobs.training_tasks import export_with_backbone
from ssl_swin.launch.command_line import command
from ssl_swin.launch.keeping import keep_folders
from ssl_swin.launch.run import Run
from ssl_swin.launch.targets import located
from ssl_swin.tasks.base import Task
from ssl_swin.training.datamodule import ImageDataModule

AnyTask = TypeVar("AnyTask", bound=Task)


def class_of_task(cfg: DictConfig, base: type[AnyTask], *ways: str) -> type[AnyTask]:
    """Return the class of the task that a job is to train.

    Args:
        cfg: Configuration of the job.
        base: What it must be a subclass of.
        ways: Settings that give such a task.

    Raises:
        UserError: If it is a task of another job.
    """
    task_class: type[Task] = located("task._target_", cfg.task._target_)
    if issubclass(task_class, base):
        return task_class
    raise UserError(
        f"task._target_={cfg.task._target_} is no {base.__name__.lower()}: give "
        f"{', '.join(ways)} or a subclass of ssl_swin.{base.__name__}; "
        f"{command(task_class.job)} trains this one"
    )


def conclude(
    run: Run,
    trainer: Trainer,
    task: Task,
    data: ImageDataModule,
    *,
    best: Path | None,
    measured: Sequence[tuple[str, str]],
    predicted: str,
) -> None:
    """Export a task with its best weights and the backbone beside it, and say what there is.

    Args:
        run: The run.
        trainer: After training and measuring.
        task: The task, with its best weights.
        data: The loaders.
        best: The checkpoint of these; None if there is none.
        measured: Results, by what they are.
        predicted: Folder in that of the run for what is predicted.
    """
    export_with_backbone(run, trainer, task, data.readers["train"])
    path = run.folder.path
    keep_folders(run, trainer.loggers, task.folder, "predictions")
    finish(
        run,
        trainer,
        results=lambda: [
            *measured,
            *([] if best is None else [("best", f"{path}/checkpoints/{best.name}")]),
            (task.folder, f"{path}/{task.folder}/"),
            ("", f'ssl_swin.load_{task.folder}("{path}")'),
            ("backbone", f"{path}/backbone/"),
        ],
        next_steps=lambda: after_training_on_images(run, task.job, predicted),
    )

"""The fine-tuning job."""

from functools import partial

from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf

from ssl_swin.data.loading.few_labels import keep_labelled
from ssl_swin.data.loading.protocol import Split
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.inference.calibration import fit_calibration, save_calibration
from ssl_swin.inference.predictors.classification import ClassPredictor
from ssl_swin.jobs.labels import train_on_few_labels
from ssl_swin.jobs.loop import training_data, training_module
from ssl_swin.jobs.next_steps import after_finetuning
from ssl_swin.jobs.settings import FinetuneSettings
from ssl_swin.jobs.summary import finish, timm_line
from ssl_swin.jobs.training_tasks import export_task, measure, train_task
from ssl_swin.launch.build import (
    backbone_folder,
    build_encoder,
    check_labelled,
    check_splits,
    open_data,
)
from ssl_swin.launch.command_line import command
from ssl_swin.launch.keeping import keep_folders
from ssl_swin.launch.printing import say
from ssl_swin.launch.run import Run, open_run
from ssl_swin.launch.targets import located, make
from ssl_swin.probing.feature_store import weights_fingerprint
from ssl_swin.runs.side_failures import SideFailures
from ssl_swin.tasks.base import Task
from ssl_swin.tasks.classification import Classification
from ssl_swin.training.callbacks.class_predictions import ClassPredictions
from ssl_swin.training.callbacks.class_scores import ClassScores
from ssl_swin.training.checkpointing.best import load_best
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.module import TrainingModule
from ssl_swin.weights.kept_head import keep_head


def main(cfg: DictConfig) -> None:
    """Fine-tune, keep the best epoch by the validation metric, and export the task."""
    run = open_run(cfg, FinetuneSettings)
    folder = backbone_folder(cfg)
    encoder = build_encoder(cfg, folder)
    task, readers = task_and_data(cfg, encoder)
    if folder is not None and run.checkpoint is None and cfg.head == "auto":
        if line := keep_head(task, encoder, folder):
            say(line)
    if cfg.test_img_size_px is not None:
        task.resized(cfg.test_img_size_px)  # a wrong size shows before training
    train_task(run, task, readers, partial(_hand_over, run, task))


def task_and_data(cfg: DictConfig, encoder: Encoder) -> tuple[Task, dict[str, Split]]:
    """Build the task, and open the data that it is trained on.

    Args:
        cfg: Configuration of the job.
        encoder: Pretrained, or with random weights.

    Raises:
        UserError: If another job trains the task, there is no such data, or it lacks a split or
            labels.
    """
    task_class: type[Task] = located("task._target_", cfg.task._target_)
    if task_class.job != "finetune":
        raise UserError(
            f"task._target_={cfg.task._target_} is trained by another job: "
            f"{command(task_class.job)}"
        )
    readers = open_data(cfg, task_class.members)
    check = check_labelled if task_class.needs_labels else check_splits
    check(readers, ("val",))
    train_on_few_labels(cfg, readers)
    if task_class.needs_labels:
        keep_images_with_labels(readers)
    return make(cfg.task)(encoder, readers["train"].classes), readers


def _hand_over(
    run: Run, task: Task, trainer: Trainer, module: TrainingModule, data: ImageDataModule
) -> None:
    """Measure the best epoch's weights, export them, and conclude."""
    best = load_best(trainer, module, run.folder.last_checkpoint)
    scores = ClassScores()
    measured = _measure_by_size(run.cfg, trainer, task, module, data, scores)
    export_task(run, trainer, task, data.readers["train"])
    _calibrate(run, trainer, task, scores)
    keep_folders(run, trainer.loggers, task.folder)
    path = run.folder.path
    finish(
        run,
        trainer,
        results=lambda: [
            (task.result_title, measured),
            *([] if best is None else [("best", f"{path}/checkpoints/{best.name}")]),
            (task.folder, f"{path}/{task.folder}/"),
            ("", timm_line(path / task.folder)),
        ],
        next_steps=lambda: after_finetuning(run),
    )


def keep_images_with_labels(readers: dict[str, Split]) -> None:
    """Leave out images without a label, and say so."""
    for split, everything in readers.items():
        readers[split] = keep_labelled(everything)
        if (number := readers[split].num_samples) != everything.num_samples:
            say(
                f"{split}: {number} of {everything.num_samples} images have a label; the others "
                "are left out"
            )


def _measure_by_size(
    cfg: DictConfig,
    trainer: Trainer,
    task: Task,
    module: TrainingModule,
    data: ImageDataModule,
    scores: ClassScores,
) -> str:
    """Measure the test split, or without one the validation split, at each size asked for.

    At the size trained at, a classifier's scores of the validation split are kept, and of the last
    pass its confusions.
    """
    lines = []
    if cfg.test_img_size_px is not None:
        resized = task.resized(cfg.test_img_size_px)
        suffix = f"_at_{_side(resized)}px"
        other = training_module(cfg, resized, suffix=suffix)
        other_data = training_data(cfg, data.readers, resized)
        lines.append(measure(trainer, resized, other, other_data, _at(resized)))
    # Last, since the run's closing lines show the metrics of the last pass. Names of their own keep
    # the best weights' values apart from those of the last epoch, at the same step.
    of_best = training_module(cfg, task, suffix="_best")
    if isinstance(task, Classification):
        trainer.callbacks.append(scores)  # type: ignore[attr-defined]
        if "test" in data.readers:
            trainer.validate(of_best, datamodule=data, verbose=False)
        bands = OmegaConf.select(cfg, "callbacks.figures.bands")
        trainer.callbacks.append(ClassPredictions(trainer.default_root_dir, bands=bands))  # type: ignore[attr-defined]
    measured_module = module if "test" in data.readers else of_best
    lines.append(measure(trainer, task, measured_module, data, _at(task)))
    return ", ".join(reversed(lines))


def _at(task: Task) -> str:
    return f"{_side(task)} px"


def _side(task: Task) -> str:
    height_px, width_px = task.encoder.img_size_px
    return str(height_px) if height_px == width_px else f"{height_px}x{width_px}"


def _calibrate(run: Run, trainer: Trainer, task: Task, scores: ClassScores) -> None:
    """Fit the confidence of an exported classifier to its scores of the validation split."""
    if not trainer.is_global_zero or scores.logits is None or scores.labels is None:
        return
    with SideFailures(run.folder.path, tell=say).allowed("the calibration", "the export is whole"):
        folder = run.folder.path / task.folder
        weights = weights_fingerprint(ClassPredictor.load(folder).model)
        fitted = fit_calibration(scores.logits, scores.labels, weights=weights)
        save_calibration(folder, fitted)
        say(f"calibrated on val: {fitted}")

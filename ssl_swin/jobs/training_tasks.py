"""What jobs share that train a task on labels: the loop, the best epoch, the export."""

from collections.abc import Callable, Mapping, Sequence

from lightning.pytorch import Trainer

from ssl_swin.data.loading.protocol import Split
from ssl_swin.encoders.sizes import Size
from ssl_swin.errors import UserError
from ssl_swin.jobs.loop import training_data, training_module
from ssl_swin.jobs.plan import tell_plan
from ssl_swin.jobs.summary import training_facts
from ssl_swin.launch.compiling import compile_blocks
from ssl_swin.launch.fitting import fit, make_trainer
from ssl_swin.launch.kernels import take_kernels
from ssl_swin.launch.printing import say
from ssl_swin.launch.run import Run
from ssl_swin.runs.side_failures import SideFailures
from ssl_swin.runs.what_stays import telling_what_stays
from ssl_swin.tasks.base import Task
from ssl_swin.training.callbacks.ema import WeightEma
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.half_weights import PRECISION as HALF
from ssl_swin.training.module import TrainingModule
from ssl_swin.weights.backbone import save_backbone, save_extra_weights, save_task
from ssl_swin.weights.cards import task_card

HandOver = Callable[[Trainer, TrainingModule, ImageDataModule], None]


def train_task(
    run: Run,
    task: Task,
    readers: Mapping[str, Split],
    hand_over: HandOver,
    *,
    any_sizes: Sequence[Size] = (),
) -> None:
    """Train a task, or tell the plan of it, and hand it over.

    Args:
        run: The run.
        task: The task with its encoder.
        readers: Data by split.
        hand_over: Is called after the last step, to measure and to export.
        any_sizes: Heights and widths in px of training's images, of a task that takes any; blocks
            are compiled for them.

    Raises:
        UserError: If no epoch would be the best, or the run would be refused.
    """
    cfg = run.cfg
    module = training_module(cfg, task)
    data = training_data(cfg, readers, task)
    trainer = make_trainer(run)
    take_kernels(cfg, module, trainer.strategy.root_device)
    if cfg.compile:
        compile_blocks(task.encoder, any_sizes)
    _check_batch_norms(run, trainer)
    if getattr(trainer.checkpoint_callback, "monitor", None) is None:
        raise UserError(
            "no checkpoint monitors a metric, so that no epoch would be the best: leave "
            "callbacks.best.monitor=task"
        )
    if cfg.ema_decay is not None:
        if trainer.precision == HALF:
            raise UserError(
                f"ema_decay={cfg.ema_decay} averages weights that trainer.precision={HALF} rounds: "
                "set trainer.precision=bf16-mixed"
            )
        trainer.callbacks.insert(0, WeightEma(cfg.ema_decay))  # type: ignore[attr-defined]
    if cfg.plan:
        tell_plan(run, trainer, module, data)
        return
    with telling_what_stays(run.folder, lambda: trainer.global_step):
        fit(run, trainer, module, data)
        hand_over(trainer, module, data)


def _check_batch_norms(run: Run, trainer: Trainer) -> None:
    """Refuse to synchronise batch norms where torch cannot, before it fails in the first step."""
    is_cpu = trainer.strategy.root_device.type == "cpu"
    if run.cfg.trainer.get("sync_batchnorm") and trainer.world_size > 1 and is_cpu:
        raise UserError(
            f"trainer.sync_batchnorm=true needs GPUs, and this run is on {trainer.world_size} CPU "
            "devices: set trainer.sync_batchnorm=false, or trainer.devices=1"
        )


def measure(
    trainer: Trainer, task: Task, module: TrainingModule, data: ImageDataModule, how: str
) -> str:
    """Measure the test split, or without one the validation split; return the result in words.

    Args:
        trainer: After training.
        task: The task.
        module: Of the weights to measure.
        data: The loaders.
        how: What the result is measured at, as "224 px".
    """
    has_test = "test" in data.readers
    split, evaluate = ("test", trainer.test) if has_test else ("val", trainer.validate)
    metrics = evaluate(module, datamodule=data, verbose=False)[0]
    value = metrics[f"{split}/{task.monitor}{module.suffix}"]
    return f"{value:.4f} on {split} at {how}"


def export_task(run: Run, trainer: Trainer, task: Task, reader: Split) -> None:
    """Write the task's folder, on the first process.

    Args:
        run: The run.
        trainer: After training.
        task: The task, with its best weights.
        reader: The training split.
    """
    if not trainer.is_global_zero:
        return
    card = ""
    with SideFailures(run.folder.path, tell=say).allowed("the model card", "the export is whole"):
        facts = training_facts(run, trainer, reader, f"{task.title}, from {run.cfg.backbone}")
        card = task_card(
            task.encoder, facts, task.describe(), task.tags, task.classes, task.loading()
        )
    folder = run.folder.path / task.folder
    save_task(
        folder,
        task,
        mean=list(run.cfg.data.mean),
        std=list(run.cfg.data.std),
        card=card,
        crop_ratio=run.cfg.get("eval_crop_ratio", 1.0),
    )
    save_extra_weights(folder, task.extra_weights())


def export_with_backbone(run: Run, trainer: Trainer, task: Task, reader: Split) -> None:
    """Write the task's folder, and its backbone for another task, on the first process.

    Args:
        run: The run.
        trainer: After training.
        task: The task, with its best weights.
        reader: The training split.
    """
    export_task(run, trainer, task, reader)
    if trainer.is_global_zero:
        save_backbone(
            run.folder.path / "backbone",
            task.encoder,
            mean=list(run.cfg.data.mean),
            std=list(run.cfg.data.std),
            card=f"# {run.name}\n\nThe backbone of a {task.folder}, which lies beside it.\n",
        )

"""What a run says at its end."""

import time
from collections.abc import Sequence

from lightning.pytorch import Trainer

from ssl_swin.data.loading.protocol import Split
from ssl_swin.launch.fitting import close_loggers
from ssl_swin.launch.printing import say
from ssl_swin.launch.run import Run
from ssl_swin.reporting.page import write_report
from ssl_swin.weights.cards import Training


def training_facts(run: Run, trainer: Trainer, reader: Split, objective: str) -> Training:
    """Collects what a model card states."""
    return Training(
        run_name=run.name,
        data=run.config["data"]["root"],
        data_fingerprint=reader.fingerprint,
        num_images=reader.num_samples,
        steps=trainer.global_step,
        epochs=trainer.current_epoch,
        objective=objective,
        losses=", ".join(_last_metrics(trainer)),
    )


def finish(
    run: Run,
    trainer: Trainer,
    *,
    results: Sequence[tuple[str, str]],
    next_commands: Sequence[str],
) -> None:
    """Writes report and status, closes the loggers, and says where everything is.

    Args:
        run: The run.
        trainer: After the last step.
        results: (what, where) besides the report and the metrics.
        next_commands: What to type now.
    """
    close_loggers(trainer.loggers)
    if not trainer.is_global_zero:
        return
    seconds = run.folder.finish(time.time() - run.started)
    lines = [
        f"\nfinished {run.name}: {trainer.global_step:,} steps, "
        f"{_minutes(seconds)}; {', '.join(_last_metrics(trainer))}",
        *closing_lines(run, results),
        "next:",
        *(f"  {command}" for command in next_commands),
    ]
    say("\n".join(lines))


def closing_lines(run: Run, results: Sequence[tuple[str, str]]) -> list[str]:
    """Writes the report; lists where it and the other results are."""
    report = write_report(run.folder.path)
    everything = [("report", str(report)), ("metrics", str(run.folder.metrics)), *results]
    if run.config["logger"].get("offline"):
        everything.append(("upload", f"wandb sync {run.folder.path}/wandb/offline-run-*"))
    return [f"  {what:<10} {where}" for what, where in everything]


def _last_metrics(trainer: Trainer) -> list[str]:
    return [
        f"{name} {float(value):.4f}"
        for name, value in trainer.callback_metrics.items()
        if name == "train/loss" or name.startswith(("val/", "test/"))
    ]


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"

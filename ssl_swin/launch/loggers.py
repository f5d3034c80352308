"""A run's logger beside metrics.csv, opened so that it cannot end the run."""

import os
import sys
from collections.abc import Mapping
from functools import partial

from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger, WandbLogger
from omegaconf import DictConfig

from ssl_swin.launch.printing import is_first_process, say
from ssl_swin.runs.side_failures import SideFailures, reason


def open_logger(
    settings: DictConfig, identity: Mapping[str, str], failures: SideFailures
) -> Logger | None:
    """Make a logger and let it open what it writes to.

    Weights & Biases that cannot be reached, or refuses the key, is logged to offline.

    Args:
        settings: The group `logger`.
        identity: The run's own `id`, if the logger takes one.
        failures: Where a failure is written down.

    Returns:
        The logger; None if it cannot be opened.
    """
    make = partial(instantiate, settings, _convert_="all", **identity)
    logger: Logger = make()
    if not is_first_process():
        return logger
    try:
        _open(logger)
        return logger
    except Exception as error:
        if not isinstance(logger, WandbLogger) or settings.get("offline"):
            name = type(logger).__name__
            failures.add(name, error, "training goes on without it and writes metrics.csv")
            return None
        say(
            f"note: Weights & Biases cannot be used ({reason(error)}): logging offline under the "
            "same id, to be uploaded with wandb sync"
        )
    return _offline(make, failures)


def close_logger(logger: Logger) -> None:
    """End what a logger keeps open, so that the next job of a sweep starts its own."""
    finish = getattr(getattr(logger, "experiment", None), "finish", None)
    try:
        if finish is not None:
            finish()
    except Exception:  # it has failed before, and said so
        _end_wandb()


def _open(logger: Logger) -> None:
    if isinstance(logger, WandbLogger):
        # Lightning passes it on although nobody set it, and W&B warns that it has no effect.
        logger._wandb_init.pop("anonymous", None)
    _ = getattr(logger, "experiment", None)


def _offline(make: partial[Logger], failures: SideFailures) -> Logger | None:
    mode, silent = os.environ.get("WANDB_MODE"), os.environ.get("WANDB_SILENT")
    os.environ["WANDB_SILENT"] = "true"  # the line above and the closing ones say everything
    try:
        _end_wandb()  # it holds the run's id, and would refuse or wait for it
        logger = make(offline=True, log_model=False)
        _open(logger)
        return logger
    except Exception as error:
        failures.add("WandbLogger", error, "training goes on without it and writes metrics.csv")
        return None
    finally:  # the next job of a sweep tries again
        _restore("WANDB_MODE", mode)
        _restore("WANDB_SILENT", silent)


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _end_wandb() -> None:
    """End W&B's own process; a dead one is said to be so at the exit of Python otherwise."""
    wandb = sys.modules.get("wandb")
    if wandb is not None:
        try:
            wandb.teardown()
        except Exception:
            return

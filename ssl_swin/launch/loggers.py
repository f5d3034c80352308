"""A run's logger beside metrics.csv, opened so that it cannot end the run."""

import inspect
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning_utilities.core.imports import RequirementCache
from omegaconf import DictConfig

from ssl_swin.errors import UserError
from ssl_swin.launch.printing import is_first_process, say
from ssl_swin.launch.targets import located, make
from ssl_swin.runs.side_failures import SideFailures, reason

MOST_OF_A_TAG = 64  # characters


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
    make_logger = partial(make, settings, _convert_="all", **identity)
    logger: Logger = make_logger()
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
    return _offline(make_logger, failures)


def folder_of(logger: Logger) -> Path | None:
    """Return the folder that a logger writes to; None in the other processes, or without any.

    Args:
        logger: As `open_logger` gives it.
    """
    if not is_first_process():
        return None
    if isinstance(logger, WandbLogger):
        return Path(logger.experiment.dir).parent
    folder = getattr(logger, "log_dir", None)
    return None if folder is None else Path(folder)


def id_from_agent() -> str:
    """Return the id that an agent of `wandb sweep` has given to this run; empty without one.

    W&B takes it whatever else it is told, so that it has to be the run's own.
    """
    return os.environ.get("WANDB_RUN_ID", "") if os.environ.get("WANDB_SWEEP_ID") else ""


def check_packages(settings: Mapping[str, Any] | None) -> None:
    """Refuse a logger of Lightning whose package is missing, which it would say when it is made.

    What its classes need is read off their constructors: constants as `_WANDB_AVAILABLE`.

    Args:
        settings: The group `logger`, checked; None or without `_target_` is no logger.

    Raises:
        UserError: If none of the packages that would do is there.
    """
    if not settings or settings.get("_target_") is None:
        return
    made = located("logger._target_", settings["_target_"])
    needed = [need for each in getattr(made, "__mro__", ()) for need in _requirements(each)]
    if needed and not any(map(_is_met, needed)):
        names = " or ".join(dict.fromkeys(str(need.requirement) for need in needed))
        raise UserError(
            f"logger: {made.__name__} needs {names}, which is not installed: "
            "install it, or set logger=csv, which writes metrics.csv alone"
        )


def check_place(settings: Mapping[str, Any] | None) -> None:
    """Refuse a project, a team or a tag that W&B would not take, which it says when it is asked.

    Args:
        settings: The group `logger`, checked.

    Raises:
        UserError: If a name is none.
    """
    for key in ("project", "entity"):
        name = (settings or {}).get(key)
        if isinstance(name, str) and re.search(r"[/\\#?%:]|^\s*$", name):
            raise UserError(
                f"logger.{key}={name!r} is no name: W&B takes one without / \\ # ? % : (a project "
                "and its team are two settings, logger.project and logger.entity)"
            )
    for tag in (settings or {}).get("tags") or []:
        if not 1 <= len(str(tag)) <= MOST_OF_A_TAG:
            raise UserError(
                f"logger.tags has {str(tag)[:80]!r}: W&B takes tags of 1 to {MOST_OF_A_TAG} "
                "characters, as logger.tags=[baseline,paper]"
            )
    if settings and "project" in settings and not settings["project"]:
        if not settings.get("offline") and not os.environ.get("WANDB_PROJECT"):
            say('note: logger.project is not set: W&B will call the project "uncategorized"')


def _requirements(logger: type) -> list[RequirementCache]:
    make = inspect.unwrap(logger.__init__)  # type: ignore[misc]
    names = getattr(getattr(make, "__code__", None), "co_names", ())
    held = [getattr(make, "__globals__", {}).get(name) for name in names]
    return [need for need in held if isinstance(need, RequirementCache)]


def _is_met(need: RequirementCache) -> bool:
    name = re.split(r"[^\w-]", str(need.requirement))[0].replace("-", "_")
    return bool(need) and sys.modules.get(name, need) is not None  # None: barred from import


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
    if isinstance(logger, WandbLogger) and isinstance(logger.save_dir, str):
        folder = folder_of(logger)
        if folder is not None and Path(logger.save_dir).resolve() not in folder.resolve().parents:
            say(
                f"note: {logger.save_dir} takes no files of Weights & Biases, which writes them to "
                f"{folder}"
            )


def _offline(make_logger: partial[Logger], failures: SideFailures) -> Logger | None:
    mode, silent = os.environ.get("WANDB_MODE"), os.environ.get("WANDB_SILENT")
    os.environ["WANDB_SILENT"] = "true"  # the line above and the closing ones say everything
    try:
        _end_wandb()  # it holds the run's id, and would refuse or wait for it
        logger = make_logger(offline=True, log_model=False)
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
        with suppress(Exception):
            wandb.teardown()
        wandb.run = None  # type: ignore[attr-defined]  # else the next job goes on with a dead one

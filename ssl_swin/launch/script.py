"""What surrounds a script: resolvers before it, plain messages instead of tracebacks after.

Imports nothing heavy, so that `--help` answers at once.
"""

import importlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import hydra
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    OmegaConfBaseException,
)

from ssl_swin.errors import TrainingGaveUp, UserError
from ssl_swin.files import disk_error
from ssl_swin.launch.command_line import command
from ssl_swin.launch.config_files import PACKAGE, check_config_dir, register_user_folder
from ssl_swin.launch.overrides import readable
from ssl_swin.launch.resolvers import register_resolvers, wandb_offline
from ssl_swin.launch.suggestions import explain_composition_error, is_null_group
from ssl_swin.launch.threads import sleep_while_waiting

USER_ERROR, GAVE_UP, INTERRUPTED = 2, 3, 130


def run_script(job: str, arguments: Sequence[str] | None = None) -> None:
    """Run a job as its command line says; a mistake there ends in one message and exit code 2.

    Args:
        job: Name of the job and of its primary configuration.
        arguments: Hydra's command line; None takes that of the process.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # lets errors through to here instead of printing them
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # no telemetry
    if wandb_offline():
        os.environ.setdefault("WANDB_SILENT", "true")  # the closing summary says how to upload
    sleep_while_waiting()  # before a resolver loads torch
    register_resolvers()
    register_user_folder()
    started = list(sys.argv)
    options = started[1:] if arguments is None else list(arguments)
    main = hydra.main(version_base="1.3", config_path=f"pkg://{PACKAGE}", config_name=job)
    with _plain_messages(job, options):
        _check_config_dir(options)
        sys.argv = [started[0], *readable(job, options)]  # Hydra reads nothing else
        try:
            main(_Task(job, started))()
        finally:
            sys.argv = started


def _check_config_dir(options: Sequence[str]) -> None:
    for at, option in enumerate(options):
        flag, _, value = option.partition("=")
        if flag in ("--config-dir", "-cd"):
            check_config_dir(value or "".join(options[at + 1 : at + 2]))


@dataclass(frozen=True)
class _Task:
    """What Hydra calls, here or in a process that a launcher starts."""

    job: str
    command_line: list[str]  # of the process, from which Lightning starts further processes

    def __call__(self, cfg: DictConfig) -> None:
        sys.argv = self.command_line
        run_job(self.job, cfg)


def run_job(job: str, cfg: DictConfig) -> None:
    """Run `ssl_swin.jobs.JOB`, imported only now; a user's mistake ends in one message.

    The message has to be made in here: Hydra adds a line of its own to what a task raises.
    """
    sleep_while_waiting()  # before torch is loaded; what a launcher starts may have no environment
    with _plain_messages(job, None):
        importlib.import_module(f"ssl_swin.jobs.{job}").main(cfg)


@contextmanager
def _plain_messages(job: str, options: Sequence[str] | None) -> Iterator[None]:
    """Turn errors into one message and an exit code.

    Args:
        job: Name of the job.
        options: Command line being composed; None while the job runs.
    """
    try:
        yield
    except KeyboardInterrupt:
        _exit(job, "interrupted; the same command continues from the last checkpoint", INTERRUPTED)
    except TrainingGaveUp as error:
        _exit(job, str(error), GAVE_UP)
    except PermissionError as error:
        _exit(job, f"no permission: {error.filename}", USER_ERROR)
    except (HydraException, OmegaConfBaseException, UserError) as error:
        message = _explain(error, job, options)
        if message is None:
            raise
        _exit(job, message, USER_ERROR)
    except OSError as error:
        cause = disk_error(error)
        if cause is None:
            raise
        _exit(job, f"cannot write {cause.filename or 'a file'}: {cause.strerror}", USER_ERROR)
    except ValueError as error:
        if options is None or not is_null_group(error):
            raise
        _exit(job, explain_composition_error(error, job, options), USER_ERROR)


def _exit(job: str, message: str, status: int) -> None:
    print(f"{command(job).removeprefix('python ')}: {message}", file=sys.stderr)
    sys.exit(status)


def _explain(error: Exception, job: str, options: Sequence[str] | None) -> str | None:
    """Return the message for a user's mistake; None if the error is a bug."""
    if isinstance(error, UserError):
        return _without_worker_traceback(str(error))
    if isinstance(error, InstantiationException):
        return _explain_instantiation(error)
    if options is None and isinstance(error, ConfigKeyError | ConfigAttributeError):
        return None  # the job asked for a key that no configuration has
    return explain_composition_error(error, job, options or ())


def _explain_instantiation(error: InstantiationException) -> str | None:
    """Values that a constructor refuses are the user's mistake; anything else is a bug."""
    cause = error.__cause__
    key = re.search(r"full_key: (\S+)", str(error))
    if isinstance(cause, MemoryError | RuntimeError) and "memory" in str(cause):
        return f"{key.group(1) if key else 'this'} is too large for the memory of this machine"
    if isinstance(cause, ImportError):
        cause = ImportError(str(cause).splitlines()[0])
    elif not isinstance(cause, (TypeError, ValueError)):
        return None
    return f"{key.group(1)}: {cause}" if key else str(cause)


def _without_worker_traceback(message: str) -> str:
    """A loading process prefixes its traceback to the message of its error."""
    return message.rpartition(f"{UserError.__module__}.{UserError.__name__}: ")[2].strip()

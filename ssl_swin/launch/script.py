"""What surrounds a script: resolvers before it, plain messages instead of tracebacks after.

Imports nothing heavy, so that `--help` answers at once.
"""

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    OmegaConfBaseException,
)

from ssl_swin.errors import UserError
from ssl_swin.launch.resolvers import register_resolvers, wandb_offline
from ssl_swin.launch.suggestions import explain_composition_error

USER_ERROR, INTERRUPTED = 2, 130


def run_script(main: Callable[[], None], config_folder: Path) -> None:
    """Runs a `hydra.main` function; a command line that does not compose ends in one message.

    Args:
        main: Decorated with `hydra.main`, its configuration named like the function.
        config_folder: Where the YAML files are.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # lets errors through to here instead of printing them
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # no telemetry
    if wandb_offline():
        os.environ.setdefault("WANDB_SILENT", "true")  # the closing summary says how to upload
    register_resolvers()
    with _plain_messages(config_folder, main.__name__):
        main()


def run_job(job: str, cfg: DictConfig) -> None:
    """Runs `ssl_swin.jobs.JOB`, imported only now; a user's mistake ends in one message.

    The message has to be made in here: Hydra adds a line of its own to what a task raises.
    """
    with _plain_messages(None, job):
        importlib.import_module(f"ssl_swin.jobs.{job}").main(cfg)


@contextmanager
def _plain_messages(config_folder: Path | None, config_name: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        _exit("interrupted; the same command continues from the last checkpoint", INTERRUPTED)
    except PermissionError as error:
        _exit(f"no permission: {error.filename}", USER_ERROR)
    except (HydraException, OmegaConfBaseException, UserError) as error:
        message = _explain(error, config_folder, config_name)
        if message is None:
            raise
        _exit(message, USER_ERROR)


def _exit(message: str, status: int) -> None:
    print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    sys.exit(status)


def _explain(error: Exception, config_folder: Path | None, config_name: str) -> str | None:
    """Words a user's mistake; None means that it is a bug."""
    if isinstance(error, UserError):
        return _without_worker_traceback(str(error))
    if isinstance(error, InstantiationException):
        return _explain_instantiation(error)
    if config_folder is None and isinstance(error, ConfigKeyError | ConfigAttributeError):
        return None  # the job asked for a key that no configuration has
    return explain_composition_error(error, config_folder or Path(), config_name)


def _explain_instantiation(error: InstantiationException) -> str | None:
    """Values that a constructor refuses are the user's mistake; anything else is a bug."""
    cause = error.__cause__
    if not isinstance(cause, (TypeError, ValueError)):
        return None
    key = re.search(r"full_key: (\S+)", str(error))
    return f"{key.group(1)}: {cause}" if key else str(cause)


def _without_worker_traceback(message: str) -> str:
    """A loading process prefixes its traceback to the message of its error."""
    return message.rpartition(f"{UserError.__module__}.{UserError.__name__}: ")[2].strip()

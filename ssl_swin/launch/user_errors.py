"""What Hydra, OmegaConf and the system say of a user's mistake, as one UserError in our words.

Imports nothing heavy, so that `--help` answers at once.
"""

import errno
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from traceback import walk_tb

import yaml
from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from ssl_swin.errors import UserError
from ssl_swin.launch.suggestions import (
    explain_composition_error,
    is_name_in_list,
    is_null_group,
)
from ssl_swin.stopping.stopped import PeerLostError

# Of paths that a user named; whatever else a system reports is not known to be a mistake.
_OF_A_PATH = {
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
}
# What Hydra says of a sweeper or launcher, for which it has no class of errors.
_OF_A_PLUGIN = re.compile(r"Invalid plugin|Hydra \w+ is not configured|\w+ not configured")
_OF_JOBS = "ssl_swin.jobs."
_HYDRAS_OWN = re.compile(r"[+~]*hydra[./]")
_REFUSALS = {"MisconfigurationException"}  # Lightning's, which is not imported here


@contextmanager
def only_user_errors(job: str, options: Sequence[str] | None) -> Iterator[None]:
    """Raise a UserError in place of every error that says of a mistake of the user.

    Args:
        job: Name of the job.
        options: Command line being composed; None while the job runs.

    Raises:
        UserError: If what was raised inside is one, or says of such a mistake.
    """
    try:
        yield
    except UserError as error:
        if (message := _without_worker_traceback(str(error))) != str(error):
            raise UserError(message) from error
        raise
    except (HydraException, OmegaConfBaseException) as error:
        explained = _explain(error, job, options)
        if explained is None:
            raise
        raise UserError(explained) from error
    except OSError as error:
        if error.errno not in _OF_A_PATH or error.filename is None:
            raise
        raise UserError(_explain_path(error)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        if options is None:
            raise
        raise UserError(_explain_yaml(error)) from error
    except ValueError as error:
        if options is None or not (is_null_group(error) or is_name_in_list(error)):
            raise
        raise UserError(explain_composition_error(error, job, options)) from error
    except (MemoryError, RuntimeError) as error:
        if _OF_A_PLUGIN.match(str(error)):
            raise UserError(
                f"hydra.sweeper or hydra.launcher: {error}; choose one by hydra/sweeper=NAME or "
                "hydra/launcher=NAME"
            ) from error
        if not _is_of_memory(error):
            raise
        raise UserError(
            "this needs more memory than there is: lower batch_size or model.img_size_px, or take "
            "a smaller model"
        ) from error


@contextmanager
def explaining_hydras_settings(options: Sequence[str]) -> Iterator[None]:
    """Raise a UserError in place of what Hydra stumbles over before a job begins.

    Args:
        options: The command line; without settings of Hydra's own, nothing is replaced.

    Raises:
        UserError: If an error of no class of Hydra's was raised, and not by a job.
    """
    try:
        yield
    except (HydraException, OmegaConfBaseException, UserError):
        raise
    except Exception as error:
        own = [option for option in options if _HYDRAS_OWN.match(option)]
        if not own or _is_of_a_job(error):
            raise
        said = ": " + " ".join(str(error).split()) if str(error).strip() else ""
        raise UserError(f"Hydra cannot use {' '.join(own)}{said}") from error


def _is_of_a_job(error: BaseException) -> bool:
    frames = (frame for frame, _ in walk_tb(error.__traceback__))
    return any(frame.f_globals.get("__name__", "").startswith(_OF_JOBS) for frame in frames)


def _explain(error: Exception, job: str, options: Sequence[str] | None) -> str | None:
    """Return the message for a user's mistake; None if the error is a bug."""
    if isinstance(error, InstantiationException):
        return _explain_instantiation(error)
    if options is None and isinstance(error, ConfigKeyError | ConfigAttributeError):
        return None  # the job asked for a key that no configuration has
    return explain_composition_error(error, job, options or ())


def _explain_instantiation(error: InstantiationException) -> str | None:
    """Values that a constructor refuses are the user's mistake; anything else is a bug."""
    cause = error.__cause__
    key = re.search(r"full_key: (\S+)", str(error))
    if cause is not None and _is_of_memory(cause):
        return f"{key.group(1) if key else 'this'} is too large for the memory of this machine"
    if isinstance(cause, ImportError):
        cause = ImportError(" ".join(str(cause).splitlines()[:2]))
    elif isinstance(cause, OSError) and cause.errno in _OF_A_PATH:
        cause = ValueError(_explain_path(cause))
    elif not isinstance(cause, TypeError | ValueError) and type(cause).__name__ not in _REFUSALS:
        return None
    return f"{key.group(1)}: {cause}" if key else str(cause)


def _explain_path(error: OSError) -> str:
    path = os.fsdecode(error.filename)
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"no permission: {path}"
    return f"cannot use {path}: {os.strerror(error.errno or 0)}"


def _explain_yaml(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f" ({mark.name}, line {mark.line + 1})" if mark is not None else ""
    problem = getattr(error, "problem", None) or str(error)
    return f"a file of configurations is no YAML{place}: {' '.join(str(problem).split())}"


def _is_of_memory(error: BaseException) -> bool:
    if isinstance(error, PeerLostError):  # whose message only guesses at memory
        return False
    text = str(error)
    return isinstance(error, MemoryError | RuntimeError) and (
        isinstance(error, MemoryError)
        or "allocate memory" in text
        or "out of memory" in text
        or "not enough memory" in text
    )


def _without_worker_traceback(message: str) -> str:
    """A loading process prefixes its traceback to the message of its error."""
    return message.rpartition(f"{UserError.__module__}.{UserError.__name__}: ")[2].strip()

"""What surrounds a script: resolvers before it, plain messages instead of tracebacks after.

Imports nothing heavy, so that `--help` answers at once.
"""

import importlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import hydra
from omegaconf import DictConfig

from ssl_swin import __version__
from ssl_swin.disk_errors import cannot_use, disk_error
from ssl_swin.display.console import lasting_console
from ssl_swin.errors import TrainingGaveUp, UserError
from ssl_swin.launch.command_line import command, how_to_continue
from ssl_swin.launch.config_files import PACKAGE, check_config_dir, register_user_folder
from ssl_swin.launch.flags import is_question
from ssl_swin.launch.overrides import readable
from ssl_swin.launch.requeue import requeue_slurm_job
from ssl_swin.launch.resolvers import register_resolvers, wandb_offline
from ssl_swin.launch.search import register_sweeper
from ssl_swin.launch.session import job_session
from ssl_swin.launch.sweep import (
    conclude_sweep,
    jobs_without_result,
    naming_option,
    result_of,
    run_in_sweep,
)
from ssl_swin.launch.targets import whitelist_for_hydra
from ssl_swin.launch.threads import sleep_while_waiting
from ssl_swin.launch.user_errors import explaining_hydras_settings, only_user_errors
from ssl_swin.quoting import on_screen
from ssl_swin.stopping.stopped import (
    PeerLostError,
    RunStopped,
    in_words,
    is_first_by_environment,
)
from ssl_swin.stopping.watch import watching_signals

FAILURE, USER_ERROR, GAVE_UP, INTERRUPTED = 1, 2, 3, 130


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
    register_sweeper()
    options = sys.argv[1:] if arguments is None else list(arguments)
    asks = is_question(options)
    with (
        lasting_console(is_of_a_run=not asks) as output,
        watching_signals(owns_process=True),
        _plain_messages(job, options),
    ):
        words = readable(job, options)
        _check_config_dir(words)
        if "--version" in words:  # Hydra would print its own
            print(f"ssl_swin {__version__}")
        else:
            try:
                _compose_and_run(job, words)
            except SystemExit as end:  # also where Hydra has printed its help
                if end.code or not asks:
                    raise
        output.flush()
        if asks and output.refusal:
            raise UserError(output.refusal)


def _compose_and_run(job: str, words: Sequence[str]) -> None:
    """Let Hydra compose the configuration of one run, or of several, and run the job with it."""
    main = hydra.main(
        version_base="1.3",
        config_path=f"pkg://{PACKAGE}",
        config_name=job,
        **whitelist_for_hydra(hydra.main),
    )
    started, since = list(sys.argv), time.time()
    sys.argv = [started[0], *words, *naming_option(words)]  # Hydra reads nothing else
    try:
        with explaining_hydras_settings(words), jobs_without_result():
            main(_Task(job, started))()
    finally:
        sys.argv = started
        status = conclude_sweep(since)
    if status:
        sys.exit(status)


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

    def __call__(self, cfg: DictConfig) -> float:
        sys.argv = self.command_line
        return run_in_sweep(cfg, lambda: run_job(self.job, cfg))


def run_job(job: str, cfg: DictConfig) -> float:
    """Run `ssl_swin.jobs.JOB`, imported only now; a user's mistake ends in one message.

    The message has to be made in here: Hydra adds a line of its own to what a task raises.
    """
    sleep_while_waiting()  # before torch is loaded; what a launcher starts may have no environment
    with lasting_console(), _plain_messages(job, None), job_session(owns_process=True):
        importlib.import_module(f"ssl_swin.jobs.{job}").main(cfg)
    return result_of(cfg)


@contextmanager
def _plain_messages(job: str, options: Sequence[str] | None) -> Iterator[None]:
    """Turn errors into one message and an exit code.

    Args:
        job: Name of the job.
        options: Command line being composed; None while the job runs.
    """
    try:
        with only_user_errors(job, options):
            yield
    except KeyboardInterrupt:
        _exit(job, f"stopped by Ctrl-C; {how_to_continue(job)}", INTERRUPTED)
    except RunStopped as stopped:
        _tell_stopped(job, stopped)
        raise
    except PeerLostError as error:
        _exit(job, str(error), FAILURE)
    except TrainingGaveUp as error:
        _exit(job, str(error), GAVE_UP)
    except UserError as error:
        _exit(job, str(error), USER_ERROR)
    except OSError as error:
        cause = disk_error(error)
        if cause is None:
            raise
        _exit(job, cannot_use(cause), USER_ERROR)


def _tell_stopped(job: str, stopped: RunStopped) -> None:
    """Say where the state is and what continues it; put a Slurm job back into its queue."""
    if not stopped.is_told:
        stopped.is_told = True
        if is_first_by_environment():
            _say(job, f"{in_words(stopped)}; {how_to_continue(job)}")
            if stopped.by_scheduler and (requeued := requeue_slurm_job()):
                _say(job, requeued)
        stopped.let_others_go()


def _exit(job: str, message: str, status: int) -> None:
    _say(job, message)
    sys.exit(status)


def _say(job: str, message: str) -> None:
    text = on_screen(f"{command(job).removeprefix('python ')}: {message}")
    print(text, file=sys.stderr, flush=True)

"""The `ssl-swin` command: the jobs, and what is done to data before and between runs.

Each command imports what it needs when it runs, so that `--help` answers at once.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from ssl_swin import __version__
from ssl_swin.commands import (
    calibrate,
    check,
    dashboard,
    embed,
    export,
    import_,
    index,
    map_,
    neighbours,
    pack,
    predict,
    push,
    recipes,
    replay,
    report,
    serve,
    show,
    stats,
    sweep_table,
)
from ssl_swin.commands.jobs import JOBS, job_of_completion, run_job
from ssl_swin.commands.mistakes import OF_THE_SYSTEM, as_user_error
from ssl_swin.commands.parsing import CommandParser
from ssl_swin.display.console import lasting_console
from ssl_swin.errors import UserError

INTERRUPTED = 130
COMMANDS = (
    pack,
    index,
    show,
    check,
    stats,
    recipes,
    push,
    import_,
    export,
    embed,
    neighbours,
    map_,
    predict,
    calibrate,
    serve,
    replay,
    report,
    sweep_table,
    dashboard,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one job or command.

    Args:
        argv: Arguments; None takes those of the process.

    Returns:
        Exit status: that of the command, 2 after a mistake of the user or where what it printed
        could not be written, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in JOBS:  # Hydra reads the rest
        return run_job(words[0], words[1:])
    if words and words[0] in ("-sc", "--shell-completion"):
        return run_job(job_of_completion(os.environ), words)
    with lasting_console(is_of_a_run=False) as output:
        status = _status(words)
        output.flush()
        return status or (_refused(UserError(output.refusal)) if output.refusal else 0)


def _status(words: Sequence[str]) -> int:
    try:
        args = _parsed(words)
        if args is None:
            return 0
        with _second_interrupt_ends_at_once():
            return int(args.run(args) or 0)
    except UserError as error:
        return _refused(error)
    except OF_THE_SYSTEM as error:
        return _refused(as_user_error(error))
    except KeyboardInterrupt:
        print("ssl-swin: interrupted", file=sys.stderr)
        if signal.getsignal(signal.SIGINT) is _end_at_once:
            sys.stdout.flush()
            os._exit(INTERRUPTED)  # the interpreter's own end takes seconds, open to the next one
        return INTERRUPTED


def _parsed(words: Sequence[str]) -> argparse.Namespace | None:
    """Return what the words say; None where they asked for help or the version, and had it."""
    try:
        return _parser().parse_words(words)
    except SystemExit:
        return None


def _refused(error: UserError) -> int:
    print(f"ssl-swin: {error}", file=sys.stderr)
    return 2


@contextmanager
def _second_interrupt_ends_at_once() -> Iterator[None]:
    """Let the first Ctrl-C clean up, and the next one end the process whatever that waits for."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        yield
        return
    before = signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _interrupt:  # else the process is about to end
            signal.signal(signal.SIGINT, before)


def _interrupt(*_: object) -> NoReturn:
    signal.signal(signal.SIGINT, _end_at_once)
    raise KeyboardInterrupt


def _end_at_once(*_: object) -> NoReturn:
    os.write(2, b"ssl-swin: stopped at once\n")
    os._exit(INTERRUPTED)


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="ssl-swin",
        description="Pretrains, fine-tunes and probes Swin Transformers, and prepares their data.",
    )
    parser.add_argument("--version", action="version", version=f"ssl-swin {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for job, summary in JOBS.items():
        commands.add_parser(job, help=summary, add_help=False)
    for command in COMMANDS:
        described = command.add_parser(commands)
        described.set_defaults(run=command.run, parser=described)
    return parser

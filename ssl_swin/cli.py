"""The `ssl-swin` command: the jobs, and what is done to data before and between runs.

Each command imports what it needs when it runs, so that `--help` answers at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from ssl_swin import __version__
from ssl_swin.commands import check, export, import_, index, pack, push, recipes, show, stats
from ssl_swin.commands.jobs import JOBS, job_of_completion, run_job
from ssl_swin.errors import UserError

COMMANDS = (pack, index, show, check, stats, recipes, push, import_, export)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one job or command.

    Args:
        argv: Arguments; None takes those of the process.

    Returns:
        Exit status: that of the command, 2 after a mistake of the user, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in JOBS:  # Hydra reads the rest
        return run_job(words[0], words[1:])
    if words and words[0] in ("-sc", "--shell-completion"):
        return run_job(job_of_completion(os.environ), words)
    args = _parser().parse_args(words)
    try:
        return int(args.run(args) or 0)
    except UserError as error:
        print(f"ssl-swin: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ssl-swin: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ssl-swin",
        description="Pretrains, fine-tunes and probes Swin Transformers, and prepares their data.",
    )
    parser.add_argument("--version", action="version", version=f"ssl-swin {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for job, summary in JOBS.items():
        commands.add_parser(job, help=summary, add_help=False)
    for command in COMMANDS:
        command.add_parser(commands).set_defaults(run=command.run)
    return parser

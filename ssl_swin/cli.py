"""The `ssl-swin` command: what is done to data before and between runs.

Each command imports what it needs when it runs, so that `--help` answers at once.
"""

import argparse
import sys
from collections.abc import Sequence

from ssl_swin import __version__
from ssl_swin.commands import check, export, import_, index, pack, push, recipes, show, stats
from ssl_swin.errors import UserError

COMMANDS = (pack, index, show, check, stats, recipes, push, import_, export)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: Arguments; None takes those of the process.

    Returns:
        Exit status: what the command gives, 2 after a mistake of the user, 130 after Ctrl-C.
    """
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args) or 0)
    except UserError as error:
        print(f"ssl-swin: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ssl-swin: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ssl-swin", description="Tools around ssl_swin's runs.")
    parser.add_argument("--version", action="version", version=f"ssl-swin {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands).set_defaults(run=command.run)
    return parser

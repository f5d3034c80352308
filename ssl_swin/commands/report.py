"""`ssl-swin report`: the page of a run, also while it trains, and several runs side by side."""

import argparse
from pathlib import Path

from ssl_swin.commands.parsing import path
from ssl_swin.commands.places import check_file
from ssl_swin.errors import UserError

COMPARISON = Path("comparison.html")


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Add the command and its arguments."""
    parser = commands.add_parser(
        "report", help="page of a run, also while it trains; of several runs side by side"
    )
    parser.add_argument("runs", type=path, nargs="+", metavar="RUN", help="runs/pretrain/NAME")
    parser.add_argument(
        "--out", type=path, metavar="FILE.html", help="page of several runs (default: here, "
        f"{COMPARISON})"
    )  # fmt: skip
    return parser


def run(args: argparse.Namespace) -> None:
    """Write the page, and say where it is."""
    from ssl_swin.reporting.comparison import check_run, write_comparison
    from ssl_swin.reporting.page import write_report

    if len(args.runs) > 1:
        page = args.out or COMPARISON
        check_file("--out", page)
        if page.suffix != ".html":
            raise UserError(f"--out {page}: a page ends in .html, such as {page.stem}.html")
        write_comparison(args.runs, page)
    elif args.out is not None:
        raise UserError("--out is for several runs; that of one is report.html in its folder")
    else:
        check_run(args.runs[0])
        page = write_report(args.runs[0])
    print(f"report: {page}")

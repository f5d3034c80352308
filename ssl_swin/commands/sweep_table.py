"""`ssl-swin sweep-table`: settings against results of a sweep's jobs."""

import argparse

from ssl_swin.commands.parsing import path
from ssl_swin.runs.sweep_table import TABLE, write_table


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Add the command and its arguments."""
    parser = commands.add_parser(
        "sweep-table", help="table and figure of a sweep: settings against results"
    )
    parser.add_argument("folder", type=path, help="the sweep, as runs/pretrain/NAME_sweep")
    return parser


def run(args: argparse.Namespace) -> None:
    """Write the table and its figure into the sweep's folder, and print the table."""
    from ssl_swin.reporting.sweep_figure import write_sweep_figure  # needs numpy

    print(write_table(args.folder))
    print(f"  table      {args.folder / TABLE}")
    print(f"  figure     {write_sweep_figure(args.folder)}")

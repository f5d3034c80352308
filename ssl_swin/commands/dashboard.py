"""`ssl-swin dashboard`: a workspace on Weights & Biases that has our metrics in order."""

import argparse
import json
import re

from ssl_swin.reporting.workspace import specification

NO_NAME = re.compile(r"[/\\#?%:\0]|^\s*$")  # what W&B takes for no entity or project


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Add the command and its arguments."""
    parser = commands.add_parser(
        "dashboard",
        help="save a dashboard for the runs of a Weights & Biases project",
        description="Saves a workspace in the project: a section for each group of metrics, and "
        "one for the pictures. Each call saves a new one; workspaces that are there stay as they "
        "are. Needs pip install 'ssl_swin[workspaces]' and a key (`wandb login`).",
    )
    parser.add_argument(
        "place", type=_place, metavar="ENTITY/PROJECT", help="a team or user, and its project"
    )
    parser.add_argument(
        "--json", action="store_true", help="print what would be saved; needs no key, no network"
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Save the workspace and say where it is, or print it."""
    shown = specification(*args.place)
    if args.json:
        print(json.dumps(shown, indent=2))
        return
    from ssl_swin.launch.workspaces import save_workspace

    print(f"dashboard: {save_workspace(shown)}")


def _place(words: str) -> tuple[str, str]:
    entity, _, project = words.partition("/")
    if any(NO_NAME.search(name) for name in (entity, project)):
        raise argparse.ArgumentTypeError(f"must be a team or user, and a project, got {words!r}")
    return entity, project

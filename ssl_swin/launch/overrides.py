"""Overrides as people type them, and as Hydra reads them.

Imports nothing heavy, so that `--help` answers at once.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from ssl_swin.errors import UserError
from ssl_swin.launch.backbone_model import model_of_backbone
from ssl_swin.launch.command_line import command
from ssl_swin.launch.config_files import JOBS, group_options
from ssl_swin.launch.suggestions import nearest
from ssl_swin.quoting import quoted

_ASSIGNMENT = re.compile(r"([+~]{0,2}[\w/@.-]+)=(.*)", re.DOTALL)
_MAY_BE_NULL = {"experiment"}
_FLAGS_OF_A_PATH = {"--config-dir", "-cd", "--config-path", "-cp"}


def readable(job: str, options: Sequence[str]) -> list[str]:
    """Return a command line in which Hydra can read every override.

    A value that is outside Hydra's grammar, such as a path that holds "=", is quoted, and a "~/"
    that the shell left alone becomes the home folder. Flags are passed on as they are.

    Args:
        job: Name of the job.
        options: The command line after the job's name.

    Raises:
        UserError: If an override cannot be read, or leaves out a group that has to be there.
    """
    read = []
    for before, option in zip(["", *options], options, strict=False):
        assignment = _ASSIGNMENT.fullmatch(option)
        is_override = assignment is not None or option.startswith("~")
        if before in _FLAGS_OF_A_PATH or option.startswith("-") or not is_override:
            read.append(option)
        else:
            text, override = _parsed(option, assignment)
            _check_group(job, option, override)
            read.append(text)
    return [*read, *model_of_backbone(job, read)]


def _parsed(option: str, assignment: re.Match[str] | None) -> tuple[str, Override]:
    forms = [option]
    if assignment is not None:
        key, value = assignment.groups()
        if value.startswith("~/"):
            value = str(Path(value).expanduser())
        forms = [f"{key}={value}", f"{key}={quoted(value)}"]
    for form in forms:
        try:
            return form, OverridesParser.create().parse_override(form)
        except HydraException:
            continue
    raise UserError(f"cannot read {option!r}: give settings as key=value, or as 'key=\"a text\"'")


def _check_group(job: str, option: str, override: Override) -> None:
    """Refuse what is no choice of a group: null, numbers, a misspelt option, another job's."""
    if override.key_or_group == "hydra.run.dir" and override.value() != ".":  # Lightning's own
        raise UserError(f"{option} has no effect here: give the folder of a run as run_dir=FOLDER")
    group = override.key_or_group.partition("@")[0]
    known = group_options(group)
    if not known or override.is_sweep_override():
        return
    chosen = override.value() if override.value_type is not None else None
    names = chosen if isinstance(chosen, list) else [chosen]
    if chosen is None and group in _MAY_BE_NULL:
        return
    if not names or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"{option}: {group} is a group, choose one of: {', '.join(known)}")
    for name in names:
        other = next((each for each in JOBS if str(name).startswith(f"{each}_")), job)
        if group == "experiment" and other != job:
            raise UserError(f"{option} is a recipe of another job: {command(other)} {option}")
        if group == "data_overrides" and name not in known:
            raise UserError(
                f"there is no {option}{nearest(str(name), known)}; {group} can be: "
                f"{', '.join(known)}"
            )

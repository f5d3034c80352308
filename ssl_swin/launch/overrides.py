"""Overrides as people type them, and as Hydra reads them.

Imports nothing heavy, so that `--help` answers at once.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep
from hydra.errors import HydraException

from ssl_swin.errors import UserError
from ssl_swin.launch.backbone_model import model_of_backbone
from ssl_swin.launch.command_line import command
from ssl_swin.launch.config_files import JOBS, group_options, is_of_package
from ssl_swin.launch.flags import taken_apart
from ssl_swin.launch.suggestions import nearest
from ssl_swin.quoting import quoted
from ssl_swin.runs.names import shortened

_ASSIGNMENT = re.compile(r"([+~]{0,2}[\w/@.-]+)=(.*)", re.DOTALL)
_HOME = re.compile(r"~(\w[\w.-]*)?(/.*)?", re.DOTALL)
_MAY_BE_NULL = {"experiment", "search", "debug"}
_OF_A_JOB = {"experiment": "a recipe", "search": "a search"}  # options begin with the job's name
MOST_SHOWN = 120  # characters of an override in a message


def readable(job: str, options: Sequence[str]) -> list[str]:
    """Return a command line in which Hydra can read every word.

    Flags come first. A value that is outside Hydra's grammar, such as a path that holds "=", is
    quoted, and a "~/" that the shell left alone becomes the home folder. `experiment=null`, which
    is how it is, is left out.

    Args:
        job: Name of the job.
        options: The command line after the job's name.

    Raises:
        UserError: If a word cannot be read, or leaves out a group that has to be there.
    """
    line = taken_apart(options)
    is_completion = "--shell-completion" in line.flags
    if is_completion:
        return line.words(line.overrides)
    read = [_parsed(option) for option in line.overrides]
    is_sweep = "--multirun" in line.flags or any(o.key_or_group == "hydra.mode" for _, o in read)
    kept = []
    for option, (text, override) in zip(line.overrides, read, strict=True):
        _check_sweep(option, override, is_sweep)
        _check_hydras_own(option, override)
        if _check_group(job, option, override):
            kept.append(text)
    return line.words([*kept, *model_of_backbone(job, kept)])


def _parsed(option: str) -> tuple[str, Override]:
    """Return an override as Hydra reads it, and what it reads."""
    forms = [option]
    if assignment := _ASSIGNMENT.fullmatch(option):
        key, value = assignment.groups()
        if _HOME.fullmatch(value) and not group_options(key):
            value = str(_home(value))
        forms = [f"{key}={value}", f"{key}={quoted(value)}"]
    elif not option.startswith("~"):
        forms = []
    for form in forms:
        try:
            return form, OverridesParser.create().parse_override(form)
        except (HydraException, ValueError, RecursionError):  # of numbers, brackets without end
            continue
    shown = shortened(option, MOST_SHOWN)
    if re.fullmatch(r"\w[\w.]*", option):
        raise UserError(f"{shown} has no value: give it as {shown}=VALUE")
    raise UserError(f"cannot read {shown!r}: give settings as key=value, or as 'key=\"a text\"'")


def _home(path: str) -> str | Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # there is no such user
        return path


def _check_sweep(option: str, override: Override, is_sweep: bool) -> None:
    """Refuse several values without a sweep, none in one, and a launcher that none would use."""
    shown, key = shortened(option, MOST_SHOWN), override.get_key_element()
    if override.is_sweep_override() and not is_sweep:
        raise UserError(
            f"{shown} gives several values: add --multirun to run each of them; a list is "
            f"{key}=[0,1], a text with a comma '{key}=\"a,b\"'"
        )
    value: Any = override.value() if override.value_type is not None else None
    if isinstance(value, RangeSweep) and not list(value.range()):
        raise UserError(f"{shown} gives no value, so that nothing would run")
    of_sweeps = ("hydra/launcher", "hydra/sweeper", "search")
    if key in of_sweeps and not is_sweep and value is not None:
        raise UserError(f"{shown} has an effect with --multirun alone: add it")
    if key in ("hydra.launcher", "hydra.sweeper") and not isinstance(value, dict | None):
        raise UserError(f"{shown}: choose one by {key.replace('.', '/')}=NAME")


def _check_hydras_own(option: str, override: Override) -> None:
    """Refuse settings of Hydra that would have no effect, or none that was meant."""
    if override.key_or_group == "hydra.run.dir" and override.value() != ".":  # Lightning's own
        raise UserError(f"{option} has no effect here: give the folder of a run as run_dir=FOLDER")
    if override.key_or_group == "hydra.output_subdir" and override.value() is not None:
        raise UserError(f"{option} has no effect here: the configuration is in the run's folder")
    if override.key_or_group == "hydra.searchpath":
        value: Any = override.value()
        for place in value if isinstance(value, list) else [value]:
            scheme, _, path = str(place).partition("://")
            if scheme not in ("file", "pkg") or (scheme == "file" and not Path(path).is_dir()):
                raise UserError(
                    f"hydra.searchpath: {place!r} is no folder; give one by --config-dir FOLDER, "
                    "or several as 'hydra.searchpath=[file:///a,file:///b]'"
                )


def _check_group(job: str, option: str, override: Override) -> bool:
    """Refuse what is no choice of a group: null, numbers, a misspelt option, another job's.

    Returns:
        False if the override changes nothing and is to be left out.
    """
    group, _, place = override.key_or_group.partition("@")
    known = group_options(group)
    if not known:
        return True
    shown = shortened(option, MOST_SHOWN)
    if place or override.package is not None:
        raise UserError(f"{shown}: {group} has one place; choose it as {group}={known[0]}")
    names = _chosen(override)
    if group in _MAY_BE_NULL and names == [None]:
        return False
    if not names or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"{shown}: {group} is a group, choose one of: {_listed(job, group, known)}")
    if group not in _MAY_BE_NULL and isinstance(override.value(), list):
        raise UserError(f"{shown}: {group} takes one of: {', '.join(known)}")
    if option.startswith("+"):
        raise UserError(f"{shown}: give a group without +, as {option.lstrip('+')}")
    for name in map(str, names):
        _check_choice(job, shown, group, name, known)
    return True


def _check_choice(job: str, shown: str, group: str, name: str, known: Sequence[str]) -> None:
    other = next((each for each in JOBS if name.startswith(f"{each}_")), job)
    if group in _OF_A_JOB and other != job and is_of_package(group, name):
        kind, tail = _OF_A_JOB[group], " -m" if group == "search" else ""
        raise UserError(f"{shown} is {kind} of another job: {command(other)}{tail} {group}={name}")
    if group == "data_overrides" and name not in known:
        raise UserError(
            f"there is no {group}={name}{nearest(name, known)}; {group} can be: {', '.join(known)}"
        )


def _chosen(override: Override) -> list[Any]:
    """Return what an override chooses of a group: one, several, or what a sweep tries."""
    if override.value_type is None:  # ~group
        return [None]
    value: Any = override.value()
    if isinstance(value, ChoiceSweep):
        return list(value.list)
    return value if isinstance(value, list) else [value]


def _listed(job: str, group: str, known: Sequence[str]) -> str:
    """Return the options of a group, of experiments and searches those of the job."""
    if group in _OF_A_JOB:
        known = [name for name in known if name.startswith(f"{job}_")] or known
    return ", ".join(known)

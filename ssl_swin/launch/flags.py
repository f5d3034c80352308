"""The flags of a job's command line: Hydra's, wherever they stand, before the overrides.

Hydra reads no override behind a flag that stands behind one, and answers what it does not know with
all of its usage. Imports nothing heavy, so that `--help` answers at once.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ssl_swin.errors import UserError
from ssl_swin.launch.suggestions import nearest
from ssl_swin.runs.names import shortened

_SHORT = {
    "-h": "--help",
    "-c": "--cfg",
    "-p": "--package",
    "-r": "--run",
    "-m": "--multirun",
    "-i": "--info",
    "-cd": "--config-dir",
    "-sc": "--shell-completion",
    "-cn": "--config-name",
    "-cp": "--config-path",
}
_WITHOUT_VALUE = {
    "--help", "--hydra-help", "--version", "--resolve", "--run", "--multirun", "--shell-completion"
}  # fmt: skip
_QUESTIONS = {"--help", "--hydra-help", "--version", "--cfg", "--info", "--shell-completion"}
_INFOS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
_CHOICES: Mapping[str, Sequence[str]] = {"--cfg": ("job", "hydra", "all"), "--info": _INFOS}
_FREE = {"--config-dir", "--package"}
_SHELL = ("install=", "uninstall=", "query=")
_REFUSED = {
    "--config-name": "the job decides that: keep settings of your own as experiment=NAME",
    "--config-path": "the job decides that: name a folder of your own by --config-dir",
    "--experimental-rerun": "the same command continues a run",
}


class CommandLine(NamedTuple):
    """A job's command line, taken apart."""

    flags: dict[str, str | None]  # by long name
    overrides: list[str]

    def words(self, overrides: Sequence[str]) -> list[str]:
        """Return the flags and then these overrides, as Hydra reads them.

        Args:
            overrides: To stand in place of its own.
        """
        flags = [name if value is None else f"{name}={value}" for name, value in self.flags.items()]
        return [*flags, *overrides]


def taken_apart(options: Sequence[str]) -> CommandLine:
    """Return the flags and the overrides of a command line.

    Args:
        options: The command line after the job's name; a flag may stand anywhere.

    Raises:
        UserError: If a flag is unknown, has no value, or another than those it can have.
    """
    flags: dict[str, str | None] = {}
    overrides: list[str] = []
    rest = list(options)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            overrides.append(word)
        elif word != "--":
            flag, is_assigned, value = word.partition("=")
            name = _SHORT.get(flag, flag)
            flags[name] = _value(name, flag, value if is_assigned else None, rest)
    if flags.keys() & {"--resolve", "--package"} and not flags.keys() & {"--cfg", "--help"}:
        raise UserError("--resolve and --package say how --cfg prints: add --cfg job")
    if "--shell-completion" in flags and not any(word.startswith(_SHELL) for word in overrides):
        raise UserError(f"--shell-completion is for a shell: add {' or '.join(_SHELL)} and a shell")
    return CommandLine(flags, overrides)


def is_question(options: Sequence[str]) -> bool:
    """Whether a command line only has something printed.

    Args:
        options: The command line after the job's name.
    """
    flags = [option.partition("=")[0] for option in options]
    return any(_SHORT.get(flag, flag) in _QUESTIONS for flag in flags)


def _value(name: str, flag: str, value: str | None, rest: list[str]) -> str | None:
    """Return the value of a flag, which may be the next word."""
    if name in _REFUSED:
        raise UserError(f"{flag} is not for a job: {_REFUSED[name]}")
    if name in _WITHOUT_VALUE and value is None:
        return None
    if name in _FREE or name in _CHOICES:
        choices = _CHOICES.get(name)
        if value is None and name == "--info" and (not rest or rest[0] not in _INFOS):
            return "all"
        if value is None and rest:
            value = rest.pop(0)
        if not value:
            raise UserError(f"{flag} needs a value, as {name} {(choices or ('NAME',))[0]}")
        if choices and value not in choices:
            raise UserError(f"{flag} must be {' or '.join(choices)}, got {shortened(value, 60)!r}")
        return value
    known = {*_WITHOUT_VALUE, *_CHOICES, *_FREE, *_SHORT}
    hint = nearest(flag, known) or "; settings are given as key=value"
    raise UserError(f"there is no option {shortened(flag, 60)}{hint}")

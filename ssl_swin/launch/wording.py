"""Hydra's and OmegaConf's messages about a command line, in the words of this project."""

import re

from hydra.errors import HydraException
from omegaconf.errors import (
    GrammarParseError,
    InterpolationKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

OF_A_RESOLVER = "UserError raised while resolving interpolation: "
MOST_CHARACTERS = 400
_PATTERNS = (
    (r"The value of '(.+?)' is (.+) and not (.+)\.", r"~\1=\3: \1 is \2; remove it by ~\1"),
    (
        r"Could not append to config. An item is already at '(.+?)'",
        r"+\1: there is a setting \1 already; give its value without +, as \1=VALUE",
    ),
    (
        r"Multiple values for (\S+)\. .*'override \S+ (.+)'",
        r"+\1=\2: \1 is chosen already; give it without +, as \1=\2",
    ),
    (r"force-add of config groups is not supported: '\++(.+)'", r"give a group without +, as \1"),
    (r"Override (\S+) looks like a config group override.*", r"\1: @ stands behind a group alone"),
)


def in_our_words(error: Exception) -> str:
    """Return what was wrong, without the names of the libraries that found it.

    Args:
        error: Raised by Hydra or OmegaConf.
    """
    text = str(error)
    if OF_A_RESOLVER in text:
        return text.splitlines()[0].removeprefix(OF_A_RESOLVER)
    if override := re.match(r"Error merging override (.+)", text, re.DOTALL):
        return _unmergeable(_short(override.group(1)), error.__cause__)
    if isinstance(error, InterpolationResolutionError | GrammarParseError):
        return f"{_key(error)} cannot be worked out: {_of_interpolation(error)}"
    if isinstance(error, HydraException) and "interpolation" in text:
        return "what a group is chosen by is missing: choose it as GROUP=NAME"
    for pattern, words in _PATTERNS:
        if found := re.search(pattern, text):
            return _short(found.expand(words))
    return _short(text.splitlines()[0] if text else type(error).__name__)


def _unmergeable(override: str, cause: BaseException | None) -> str:
    if override.startswith("~"):
        key = override.lstrip("~")
        return f"{key} cannot be removed: give it a value, as {key}=VALUE"
    if isinstance(cause, InterpolationResolutionError | GrammarParseError):
        return f"cannot read {override}: {_of_interpolation(cause)}"
    return f"{override} is no value that this setting can have"


def _of_interpolation(error: OmegaConfBaseException) -> str:
    """Return what is wrong with a value that refers to others as ${KEY}."""
    text = str(error)
    if isinstance(error, InterpolationKeyError):
        key = re.search(r"'(.+?)'", text)
        return f"${{{key.group(1) if key else '...'}}} names no setting"
    if isinstance(error, UnsupportedInterpolationType):
        return f"there is no function ${{{text.splitlines()[0].split()[-1]}:...}}"
    if isinstance(error, GrammarParseError):
        return "${ begins a reference to another setting, as ${seed}; for the characters write \\${"
    if variable := re.search(r"Environment variable '(.+?)' not found", text):
        return f"the environment has no variable {variable.group(1)}"
    if "Recursive" in text:
        return "it refers to itself"
    return _short(re.sub(r"^\w+ raised while resolving interpolation: ", "", text.splitlines()[0]))


def _key(error: OmegaConfBaseException) -> str:
    return str(getattr(error, "full_key", None) or "a setting")


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= MOST_CHARACTERS else f"{plain[:MOST_CHARACTERS]}..."

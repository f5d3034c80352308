"""Text that can be pasted: words for a shell, and values for Hydra's command line.

A printed command must mean what it says whatever the names in it: blanks, quotes, `$(...)`, `=`,
brackets, a leading dash, newlines, bytes that are no text.
"""

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

# Texts that Hydra takes as they are, unless it reads a number, a flag or null in them.
PLAIN = re.compile(r"[A-Za-z0-9_/.@%+:-]+")
OTHER_TYPES = re.compile(
    r"[+-]?(\d[\d_]*\.?|\d*[\d_]*\.[\d_]*\d|[\d_.]+e[+-]?[\d_]+|inf|nan)|true|false|null",
    re.IGNORECASE,
)


def shell_line(words: Iterable[str]) -> str:
    """Return the line that gives a shell these words, in one line whatever they hold.

    Args:
        words: The program and its arguments.
    """
    return " ".join(map(shell_word, words))


def shell_word(text: str) -> str:
    r"""Return a text as one word of a POSIX shell.

    Args:
        text: Any text without NUL. With control characters or undecodable bytes it becomes
            `$'...'`, which bash, zsh, ksh and POSIX of 2024 know; so a name cannot steer a
            terminal.
    """
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(map(_escaped, text)) + "'"


def shell_path(path: str | os.PathLike[str]) -> str:
    """Return a path as one word of a shell that no program takes for an option.

    Args:
        path: A path, relative or absolute.
    """
    return shell_word(as_argument(path))


def as_argument(path: str | os.PathLike[str]) -> str:
    """Return a path so written that no program takes it for an option.

    Args:
        path: A path, relative or absolute.
    """
    text = str(path)
    return f"./{text}" if text.startswith("-") else text


def override(key: str, value: Any) -> str:
    """Return `key=value` for Hydra's command line, before any quoting for a shell.

    Args:
        key: Dotted key, or name of a group.
        value: Text, number, flag, None, or a list or mapping of these.
    """
    return f"{key}={hydra_value(value)}"


def hydra_value(value: Any) -> str:
    """Return a value in Hydra's grammar, so that Hydra reads this very value.

    Args:
        value: Text, number, flag, None, or a list or mapping of these.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{hydra_value(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(hydra_value, value)) + "]"
    text = str(value)
    if PLAIN.fullmatch(text) and not OTHER_TYPES.fullmatch(text):
        return text
    return quoted(without_interpolation(text))


def without_interpolation(text: str) -> str:
    r"""Return a text as OmegaConf must be given it to take `${...}` in it literally.

    Args:
        text: Any text.
    """
    return re.sub(r"(\\*)\$\{", lambda match: match.group(1) * 2 + r"\${", text)


def quoted(text: str) -> str:
    """Return a text in double quotes for Hydra, with its interpolations.

    Backslashes count only before a quote, and are doubled.

    Args:
        text: Any text.
    """
    text = re.sub(r'(\\*)"', lambda match: match.group(1) * 2 + r"\"", text)
    return '"' + re.sub(r"\\+\Z", lambda match: match.group() * 2, text) + '"'


def on_screen(message: str, most_lines: int = 6, most_characters: int = 2000) -> str:
    """Return a message as a terminal may be given it: short, and nothing in it steers the terminal.

    Args:
        message: Any text; names in it may hold anything.
        most_lines: Lines to keep.
        most_characters: Characters to keep.
    """
    lines = message.split("\n")
    if len(lines) > most_lines:
        lines = [*lines[: most_lines - 1], "..."]
    plain = [line if line.isprintable() else "".join(map(_visible, line)) for line in lines]
    text = "\n".join(plain)
    return text if len(text) <= most_characters else f"{text[:most_characters]}..."


def _visible(character: str) -> str:
    return character if character.isprintable() else _escaped(character)


def _escaped(character: str) -> str:
    if character in "\\'":
        return "\\" + character
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))

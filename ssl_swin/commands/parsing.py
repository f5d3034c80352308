"""The parser of `ssl-swin`: one line about a mistake, with the nearest name there is."""

import argparse
import re
from collections.abc import Callable, Collection, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from ssl_swin.arguments import accepts, in_words
from ssl_swin.errors import UserError

# What argparse says, and what we say: {0} is the option or argument.
_WORDINGS = {
    r"argument (.+?): expected one argument": "{0} needs a value",
    r"argument (.+?): expected at least one argument": "{0} needs at least one value",
    r"argument (.+?): ignored explicit argument (.+)": "{0} takes no value, got {1}",
    r"argument (.+?): invalid \S+ value: (.+)": "{0} cannot be {1}",
    r"the following arguments are required: (.+)": "{0} must be given",
    r"ambiguous option: (.+?) could match (.+)": "{0} could be any of {1}",
    r"argument (.+?): ((?:must|is empty|holds) ?.*)": "{0} {1}",
}


class CommandParser(argparse.ArgumentParser):
    """A parser whose messages name the option, the value, what is allowed, and the nearest name."""

    def parse_words(self, words: Sequence[str]) -> argparse.Namespace:
        """Return what the words say; an unknown option is refused by the command it was given to.

        Args:
            words: The command line without the program.
        """
        args, unknown = self.parse_known_args(words)
        if unknown:
            getattr(args, "parser", self)._refuse(unknown[0])
        return args

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            UserError: Always, with the message in our words.
        """
        ours = " ".join(_in_our_words(message).split())
        raise UserError(f"{ours}; see {self.prog} --help")

    def _refuse(self, word: str) -> NoReturn:
        if not word.startswith("-"):
            self.error(f"{word!r} is one argument too many")
        name = word.partition("=")[0]
        self.error(f"there is no option {name}{nearest(name, self._option_string_actions)}")


def nearest(name: str, valid: Collection[str]) -> str:
    """Return a phrase with the valid names that come nearest; an empty one if none is near."""
    close = get_close_matches(name, valid, n=3, cutoff=0.6)
    return f", did you mean {' or '.join(close)}?" if close else ""


def value_of(annotation: Any) -> Callable[[str], Any]:
    """Return a reader of an option's text that refuses what a type does not allow.

    Args:
        annotation: A type of numbers from `ssl_swin/arguments.py`, as the value's user has it.
    """

    def read(text: str) -> Any:
        for number in (float, int):  # no type of whole numbers accepts 5.0
            try:
                value = number(text)
            except ValueError:
                continue
            if accepts(annotation, value):
                return value
        raise argparse.ArgumentTypeError(f"must be {in_words(annotation)}, got {text!r}")

    return read


def text(words: str) -> str:
    """Return a text that is not empty.

    Raises:
        ArgumentTypeError: If it is, or holds a NUL, which no name of a file can.
    """
    if not words.strip():
        raise argparse.ArgumentTypeError("is empty")
    if "\0" in words:
        raise argparse.ArgumentTypeError(f"holds a NUL character, got {words!r}")
    return words


def path(words: str) -> Path:
    """Return a path; raises as `text`, since an empty one would mean the working directory."""
    return Path(text(words))


def _in_our_words(message: str) -> str:
    choice = re.fullmatch(
        r"argument (.+?): invalid choice: '?(.*?)'? \(choose from (.+)\)", message, re.DOTALL
    )
    if choice:
        name, value, listed = choice.groups()
        valid = [each.strip("'") for each in listed.split(", ")]
        near = nearest(value, valid) or ";"
        kind = "there is no command" if name == "COMMAND" else f"{name} cannot be"
        return f"{kind} {value!r}{near} it is one of {', '.join(valid)}"
    for pattern, ours in _WORDINGS.items():
        if found := re.fullmatch(pattern, message, re.DOTALL):
            return ours.format(*found.groups())
    return message

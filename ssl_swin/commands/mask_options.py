"""Options of commands that look into masks: the names of classes, and what values stand for."""

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ssl_swin.arguments import Count, MaskValue
from ssl_swin.commands.parsing import text, value_of

if TYPE_CHECKING:
    from ssl_swin.data.member_check import MemberCheck

Key = TypeVar("Key")
NOTHING = "none"  # the class of what is left out, and the value where there is no such value


def add_mask_options(parser: argparse._ActionsContainer) -> None:
    """Describe what the values of masks stand for, as `classes` and `task.masks.*` do for runs."""
    parser.add_argument(
        "--classes",
        type=text,
        metavar="NAMES",
        help="names of the classes of masks or boxes by their number, as background,nucleus; or "
        "how many there are; or a file of one name a line. A mask with another value is refused",
    )
    parser.add_argument(
        "--ignore-value",
        type=_value_or_none,
        default=255,
        metavar="N",
        help="value of pixels that belong to no class; none where there is no such value",
    )
    parser.add_argument(
        "--reduce-zero-label",
        action="store_true",
        help="masks count classes from 1, and 0 is no class, as in ADE20K",
    )
    parser.add_argument(
        "--class-of",
        type=_table(_value),
        metavar="0:0,255:1",
        help="class by value, where masks do not hold classes",
    )
    parser.add_argument(
        "--class-of-colour",
        type=_table(str, may_be_none=True),
        metavar="0-0-0:0,128-64-128:1",
        help="class by red-green-blue, where masks are of colours; none leaves a colour out",
    )


def class_names(args: argparse.Namespace) -> tuple[str, ...] | None:
    """Return the names that `--classes` gives; None without it.

    Raises:
        UserError: If a name is empty or there twice, or the file cannot be read.
    """
    from ssl_swin.errors import UserError

    if args.classes is None:
        return None
    names = _listed(args.classes)
    if any(not name for name in names):
        raise UserError(f"--classes has an empty name among {len(names)}: {args.classes!r}")
    if twice := [name for number, name in enumerate(names) if name in names[:number]]:
        raise UserError(f"--classes names {twice[0]!r} twice: each class has a name of its own")
    return tuple(names)


def member_check(args: argparse.Namespace, num_classes: int | None) -> "MemberCheck":
    """Return what masks and boxes are held against.

    Args:
        args: Options of the command.
        num_classes: Number of classes, if it is known; else the tables of the options tell it, and
            without one of these values may be anything.

    Raises:
        UserError: If options contradict each other, or a class is none of the number.
    """
    from ssl_swin.data.mask_classes import MaskClasses
    from ssl_swin.data.member_check import MemberCheck
    from ssl_swin.errors import UserError

    try:
        masks = MaskClasses(
            ignore_value=args.ignore_value,
            reduce_zero_label=args.reduce_zero_label,
            class_of=args.class_of,
            class_of_colour=args.class_of_colour,
        )
        told = [of for of in (args.class_of or args.class_of_colour or {}).values()]
        told = [of for of in told if of is not None]
        if num_classes is None and told:
            num_classes = max(told) + 1
        if num_classes is not None:
            masks.check_classes(num_classes)
    except UserError as error:
        raise UserError(as_options(str(error))) from error
    return MemberCheck(masks, num_classes)


def mask_overrides(
    args: argparse.Namespace, num_classes: int | None, *, names: Sequence[str] | None
) -> list[str]:
    """Return what a run has to be told of masks, as the options say it of them.

    Args:
        args: Options of the command.
        num_classes: Number of their classes, if it is known.
        names: Their names; empty if the data has them, None if nobody knows them.
    """
    from ssl_swin.data.mask_classes import MaskClasses
    from ssl_swin.quoting import override

    usual = MaskClasses()
    told = [override("classes", list(names))] if names else []
    if names is None:
        told = [f"classes={num_classes or 'NAMES'}"]
    return told + [
        override(f"task.masks.{name}", getattr(args, name))
        for name in usual.settings()
        if getattr(args, name) != getattr(usual, name)
    ]


def as_options(message: str) -> str:
    """Return a message about the settings of masks as one about options."""
    return re.sub(r"(?:task\.)?masks\.(\w+)(?:=true)?", _as_option, message)


def _as_option(setting: re.Match[str]) -> str:
    return f"--{setting[1].replace('_', '-')}"


def _listed(words: str) -> list[str]:
    from ssl_swin.errors import UserError

    if words.isascii() and words.isdigit():
        return list(map(str, range(int(words[:6]))))
    file = Path(words)
    if "," in words or not (file.is_file() or file.suffix == ".txt"):
        return [name.strip() for name in words.split(",")]
    try:
        return [line.strip() for line in file.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read --classes {file}: {error}") from error


def _value_or_none(words: str) -> int | None:
    if words == NOTHING:
        return None
    return _value(words)


def _table(
    key: Callable[[str], Key], *, may_be_none: bool = False
) -> Callable[[str], dict[Key, int | None]]:
    """Return what reads "KEY:CLASS,KEY:CLASS", with or without braces."""

    def read(words: str) -> dict[Key, int | None]:
        try:
            pairs = [part.split(":") for part in words.strip("{}").split(",")]
            return {key(name.strip()): _class(of.strip(), may_be_none) for name, of in pairs}
        except (ValueError, argparse.ArgumentTypeError):
            example = "0-0-0:0,0-0-142:1" if may_be_none else "0:0,255:1"
            raise argparse.ArgumentTypeError(f"must be as {example}, got {words!r}") from None

    return read


def _value(words: str) -> int:
    value: int = value_of(MaskValue)(words)
    return value


def _class(words: str, may_be_none: bool) -> int | None:
    if may_be_none and words in (NOTHING, "null"):
        return None
    label: int = value_of(Count)(words)
    return label

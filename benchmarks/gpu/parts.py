"""What there is to ask a GPU, and how long each may take of the time that there is."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

PARTS = Path(__file__).with_name("parts.yaml")
LEAST_S = 10.0  # a part is not begun with less


@dataclass(frozen=True)
class Part:
    """One question.

    Attributes:
        name: As in `parts.yaml`.
        title: For a reader.
        minutes: Its share of the time, relative to the others'.
        words: Of the command, after `python -m`; some are placeholders.
    """

    name: str
    title: str
    minutes: float
    words: tuple[str, ...]

    def command(self, options: Mapping[str, Sequence[str]]) -> list[str]:
        """Returns the words of the command with what stands for the placeholders.

        Args:
            options: Words by placeholder, as {"{json}": ["FILE"]}.
        """
        return [word for each in self.words for word in options.get(each, [each])]


def load_parts(*, rehearsal: bool) -> list[Part]:
    """Reads the parts in order of worth.

    Args:
        rehearsal: Takes their toy sizes.
    """
    settings = yaml.safe_load(PARTS.read_text())
    key = "rehearsal" if rehearsal else "command"
    return [
        Part(name, part["title"], float(part["minutes"]), tuple(shlex.split(part[key])))
        for name, part in settings.items()
    ]


def slice_s(parts: Sequence[Part], left_s: float) -> float:
    """Returns how long the first of several parts may take; 0 where that is too little to begin.

    What an earlier part has not used is shared by all that are left.

    Args:
        parts: Those that are left.
        left_s: Time that is left for all of them.
    """
    share = left_s * parts[0].minutes / sum(part.minutes for part in parts)
    return share if share >= LEAST_S else 0.0

"""Which of a run's previous checkpoints are kept: by count and by age."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ssl_swin.files import remove
from ssl_swin.runs.catalogue import ENDING, Catalogue, Entry


@dataclass(frozen=True)
class Retention:
    """What is kept of the states that a file held before.

    Attributes:
        num_previous: Newest previous states that are kept.
        min_age_h: One state is always kept that is at least so many hours old, once the run is so
            old; None for none.
    """

    num_previous: int
    min_age_h: float | None

    def superseded(self, entries: Sequence[Entry], now: float) -> list[Entry]:
        """Return what nothing needs any longer.

        Kept are the newest, the newest of those that are old enough, and the oldest of those that
        are not yet, which will be the next to be old enough.

        Args:
            entries: Previous states.
            now: In seconds since 1970.
        """
        by_time = sorted(entries, key=lambda entry: entry.time, reverse=True)
        kept = by_time[: self.num_previous]
        if self.min_age_h is not None:
            limit = now - 3600 * self.min_age_h
            kept += [entry for entry in by_time if entry.time <= limit][:1]
            kept += [entry for entry in by_time if entry.time > limit][-1:]
        return [entry for entry in by_time if entry not in kept]


def previous_name(name: str, step: int) -> str:
    """Return the name that a state gets when its file is about to hold the next one.

    Args:
        name: Of the file, as last.ckpt.
        step: Of the state.
    """
    return f"{name.removesuffix(ENDING)}_{step:07d}{ENDING}"


def previous_states(catalogue: Catalogue, name: str) -> list[Entry]:
    """Return the whole previous states of a file, as far as a glance tells.

    Args:
        catalogue: Of its folder.
        name: Of the file.
    """
    pattern = re.compile(rf"{re.escape(name.removesuffix(ENDING))}_\d{{7,}}{re.escape(ENDING)}")
    return [entry for entry in catalogue.by_step() if pattern.fullmatch(entry.name)]


def remove_superseded(catalogue: Catalogue, name: str, retention: Retention) -> None:
    """Remove previous states of a file that nothing needs; called when the next one is whole.

    Args:
        catalogue: Of its folder.
        name: Of the file.
        retention: What is kept.
    """
    for entry in retention.superseded(previous_states(catalogue, name), time.time()):
        remove(catalogue.folder / entry.name)

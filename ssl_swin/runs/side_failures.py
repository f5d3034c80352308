"""What failed beside the training of a run, which went on without it: `errors.log`.

Pictures, probes, dashboards, cards and reports are extras: one that fails costs a line on the
console and its traceback here.
"""

import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ssl_swin.errors import UserError

FILE = "errors.log"
LONGEST_REASON = 300  # characters
_HEAD = re.compile(r"^=== \S+ \S+ (.+)$", re.MULTILINE)


class SideFailures:
    """The failures of a run's extras, which are counted over all its starts."""

    def __init__(self, run_folder: str | Path, tell: Callable[[str], None] = print) -> None:
        """Open the list of a run; nothing is written before something fails.

        Args:
            run_folder: Folder of the run.
            tell: Prints a line.
        """
        self.path = Path(run_folder) / FILE
        self._tell = tell
        self._told: set[str] = set()

    def add(self, what: str, error: BaseException, effect: str = "training goes on") -> None:
        """Write a failure down, and tell of it if it is the first of its kind.

        Args:
            what: What failed, as "the probes".
            error: Why.
            effect: What follows.
        """
        with suppress(OSError):  # of a full disk, which may be why it failed
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                now = time.strftime("%Y-%m-%d %H:%M:%S")
                file.write(f"=== {now} {what}\n{''.join(traceback.format_exception(error))}\n")
        if what not in self._told:
            self._told.add(what)
            self._tell(f"{what} failed: {reason(error)}; {effect}, the traceback is in {self.path}")

    @contextmanager
    def allowed(self, what: str, effect: str = "training goes on") -> Iterator[None]:
        """Surround an extra: what it raises is written down; only what ends the process passes."""
        try:
            yield
        except Exception as error:
            self.add(what, error, effect)

    def counts(self) -> Counter[str]:
        """Return how often each extra failed, over all starts of the run."""
        try:
            return Counter(_HEAD.findall(self.path.read_text(encoding="utf-8", errors="replace")))
        except OSError:
            return Counter()

    def summary(self) -> str:
        """Return a phrase for the run's closing lines; nothing if nothing failed."""
        counts = self.counts()
        parts = [
            what if number == 1 else f"{what} {number} times" for what, number in counts.items()
        ]
        return f"failed beside the training: {', '.join(parts)}; see {self.path}" if parts else ""


def reason(error: BaseException) -> str:
    """Return an error's first line, with its type where the words are not our own."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0][:LONGEST_REASON] if lines else ""
    if isinstance(error, UserError):
        return first
    return f"{type(error).__name__}: {first}" if first else type(error).__name__

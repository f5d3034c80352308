"""The catalogue of a run's checkpoints: step, time, health, place, size, checksum.

It is a convenience that is rebuilt from the files where it is lost or damaged. An entry is written
before its file gets its name, so that for a moment, or after a kill, two entries bear one name:
the file is whole if it is one of the two.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ssl_swin.errors import UserError
from ssl_swin.files import write_atomically
from ssl_swin.runs.checkpoint_files import checksum, num_bytes, read_facts

FILE, ENDING, VERSION = "catalogue.json", ".ckpt", 1


@dataclass(frozen=True)
class Entry:
    """A checkpoint.

    Attributes:
        name: File, or folder of a sharded one, in the folder of the catalogue.
        step: Number of optimiser steps that were made.
        time: When it was written, in seconds since 1970.
        healthy: Whether training may go back to it: all numbers are finite, and nobody said later
            that the training had gone wrong before it.
        size: In bytes.
        checksum: SHA-256 of its content.
        run: Identity of its run; empty if not known.
    """

    name: str
    step: int
    time: float
    healthy: bool
    size: int
    checksum: str
    run: str = ""


class Damaged(UserError):
    """A checkpoint that training cannot go on from; the message is one line."""


class Catalogue:
    """The checkpoints in one folder."""

    def __init__(self, folder: str | Path) -> None:
        """Opens the catalogue of a folder; nothing is read or written yet.

        Args:
            folder: Usually `checkpoints` of a run.
        """
        self.folder = Path(folder)
        self._file = self.folder / FILE

    def recorded(self) -> list[Entry]:
        """Return what is written down, also of files that are gone; nothing if it is damaged."""
        try:
            content = json.loads(self._file.read_text())
            return [_entry(each) for each in content["entries"]]
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return []

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints that are there, damaged ones included, by name."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if path.suffix == ENDING)

    def by_step(self) -> Iterator[Entry]:
        """Yield the checkpoints that are there from the last step down, without checking bytes.

        One that is not written down is read; if it is damaged it is left out.
        """
        known = self.recorded()
        found = [self._glance(path, known) for path in self.checkpoints()]
        entries = [entry for entry in found if entry is not None]
        yield from sorted(entries, key=lambda entry: (entry.step, entry.time), reverse=True)

    def verified(self, name: str) -> Entry:
        """Read a checkpoint through, and return its entry.

        Args:
            name: Of the file.

        Raises:
            Damaged: If it is gone, damaged, or no state of a training.
        """
        path = self.folder / name
        known = [entry for entry in self.recorded() if entry.name == name]
        try:
            found = checksum(path) if path.exists() else ""
        except OSError as error:
            raise Damaged(f"{path} cannot be read: {error.strerror}") from error
        for entry in self.recorded():
            if found and entry.checksum == found:
                return replace(entry, name=name)
        entry = self._read(path)
        if any(entry.step == other.step for other in known):
            raise Damaged(f"{path} is damaged: its bytes are not those that were written")
        return replace(entry, checksum=found)

    def last_healthy_before(self, step: int) -> Entry | None:
        """Return the whole, healthy checkpoint of the most steps before a step; None without any.

        Args:
            step: The first step that went wrong.
        """
        for entry in self.by_step():
            if entry.step < step and entry.healthy:
                try:
                    verified = self.verified(entry.name)
                except Damaged:
                    continue
                if verified.healthy and verified.step < step:
                    return verified
        return None

    def mark_unhealthy_from(self, step: int) -> None:
        """Note that training had gone wrong, so that nothing goes back to later checkpoints.

        Args:
            step: Checkpoints of this many steps or more are no longer healthy.
        """
        self._write([replace(e, healthy=e.healthy and e.step < step) for e in self._with_unknown()])

    def add(self, new: Entry) -> None:
        """Write an entry down, just before its file gets its name.

        Args:
            new: The entry; those of files that are gone are dropped.
        """
        others = self._with_unknown()
        before = [entry for entry in others if entry.name == new.name]
        kept = [entry for entry in others if entry.name != new.name]
        self._write([*kept, *before[-1:], new])

    def add_name(self, name: str, other: str) -> None:
        """Write down that a checkpoint was given another name beside its own, or instead of it.

        Args:
            name: Its name so far.
            other: The other name; a file of this name is there.
        """
        of_name = [entry for entry in self.recorded() if entry.name == name]
        kept = [entry for entry in self._with_unknown() if entry.name != other]
        self._write([*kept, *(replace(entry, name=other) for entry in of_name)])

    def _with_unknown(self) -> list[Entry]:
        """Return the entries of files that are there, read anew where nothing is written down."""
        known, there = self.recorded(), {path.name for path in self.checkpoints()}
        unknown = sorted(there - {entry.name for entry in known})
        read = (self._glance(self.folder / name, known) for name in unknown)
        entries = [*known, *(entry for entry in read if entry is not None)]
        return [entry for entry in entries if entry.name in there]

    def _glance(self, path: Path, known: Sequence[Entry]) -> Entry | None:
        """Return the entry of a checkpoint that is there, by name and size where it is known."""
        try:
            size = num_bytes(path)
            for entry in reversed(known):
                if entry.name == path.name and entry.size == size:
                    return entry
            return replace(self._read(path), checksum=checksum(path))
        except (OSError, Damaged):
            return None

    def _read(self, path: Path) -> Entry:
        try:
            facts = read_facts(path)
            written = path.stat().st_mtime
            size = num_bytes(path)
        except OSError as error:
            raise Damaged(f"{path} cannot be read: {error.strerror}") from error
        except UserError as error:
            raise Damaged(str(error)) from error
        return Entry(path.name, facts.step, written, not facts.problem, size, "", facts.run)

    def _write(self, entries: Sequence[Entry]) -> None:
        unique = {(entry.name, entry.checksum): entry for entry in entries}
        content = {"version": VERSION, "entries": [asdict(entry) for entry in unique.values()]}
        write_atomically(self._file, json.dumps(content, indent=1) + "\n")


def entry_of(path: Path, name: str, *, step: int, found: str, run: str = "") -> Entry:
    """Return the entry of a healthy checkpoint that was just written.

    Args:
        path: Where it lies now.
        name: Name that it is about to get.
        step: Number of optimiser steps that were made.
        found: Its checksum.
        run: Identity of its run.
    """
    return Entry(name, step, time.time(), True, num_bytes(path), found, run)


def _entry(content: dict[str, Any]) -> Entry:
    entry = Entry(**content)
    kinds: dict[str, type | tuple[type, ...]] = {
        "name": str, "step": int, "time": (int, float), "healthy": bool,
        "size": int, "checksum": str, "run": str,
    }  # fmt: skip
    if not all(isinstance(getattr(entry, key), kind) for key, kind in kinds.items()):
        raise TypeError("a value of another type")
    if "/" in entry.name or not entry.name.endswith(ENDING):
        raise ValueError("no name of a checkpoint")
    return entry

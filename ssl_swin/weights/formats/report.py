"""What became of every tensor of a file: the report of an import or an export."""

from collections.abc import Container, Iterator
from dataclasses import dataclass, fields, replace
from typing import NamedTuple


class Entry(NamedTuple):
    """What happened to one tensor."""

    name: str  # where it came from
    became: str  # where it went; empty where nowhere
    reason: str


@dataclass(frozen=True)
class LoadReport:
    """Every tensor that was read or expected, once, and why it ended where it is.

    Attributes:
        matched: Taken under its own name.
        renamed: Taken under another name, perhaps split, joined or reordered; no value changed.
        resized: Values were interpolated.
        dropped: Names in the file that are not taken.
        missing: Not in the file, although a model of its kind may have it.
        notes: What else one should know.
    """

    matched: tuple[Entry, ...] = ()
    renamed: tuple[Entry, ...] = ()
    resized: tuple[Entry, ...] = ()
    dropped: tuple[Entry, ...] = ()
    missing: tuple[Entry, ...] = ()
    notes: tuple[str, ...] = ()

    def __add__(self, other: "LoadReport") -> "LoadReport":
        return LoadReport(
            **{each.name: getattr(self, each.name) + getattr(other, each.name) for each in _FIELDS}
        )

    def dropping(self, names: Container[str], reason: str) -> "LoadReport":
        """Moves tensors that became one of the names to those that are not taken."""
        taken = (*self.matched, *self.renamed)
        dropped = tuple(Entry(e.name, "", reason) for e in taken if e.became in names)
        return replace(
            self,
            matched=tuple(entry for entry in self.matched if entry.became not in names),
            renamed=tuple(entry for entry in self.renamed if entry.became not in names),
            dropped=self.dropped + dropped,
        )

    def summary(self) -> str:
        """Counts the tensors of each kind, in one line."""
        return ", ".join(f"{len(getattr(self, kind))} {kind}" for kind in _KINDS)

    def lines(self) -> Iterator[str]:
        """Describes all that has a reason, one line for each of them, and the notes."""
        for kind in _KINDS[1:]:
            by_reason: dict[str, list[Entry]] = {}
            for entry in getattr(self, kind):
                by_reason.setdefault(entry.reason, []).append(entry)
            for reason, entries in by_reason.items():
                more = f" and {len(entries) - 1} more" if len(entries) > 1 else ""
                yield f"{kind}: {entries[0].name}{more}: {reason}"
        yield from (f"note: {note}" for note in self.notes)


_FIELDS = fields(LoadReport)
_KINDS = tuple(field.name for field in _FIELDS if field.name != "notes")

"""Accuracies over taps and one setting: which is best, as text and as data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ssl_swin.probing.features import Tap


class Choice(NamedTuple):
    """One cell of a grid."""

    tap: Tap
    setting: float
    top1_percent: float


@dataclass(frozen=True)
class ScoreGrid:
    """Top-1 on the validation split, in percent, by tap and by setting."""

    method: str  # as "linear"
    setting: str  # what varies along a row, as "base_lr"
    top1_percent: Mapping[Tap, Mapping[float, float]]
    tolerance_percent: float = 0.0  # below the best, within which the simplest setting is chosen
    simplest: Literal["lowest", "highest"] = "lowest"  # which setting fits least

    @property
    def settings(self) -> list[float]:
        """The columns."""
        return list(next(iter(self.top1_percent.values())))

    @property
    def best(self) -> Choice:
        """The highest cell; the first of equals."""
        return max(self.cells(), key=lambda cell: cell.top1_percent)

    @property
    def chosen(self) -> Choice:
        """The cell that is used: the simplest of the best row that is as good within tolerance."""
        best = self.best
        row = [cell for cell in self.cells() if cell.tap == best.tap]
        good = [c for c in row if c.top1_percent >= best.top1_percent - self.tolerance_percent]
        sign = 1 if self.simplest == "lowest" else -1
        return min(good, key=lambda cell: sign * cell.setting)

    def best_of(self, tap: Tap) -> Choice:
        """The highest cell of a row; the first of equals."""
        return max(
            (cell for cell in self.cells() if cell.tap == tap), key=lambda cell: cell.top1_percent
        )

    def cells(self) -> list[Choice]:
        """All cells, row by row."""
        return [
            Choice(tap, setting, top1)
            for tap, row in self.top1_percent.items()
            for setting, top1 in row.items()
        ]

    def as_data(self) -> list[dict[str, Any]]:
        """The cells as plain values for JSON."""
        return [
            {
                "stage": cell.tap.stage,
                "pooling": cell.tap.pooling,
                self.setting: cell.setting,
                "val_top1_percent": round(cell.top1_percent, 4),
            }
            for cell in self.cells()
        ]

    def lines(self) -> list[str]:
        """The grid as a table for a terminal, with a star at what is chosen."""
        chosen = self.chosen
        head = f"{self.method} top-1 on val, percent, by {self.setting}"
        columns = "".join(f"{setting:>9g}" for setting in self.settings)
        rows = [
            f"  stage {tap.stage:<2} {tap.pooling:<6}"
            + "".join(
                f"{top1:>8.2f}{'*' if (tap, setting) == chosen[:2] else ' '}"
                for setting, top1 in row.items()
            )
            for tap, row in self.top1_percent.items()
        ]
        return [head, " " * 16 + columns, *rows]

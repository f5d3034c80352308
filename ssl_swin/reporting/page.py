"""`report.html`: what happened in a run, on one page that needs no other file.

`report.html.j2` is its template, which escapes whatever a run's files contain, and `report.css` its
style sheet.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ssl_swin.errors import UserError
from ssl_swin.files import write_atomically
from ssl_swin.reporting.animation import spread_over
from ssl_swin.reporting.chart import MAX_POINTS
from ssl_swin.reporting.curves import Curves, read_with_samples
from ssl_swin.reporting.facts import Fact, facts_of, read_config, read_provenance, x_name_of
from ssl_swin.reporting.history import environment_of, next_steps_of, starts_of, warnings_of
from ssl_swin.reporting.judged_splits import JudgedSplit, judged_splits
from ssl_swin.reporting.panels import rendered
from ssl_swin.reporting.pictures import Picture, photographs_of, picture_of
from ssl_swin.reporting.sections import Section, sections_of
from ssl_swin.reporting.thinning import Curve

MAX_RECONSTRUCTIONS = 6
MAX_FEATURES = 3
FOLDED_FILES = ("config.yaml", "provenance.json")


class _TextFile(NamedTuple):
    name: str
    text: str


@dataclass(frozen=True)
class _Report:
    """What the template shows of a run."""

    name: str
    summary: str
    facts: tuple[Fact, ...]
    warnings: tuple[str, ...]
    starts: str
    sections: tuple[Section, ...]
    x_name: str  # what the steps are
    has_samples: bool  # whether it is known how many were seen at which step
    has_averaged_curves: bool
    reconstructions: tuple[Picture, ...]  # in the order of the steps
    predictions: tuple[Picture, ...]
    features: tuple[Picture, ...]
    pictures: tuple[Picture, ...]
    judged: tuple[JudgedSplit, ...]  # of whose images the classes were predicted
    environment: tuple[Fact, ...]
    next_steps: tuple[str, ...]
    files: tuple[_TextFile, ...]

    @property
    def is_empty(self) -> bool:
        pictures = self.reconstructions + self.predictions + self.features + self.pictures
        return not any((self.sections, pictures, self.judged, self.files))


def write_report(run_folder: Path) -> Path:
    """Writes `report.html` into a run folder from whatever the run has left there.

    Shown are what was run and what came of it, the curves of `metrics.csv`, up to six of
    `reconstructions/step_*.png` and three of `features/` spread over the run, other pictures
    directly in the folder, the confusions of `confusion_*/`, and the text of `config.yaml` and
    `provenance.json`. What is missing is left out.

    Returns:
        Path of the page.

    Raises:
        UserError: If there is no such folder, or it cannot be written to.
    """
    if not run_folder.is_dir():
        raise UserError(f"there is no run folder {run_folder} to report on")
    page = run_folder / "report.html"
    write_atomically(page, rendered("report.html.j2", report=_read_report(run_folder)))
    return page


def _read_report(run_folder: Path) -> _Report:
    metrics = run_folder / "metrics.csv"
    curves = read_with_samples(metrics) if metrics.is_file() else Curves([], None)
    provenance = read_provenance(run_folder)
    x_name = x_name_of(read_config(run_folder))
    return _Report(
        name=run_folder.resolve().name,
        summary=summary_of(provenance, curves.metrics, x_name),
        facts=tuple(facts_of(run_folder, curves.metrics)),
        warnings=tuple(warnings_of(run_folder, curves.metrics)),
        starts=starts_of(provenance),
        sections=sections_of(curves, x_name=x_name),
        x_name=x_name,
        has_samples=curves.samples_seen is not None,
        has_averaged_curves=any(len(curve.steps) > MAX_POINTS for curve in curves.metrics),
        reconstructions=pictures_over_steps(run_folder / "reconstructions", MAX_RECONSTRUCTIONS),
        predictions=pictures_over_steps(run_folder / "predictions", MAX_RECONSTRUCTIONS),
        features=pictures_over_steps(run_folder / "features", MAX_FEATURES),
        pictures=tuple(picture_of(path, path.stem) for path in sorted(run_folder.glob("*.png"))),
        judged=judged_splits(run_folder),
        environment=tuple(environment_of(provenance)),
        next_steps=tuple(next_steps_of(provenance)),
        files=tuple(
            _TextFile(name, path.read_text(encoding="utf-8", errors="replace"))
            for name in FOLDED_FILES
            if (path := run_folder / name).is_file()
        ),
    )


def summary_of(provenance: Mapping[str, Any], curves: Sequence[Curve], x_name: str = "step") -> str:
    """Return how a run ended, how many steps it made, and in which time, as far as is known.

    Args:
        provenance: Where it comes from.
        curves: Its metrics.
        x_name: What they are logged over; of stages, which one may choose, it is told how many.
    """
    parts = []
    if provenance.get("status"):
        parts.append(str(provenance["status"]))
    if curves:
        number = max(curve.steps[-1] for curve in curves)
        if x_name == "stage":
            number = len({stage for curve in curves for stage in curve.steps})
        parts.append(f"{number:,} {x_name}s")
    duration_s = provenance.get("duration_s")
    if isinstance(duration_s, int | float):
        parts.append(_duration(duration_s))
    return " · ".join(parts)


def _duration(duration_s: float) -> str:
    minutes, seconds = divmod(round(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def pictures_over_steps(folder: Path, most: int) -> tuple[Picture, ...]:
    """Return pictures spread over a run, in the order of their steps.

    Args:
        folder: Holds step_*.png.
        most: How many; one is the last.
    """
    steps = {}
    for path in folder.glob("step_*.png"):
        if match := re.fullmatch(r"step_(\d+)", path.stem):
            steps[int(match[1])] = path
    shown = spread_over(sorted(steps), most)
    return tuple(photographs_of(steps[step], f"step {step:,}") for step in shown)

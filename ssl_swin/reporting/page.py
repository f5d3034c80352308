"""`report.html`: what happened in a run, on one page that needs no other file.

`report.html.j2` is its template, which escapes whatever a run's files contain, and `report.css` its
style sheet.
"""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ssl_swin.errors import UserError
from ssl_swin.files import write_atomically
from ssl_swin.reporting.chart import MAX_POINTS, line_chart, style_class
from ssl_swin.reporting.curves import group_curves, read_curves
from ssl_swin.reporting.thinning import Curve

MAX_RECONSTRUCTIONS = 6
FOLDED_FILES = ("config.yaml", "provenance.json")

# The page may neither run scripts nor load anything, whatever a run's files contain.
CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class _LegendEntry(NamedTuple):
    label: str
    style: str  # class in the style sheet


class _Panel(NamedTuple):
    """A chart of curves that belong together."""

    title: str
    legend: tuple[_LegendEntry, ...]  # empty for one curve, whose name is the title
    num_nonfinite: int
    chart: Markup


class _Picture(NamedTuple):
    caption: str
    base64: str


class _TextFile(NamedTuple):
    name: str
    text: str


@dataclass(frozen=True)
class _Report:
    """What the template shows of a run."""

    name: str
    summary: str
    panels: tuple[_Panel, ...]
    has_averaged_curves: bool
    reconstructions: tuple[_Picture, ...]  # in the order of the steps
    pictures: tuple[_Picture, ...]
    files: tuple[_TextFile, ...]

    @property
    def is_empty(self) -> bool:
        return not (self.panels or self.reconstructions or self.pictures or self.files)


def write_report(run_folder: Path) -> Path:
    """Writes `report.html` into a run folder from whatever the run has left there.

    Shown are the curves of `metrics.csv`, up to six of `reconstructions/step_*.png` spread over
    the run, other pictures directly in the folder, and the text of `config.yaml` and
    `provenance.json`. Of the latter, `status` and `duration_s` go to the head of the page, if
    present. What is missing is left out.

    Returns:
        Path of the page.

    Raises:
        UserError: If there is no such folder, or it cannot be written to.
    """
    if not run_folder.is_dir():
        raise UserError(f"there is no run folder {run_folder} to report on")
    page = run_folder / "report.html"
    write_atomically(page, _render(_read_report(run_folder)))
    return page


def _render(report: _Report) -> str:
    folder = files("ssl_swin.reporting")
    template, style = (
        folder.joinpath(name).read_text(encoding="utf-8")
        for name in ("report.html.j2", "report.css")
    )
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.from_string(template).render(
        report=report, style=Markup(style), content_policy=Markup(CONTENT_POLICY)
    )


def _read_report(run_folder: Path) -> _Report:
    metrics = run_folder / "metrics.csv"
    curves = read_curves(metrics) if metrics.is_file() else []
    return _Report(
        name=run_folder.resolve().name,
        summary=_summary(run_folder / "provenance.json", curves),
        panels=tuple(_panel(title, group) for title, group in group_curves(curves).items()),
        has_averaged_curves=any(len(curve.steps) > MAX_POINTS for curve in curves),
        reconstructions=_reconstructions(run_folder / "reconstructions"),
        pictures=tuple(_picture(path, path.stem) for path in sorted(run_folder.glob("*.png"))),
        files=tuple(
            _TextFile(name, path.read_text(encoding="utf-8", errors="replace"))
            for name in FOLDED_FILES
            if (path := run_folder / name).is_file()
        ),
    )


def _summary(provenance_path: Path, curves: Sequence[Curve]) -> str:
    provenance = _read_json_object(provenance_path)
    parts = []
    if provenance.get("status"):
        parts.append(str(provenance["status"]))
    if curves:
        parts.append(f"{max(curve.steps[-1] for curve in curves):,} steps")
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


def _read_json_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _panel(title: str, curves: Sequence[Curve]) -> _Panel:
    legend: tuple[_LegendEntry, ...] = ()
    if len(curves) > 1:
        legend = tuple(
            _LegendEntry(_within(title, curve.name), style_class(index))
            for index, curve in enumerate(curves)
        )
    return _Panel(
        title=title if legend else curves[0].name,
        legend=legend,
        num_nonfinite=sum(curve.num_nonfinite for curve in curves),
        chart=Markup(line_chart(curves)),
    )


def _within(title: str, name: str) -> str:
    return name.removeprefix(f"{title}/").removesuffix(f"/{title}")


def _reconstructions(folder: Path) -> tuple[_Picture, ...]:
    steps = {}
    for path in folder.glob("step_*.png"):
        if match := re.fullmatch(r"step_(\d+)", path.stem):
            steps[int(match[1])] = path
    shown = _spread_over(sorted(steps), MAX_RECONSTRUCTIONS)
    return tuple(_picture(steps[step], f"step {step:,}") for step in shown)


def _spread_over(items: Sequence[int], count: int) -> list[int]:
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def _picture(path: Path, caption: str) -> _Picture:
    return _Picture(caption, base64.b64encode(path.read_bytes()).decode())

"""`report.html`: what happened in a run, on one page that needs no other file."""

import base64
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from ssl_swin.errors import UserError
from ssl_swin.files import write_atomically
from ssl_swin.reporting.chart import MAX_POINTS, line_chart, style_class
from ssl_swin.reporting.curves import Curve, group_curves, read_curves
from ssl_swin.reporting.style import STYLE

MAX_RECONSTRUCTIONS = 6
FOLDED_FILES = ("config.yaml", "provenance.json")

# The page may neither run scripts nor load anything, whatever a run's files contain.
CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


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
    write_atomically(page, _page(run_folder))
    return page


def _page(run_folder: Path) -> str:
    name = escape(run_folder.resolve().name)
    metrics = run_folder / "metrics.csv"
    curves = read_curves(metrics) if metrics.is_file() else []
    sections = [
        _curves_section(curves),
        _reconstructions_section(run_folder / "reconstructions"),
        _pictures_section(run_folder),
        *(_folded(run_folder / file) for file in FOLDED_FILES),
    ]
    body = "\n".join(filter(None, sections)) or "<p>Nothing has been logged in this folder yet.</p>"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{CONTENT_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{name}</h1>
<p class="summary">{_summary(run_folder / "provenance.json", curves)}</p>
{body}
</main>
</body>
</html>
"""


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
    return escape(" · ".join(parts))


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


def _curves_section(curves: Sequence[Curve]) -> str:
    if not curves:
        return ""
    panels = "\n".join(_panel(title, group) for title, group in group_curves(curves).items())
    note = ""
    if any(len(curve.steps) > MAX_POINTS for curve in curves):
        note = "<p>Lines are means of neighbouring points, bands their range.</p>\n"
    return f'<h2>Curves over steps</h2>\n{note}<div class="panels">\n{panels}\n</div>'


def _panel(title: str, curves: Sequence[Curve]) -> str:
    if len(curves) == 1:
        title, legend = curves[0].name, ""
    else:
        legend = "".join(
            f'<span><svg class="swatch {style_class(index)}" viewBox="0 0 18 10">'
            f'<path class="line" d="M0 5H18"/></svg>{escape(_within(title, curve.name))}</span>'
            for index, curve in enumerate(curves)
        )
    num_nonfinite = sum(curve.num_nonfinite for curve in curves)
    warning = f"<strong>{num_nonfinite:,} not finite, left out</strong>" if num_nonfinite else ""
    return (
        f"<figure><figcaption><b>{escape(title)}</b>{legend}{warning}</figcaption>\n"
        f"{line_chart(curves)}</figure>"
    )


def _within(title: str, name: str) -> str:
    return name.removeprefix(f"{title}/").removesuffix(f"/{title}")


def _reconstructions_section(folder: Path) -> str:
    steps = {}
    for path in folder.glob("step_*.png"):
        if match := re.fullmatch(r"step_(\d+)", path.stem):
            steps[int(match[1])] = path
    if not steps:
        return ""
    *earlier, newest = _spread_over(sorted(steps), MAX_RECONSTRUCTIONS)
    figures = "\n".join(_figure(steps[step], f"step {step:,}") for step in earlier)
    return (
        f"<h2>Reconstructions</h2>\n{_figure(steps[newest], f'step {newest:,}')}\n"
        f'<div class="pictures">\n{figures}\n</div>'
    )


def _spread_over(items: Sequence[int], count: int) -> list[int]:
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def _pictures_section(run_folder: Path) -> str:
    figures = [_figure(path, path.stem) for path in sorted(run_folder.glob("*.png"))]
    if not figures:
        return ""
    return '<h2>Pictures</h2>\n<div class="pictures">\n' + "\n".join(figures) + "\n</div>"


def _figure(picture: Path, caption: str) -> str:
    data = base64.b64encode(picture.read_bytes()).decode()
    text = escape(caption)
    return (
        f"<figure><figcaption>{text}</figcaption>"
        f'<img src="data:image/png;base64,{data}" alt="{text}"></figure>'
    )


def _folded(path: Path) -> str:
    if not path.is_file():
        return ""
    text = escape(path.read_text(encoding="utf-8", errors="replace"))
    return f"<details><summary>{path.name}</summary><pre>{text}</pre></details>"

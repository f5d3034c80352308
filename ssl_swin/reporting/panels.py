"""Charts of curves that belong together, and the page that shows them."""

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from ssl_swin.reporting.chart import chart_data, line_chart, style_class
from ssl_swin.reporting.thinning import Curve
from ssl_swin.runs.metrics import declared

# The page may load nothing, and run no script but its own, whatever a run's files contain.
CONTENT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
)


class LegendEntry(NamedTuple):
    """The name of a curve, and its class in the style sheet."""

    label: str
    style: str


class Panel(NamedTuple):
    """A chart of curves that belong together."""

    title: str
    meaning: str
    unit: str
    legend: tuple[LegendEntry, ...]  # empty for one curve, whose name is the title
    num_nonfinite: int
    chart: Markup
    data: str  # the same points as JSON, for the page's script


def panel_of(
    title: str,
    curves: Sequence[Curve],
    labels: Sequence[str] = (),
    *,
    metrics: Sequence[str] = (),
    seen: Sequence[Curve | None] = (),
    x_name: str = "step",
) -> Panel:
    """Return a chart with its legend.

    Args:
        title: What the curves have in common.
        curves: At least one.
        labels: A name for each in the legend; without any there is no legend.
        metrics: What each is called in metrics.csv, for its unit; empty takes the curves' names.
        seen: By curve, how many samples were seen at which step, if known.
        x_name: What the steps are.
    """
    legend = tuple(LegendEntry(label, style_class(at)) for at, label in enumerate(labels))
    number = sum(curve.num_nonfinite for curve in curves)
    known = [declared(name) for name in metrics or [curve.name for curve in curves]]
    units = {"" if metric is None else metric.unit for metric in known}
    meanings = {"" if metric is None else metric.meaning for metric in known}
    unit = units.pop() if len(units) == 1 else ""
    drawn = [
        {"label": label, "style": style_class(at), **points}
        for at, (label, points) in enumerate(
            zip(labels or [curves[0].name], chart_data(curves, seen), strict=True)
        )
    ]
    return Panel(
        title,
        meanings.pop() if len(meanings) == 1 else "",
        unit,
        legend,
        number,
        Markup(line_chart(curves, x_name=x_name, unit=unit)),
        json.dumps({"x": x_name, "unit": unit, "curves": drawn}, separators=(",", ":")),
    )


def rendered(template: str, **values: Any) -> str:
    """Return a page that needs no other file; whatever a run's files contain is escaped.

    Args:
        template: Name of the template in this package.
        values: What it shows.
    """
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    script = _source("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template(template).render(
        style=Markup(_source("report.css")),
        script=Markup(script),
        content_policy=Markup(CONTENT_POLICY.format(digest=digest)),
        **values,
    )
    return page.lstrip()


def _source(name: str) -> str:
    return files("ssl_swin.reporting").joinpath(name).read_text(encoding="utf-8")

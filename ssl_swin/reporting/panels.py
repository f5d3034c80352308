"""Charts of curves that belong together, and the page that shows them."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from ssl_swin.reporting.chart import line_chart, style_class
from ssl_swin.reporting.thinning import Curve

# The page may neither run scripts nor load anything, whatever a run's files contain.
CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class LegendEntry(NamedTuple):
    """The name of a curve, and its class in the style sheet."""

    label: str
    style: str


class Panel(NamedTuple):
    """A chart of curves that belong together."""

    title: str
    legend: tuple[LegendEntry, ...]  # empty for one curve, whose name is the title
    num_nonfinite: int
    chart: Markup


def panel_of(title: str, curves: Sequence[Curve], labels: Sequence[str] = ()) -> Panel:
    """Return a chart with its legend.

    Args:
        title: What the curves have in common.
        curves: At least one.
        labels: A name for each in the legend; without any there is no legend.
    """
    legend = tuple(LegendEntry(label, style_class(at)) for at, label in enumerate(labels))
    number = sum(curve.num_nonfinite for curve in curves)
    return Panel(title, legend, number, Markup(line_chart(curves)))


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
    page = environment.get_template(template).render(
        style=Markup(_source("report.css")), content_policy=Markup(CONTENT_POLICY), **values
    )
    return page.lstrip()


def _source(name: str) -> str:
    return files("ssl_swin.reporting").joinpath(name).read_text(encoding="utf-8")

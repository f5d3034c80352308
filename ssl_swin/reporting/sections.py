"""The charts of a run's report, by what they tell of."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ssl_swin.reporting.curves import Curves, group_curves
from ssl_swin.reporting.panels import Panel, panel_of
from ssl_swin.reporting.thinning import Curve

COUNTS_OF_FAULTS = ("data/bad_", "health/")
TITLES = {
    "train": "Learning",
    "val": "Learning",
    "test": "Learning",
    "probe": "Features",
    "rep": "Features",
    "optim": "Optimisation",
    "amp": "Optimisation",
    "health": "Optimisation",
    "perf": "Throughput and data",
    "data": "Throughput and data",
}
OTHERS = "Other metrics"


class Section(NamedTuple):
    """Charts under one heading."""

    title: str
    panels: tuple[Panel, ...]


def sections_of(curves: Curves, *, x_name: str = "step") -> tuple[Section, ...]:
    """Return the charts of a run, what it learned first, without counts of what never happened.

    Args:
        curves: What it has logged.
        x_name: What its steps are.
    """
    told = [curve for curve in curves.metrics if not _is_of_nothing(curve)]
    panels: dict[str, list[Panel]] = {}
    for title, group in group_curves(told).items():
        panel = _panel(title, group, curves.samples_seen, x_name)
        panels.setdefault(section_of(group[0].name), []).append(panel)
    return in_order(panels)


def section_of(metric: str) -> str:
    """Return the heading under which a metric stands.

    Args:
        metric: As logged.
    """
    return TITLES.get(metric.partition("/")[0], OTHERS)


def in_order(panels: Mapping[str, Sequence[Panel]]) -> tuple[Section, ...]:
    """Return sections in the order of a report.

    Args:
        panels: By heading.
    """
    titles = dict.fromkeys([*TITLES.values(), OTHERS])
    return tuple(Section(title, tuple(panels[title])) for title in titles if title in panels)


def _is_of_nothing(curve: Curve) -> bool:
    """Return whether it counts what has never happened."""
    return curve.name.startswith(COUNTS_OF_FAULTS) and not any(curve.highs or curve.values)


def _panel(title: str, curves: Sequence[Curve], seen: Curve | None, x_name: str) -> Panel:
    several = len(curves) > 1
    return panel_of(
        title if several else curves[0].name,
        curves,
        [_within(title, curve.name) for curve in curves] if several else (),
        seen=[seen] * len(curves),
        x_name=x_name,
    )


def _within(title: str, name: str) -> str:
    return name.removeprefix(f"{title}/").removesuffix(f"/{title}")

"""A line chart as an SVG string.

Colours and fonts come from the page's style sheet, by class: `chart`, `grid`, `tick`, and for the
i-th curve `curve-i`.
"""

import math
import sys
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from ssl_swin.reporting.thinning import Curve

WIDTH, HEIGHT = 360, 218  # small, so that its text can be read on a phone
LEFT, RIGHT, TOP, BOTTOM = 54, 294, 20, 176  # the plot inside; around it, ticks and last values
MAX_POINTS = 200  # per curve; more would be drawn over each other
MAX_DOTS = 24  # with so few points, each is marked
LABEL_HEIGHT = 13
NUM_STYLES = 6  # how many curves can be told apart


class _Point(NamedTuple):
    step: float
    value: float
    lowest: float
    highest: float


class _Frame(NamedTuple):
    """The data ranges that the plot shows from edge to edge."""

    first_step: float
    last_step: float
    lowest: float
    highest: float

    def x(self, step: float) -> float:
        return _scale(step, self.first_step, self.last_step, LEFT, RIGHT)

    def y(self, value: float) -> float:
        return _scale(value, self.lowest, self.highest, BOTTOM, TOP)


def line_chart(curves: Sequence[Curve], *, x_name: str = "step", unit: str = "") -> str:
    """Draws curves over steps on common axes that end where the data end.

    A curve of more than `MAX_POINTS` points is drawn as means of neighbouring points over a band
    from their minimum to their maximum. The last value itself is marked and printed.

    Args:
        curves: At least one; beyond `NUM_STYLES` their looks repeat.
        x_name: What the steps are, written under the axis.
        unit: Of the values, written over theirs.

    Returns:
        An `<svg>` element, `WIDTH` by `HEIGHT` units.
    """
    values = [value for curve in curves for value in curve.values]
    frame = _Frame(
        min(curve.steps[0] for curve in curves),
        max(curve.steps[-1] for curve in curves),
        min(values),
        max(values),
    )
    label = escape(f"{', '.join(map(_in_words, curves))}, over {x_name}")
    return "\n".join(
        [
            f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}" '
            f'data-box="{LEFT} {RIGHT} {TOP} {BOTTOM}">',
            *_axes(frame),
            f'<text class="unit" x="{LEFT}" y="{TOP - 9}">{escape(unit)}</text>',
            f'<text class="axis" x="{(LEFT + RIGHT) // 2}" y="{BOTTOM + 34}">'
            f"{escape(x_name)}</text>",
            *(_line(curve, index, frame) for index, curve in enumerate(curves)),
            *_last_values(curves, frame),
            "</svg>",
        ]
    )


def chart_data(
    curves: Sequence[Curve], seen: Sequence[Curve | None] = ()
) -> list[dict[str, list[float] | bool]]:
    """Return the points that `line_chart` draws, for what reads or draws them elsewhere.

    Args:
        curves: As there.
        seen: By curve, how many samples were seen at which step, if that is known.

    Returns:
        By curve `steps`, `values`, `lows` and `highs`, to five digits; `seen` at these steps;
        `thinned` if points are means, `dots` if each is marked.
    """
    found = []
    for curve, samples in zip(curves, seen or [None] * len(curves), strict=True):
        points = _thin(curve)
        is_thinned = len(points) < len(curve.steps)
        if is_thinned:  # the last value itself is what is printed
            last = curve.values[-1]
            points.append(_Point(curve.steps[-1], last, last, last))
        data: dict[str, list[float] | bool] = {
            "steps": [round(point.step, 1) for point in points],
            "values": [_brief(point.value) for point in points],
            "lows": [_brief(point.lowest) for point in points],
            "highs": [_brief(point.highest) for point in points],
            "thinned": is_thinned,
            "dots": len(curve.steps) <= MAX_DOTS,
        }
        if samples is not None:
            at = np.interp([point.step for point in points], samples.steps, samples.values)
            data["seen"] = [round(float(number)) for number in at]
        found.append(data)
    return found


def _brief(value: float) -> float:
    return float(f"{value:.5g}")


def _in_words(curve: Curve) -> str:
    if len(curve.values) == 1:
        return f"{curve.name} {curve.values[0]:.4g}"
    return f"{curve.name} from {curve.values[0]:.4g} to {curve.values[-1]:.4g}"


def style_class(index: int) -> str:
    """Names the style class of the curve at `index`, for a legend."""
    return f"curve-{index % NUM_STYLES}"


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Finds round numbers in [low, high], about `count` and evenly spaced.

    [low] if both agree, to rounding.
    """
    if high - low <= max(1e-12 * max(abs(low), abs(high)), sys.float_info.min):
        return [low]
    spacing = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(spacing))
    spacing = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= spacing)
    rounding = 1e-9
    first, last = math.ceil(low / spacing - rounding), math.floor(high / spacing + rounding)
    return [index * spacing for index in range(first, last + 1)]


def format_number(value: float, digits: int = 6, *, like: float | None = None) -> str:
    """Writes a number briefly (0.25, 12.5k, 3M, 1e-4), in the unit that suits `like`, if given."""
    size = abs(value if like is None else like)
    if value == 0:
        return "0"
    if size >= 1e9 or size < 1e-3:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    if size >= 1e6:
        return f"{value / 1e6:.{digits}g}M"
    if size >= 1e4:
        return f"{value / 1e3:.{digits}g}k"
    return f"{value:.{digits}g}"


def _axes(frame: _Frame) -> list[str]:
    parts = []
    for value, text in _labelled_ticks(frame.lowest, frame.highest):
        y = frame.y(value)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{RIGHT}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}">{text}</text>')
    for step, text in _labelled_ticks(frame.first_step, frame.last_step):
        if step.is_integer():
            x = frame.x(step)
            parts.append(f'<text class="tick step" x="{x:.1f}" y="{BOTTOM + 16}">{text}</text>')
    return parts


def _labelled_ticks(low: float, high: float) -> list[tuple[float, str]]:
    ticks = nice_ticks(low, high)
    if len(ticks) == 1:  # of one value, which is no round number
        return [(float(ticks[0]), format_number(ticks[0], digits=4))]
    largest = max(map(abs, ticks))
    return [(float(tick), format_number(tick, like=largest)) for tick in ticks]


def _line(curve: Curve, index: int, frame: _Frame) -> str:
    points = _thin(curve)
    xs = [frame.x(point.step) for point in points]
    path = _path(xs, [frame.y(point.value) for point in points])
    parts = [f'<path class="line" d="{path}"/>']
    if len(points) < len(curve.steps):
        top = [max(TOP, frame.y(point.highest)) for point in points]
        bottom = [min(BOTTOM, frame.y(point.lowest)) for point in reversed(points)]
        parts.insert(0, f'<path class="band" d="{_path([*xs, *reversed(xs)], top + bottom)}Z"/>')
    first_dot = 0 if len(curve.steps) <= MAX_DOTS else -1
    for step, value in zip(curve.steps[first_dot:], curve.values[first_dot:], strict=True):
        x, y = frame.x(step), frame.y(value)
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>')
    return f'<g class="curve {style_class(index)}">{"".join(parts)}</g>'


def _last_values(curves: Sequence[Curve], frame: _Frame) -> list[str]:
    heights = _spread([frame.y(curve.values[-1]) for curve in curves])
    return [
        f'<text class="last {style_class(index)}" x="{frame.x(curve.steps[-1]) + 7:.1f}" '
        f'y="{height + 4:.1f}">{format_number(curve.values[-1], digits=4)}</text>'
        for index, (curve, height) in enumerate(zip(curves, heights, strict=True))
    ]


def _spread(heights: Sequence[float]) -> list[float]:
    """Moves labels apart until none overlaps, keeping their order and the plot's bottom."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    spread = [heights[index] for index in order]
    for i in range(1, len(spread)):
        spread[i] = max(spread[i], spread[i - 1] + LABEL_HEIGHT)
    limit = float(BOTTOM)
    for i in reversed(range(len(spread))):
        spread[i] = min(spread[i], limit)
        limit = spread[i] - LABEL_HEIGHT
    return [height for _, height in sorted(zip(order, spread, strict=True))]


def _thin(curve: Curve) -> list[_Point]:
    size = math.ceil(len(curve.steps) / MAX_POINTS)
    points = []
    for start in range(0, len(curve.steps), size):
        steps, values = curve.steps[start : start + size], curve.values[start : start + size]
        lows, highs = (
            known[start : start + size] if known else values for known in (curve.lows, curve.highs)
        )
        mean_step, mean_value = sum(steps) / len(steps), sum(values) / len(values)
        points.append(_Point(mean_step, mean_value, min(lows), max(highs)))
    return points


def _path(xs: Sequence[float], ys: Sequence[float]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True))


def _scale(value: float, low: float, high: float, start: float, end: float) -> float:
    if low == high:
        return (start + end) / 2
    return start + (value - low) / (high - low) * (end - start)

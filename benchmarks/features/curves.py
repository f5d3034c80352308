r"""Draws a metric of several runs against wall time: one curve per arm, the mean of its seeds.

python -m benchmarks.features.curves curves.svg --metric probe/knn_top1/stage3 \
    "dense=0.47:runs/pretrain/a,runs/pretrain/b" "sparse=0.26:runs/pretrain/c,runs/pretrain/d"

NAME=SECONDS:RUNS. Seconds are those of a step, measured apart, since runs beside other work say
nothing about time; probes, pictures and validation are left out. A point that not every run of an
arm has reached is left out too.
"""

import argparse
import statistics
from pathlib import Path
from typing import NamedTuple

from ssl_swin.errors import UserError
from ssl_swin.reporting.chart import HEIGHT, WIDTH, line_chart, style_class
from ssl_swin.reporting.curves import read_curves
from ssl_swin.reporting.thinning import Curve

STYLE = """<style>
svg { background: #fff; } text { font: 11px sans-serif; fill: #555; }
.tick { text-anchor: end; } .step, .axis { text-anchor: middle; } .grid { stroke: #ddd; }
.line { fill: none; stroke: var(--c); stroke-width: 1.75; stroke-dasharray: var(--dash, none); }
.dot, .last, .name { fill: var(--c); } .last, .name { font-weight: 600; }
.curve-0, .curve-3 { --c: #1f5fbf; } .curve-1, .curve-4 { --c: #c2410c; }
.curve-2, .curve-5 { --c: #15803d; --dash: 6 3; }
</style>"""


class Arm(NamedTuple):
    """Runs that differ by their seed."""

    name: str
    step_s: float
    runs: tuple[Path, ...]


def parse_arm(text: str) -> Arm:
    """Reads NAME=SECONDS:RUN,RUN.

    Raises:
        UserError: If it is not of this form.
    """
    name, _, rest = text.partition("=")
    seconds, _, runs = rest.partition(":")
    try:
        return Arm(name, float(seconds), tuple(map(Path, runs.split(","))))
    except ValueError as error:
        raise UserError(f"an arm is NAME=SECONDS:RUN,RUN, got {text!r}") from error


def mean_curve(arm: Arm, metric: str) -> Curve:
    """Averages an arm's metric over its runs, over seconds.

    Raises:
        UserError: If a run has not logged it.
    """
    logged = []
    for run in arm.runs:
        curves = {curve.name: curve for curve in read_curves(run / "metrics.csv")}
        if metric not in curves:
            raise UserError(f"{run} has not logged {metric}; it has {', '.join(curves)}")
        logged.append(dict(zip(curves[metric].steps, curves[metric].values, strict=True)))
    steps = sorted(set.intersection(*map(set, logged)))
    means = [statistics.mean(values[step] for values in logged) for step in steps]
    return Curve(arm.name, [round(step * arm.step_s) for step in steps], means)


def draw(curves: list[Curve], metric: str) -> str:
    """Draws curves with their names and axes, as an SVG file's text."""
    chart = line_chart(curves)
    opening, _, body = chart.partition(">")
    opening = opening.replace(f"0 0 {WIDTH} {HEIGHT}", f"0 -24 {WIDTH} {HEIGHT + 50}")
    names = "".join(
        f'<text class="name {style_class(i)}" x="{52 + 130 * i}" y="-8">{curve.name}</text>'
        for i, curve in enumerate(curves)
    )
    axis = f'<text class="axis" x="{WIDTH / 2}" y="{HEIGHT + 20}">{metric} over seconds</text>'
    return f'{opening} xmlns="http://www.w3.org/2000/svg">\n{STYLE}\n{names}{axis}{body}\n'


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path, help="SVG file to write")
    parser.add_argument("arms", nargs="+", metavar="NAME=SECONDS:RUNS")
    parser.add_argument("--metric", required=True)
    args = parser.parse_args()
    try:
        curves = [mean_curve(parse_arm(text), args.metric) for text in args.arms]
    except (UserError, OSError) as error:
        raise SystemExit(str(error)) from error
    args.picture.write_text(draw(curves, args.metric))


if __name__ == "__main__":
    main()

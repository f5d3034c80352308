"""Several runs on one page: what differs between them, what came of each, their curves together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssl_swin.errors import UserError
from ssl_swin.files import write_atomically
from ssl_swin.plurals import counted
from ssl_swin.reporting.chart import NUM_STYLES
from ssl_swin.reporting.curves import Curves, read_with_samples
from ssl_swin.reporting.facts import (
    Result,
    read_config,
    read_provenance,
    results_of,
    settings_of,
    x_name_of,
)
from ssl_swin.reporting.page import pictures_over_steps, summary_of
from ssl_swin.reporting.panels import Panel, panel_of, rendered
from ssl_swin.reporting.sections import Section, in_order, section_of
from ssl_swin.reporting.thinning import Curve

NONE = "-"  # where a run has no such setting or metric
OF_A_RUN = ("config.yaml", "metrics.csv", "provenance.json")


class _Row(NamedTuple):
    label: str
    cells: tuple[str, ...]  # by run


class _Table(NamedTuple):
    title: str
    rows: tuple[_Row, ...]


def check_run(folder: Path) -> None:
    """Refuse a folder that is not a run's.

    Raises:
        UserError: If it is none.
    """
    if not any((folder / name).is_file() for name in OF_A_RUN):
        raise UserError(
            f"{folder} is no run: it holds none of {', '.join(OF_A_RUN)}. Give the folder of one, "
            "as runs/pretrain/NAME"
        )


def write_comparison(run_folders: Sequence[Path], page: Path) -> None:
    """Write a page on which runs stand side by side; also of runs that are not finished.

    Args:
        run_folders: Two to six, in the order of the page.
        page: The file.

    Raises:
        UserError: If there are fewer or more, one is no run or is named twice, or the page cannot
            be written.
    """
    if not 2 <= len(run_folders) <= NUM_STYLES:
        raise UserError(
            f"two to {NUM_STYLES} runs can be told apart on a page, got {len(run_folders)}"
        )
    for folder in run_folders:
        check_run(folder)
    if len({folder.resolve() for folder in run_folders}) < len(run_folders):
        raise UserError("one of the runs is named twice: name each once")
    logged = [_logged(folder) for folder in run_folders]
    curves = [{curve.name: curve for curve in own.metrics} for own in logged]
    configs = [read_config(folder) for folder in run_folders]
    x_names = [x_name_of(config) for config in configs]
    summaries = [
        summary_of(read_provenance(folder), list(own.values()), x_name) or NONE
        for folder, own, x_name in zip(run_folders, curves, x_names, strict=True)
    ]
    tables = (
        _Table("Runs", (_Row("state", tuple(summaries)),)),
        _Table("What differs", _different_settings(configs)),
        _Table("Results", _results(curves, x_names)),
    )
    names = _names(run_folders)
    text = rendered(
        "comparison.html.j2",
        title=" / ".join(names),
        summary=f"{counted(len(names), 'run')} side by side",
        names=names,
        tables=[table for table in tables if table.rows],
        sections=_sections(names, curves, [own.samples_seen for own in logged], x_names),
        x_names=list(dict.fromkeys(x_names)),
        has_samples=any(own.samples_seen is not None for own in logged),
        reconstructions=[
            picture._replace(caption=f"{name}, {picture.caption}")
            for name, folder in zip(names, run_folders, strict=True)
            for picture in pictures_over_steps(folder / "reconstructions", most=1)
        ],
    )
    write_atomically(page, text)


def _logged(folder: Path) -> Curves:
    metrics = folder / "metrics.csv"
    return read_with_samples(metrics) if metrics.is_file() else Curves([], None)


def _names(folders: Sequence[Path]) -> list[str]:
    """Name runs by as many of the last folders of their paths as tell them apart."""
    paths = [folder.resolve().parts for folder in folders]
    for number in range(1, max(map(len, paths)) + 1):
        names = ["/".join(path[-number:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names


def _different_settings(configs: Sequence[Mapping[str, Any]]) -> tuple[_Row, ...]:
    settings = [settings_of(config) for config in configs]
    lies_in = [str(config.get("run_dir", "")) for config in configs]
    keys = dict.fromkeys(key for own in settings for key in own)
    rows = (_Row(key, tuple(own.get(key, NONE) for own in settings)) for key in keys)
    return tuple(row for row in rows if _differs(row, lies_in))


def _differs(row: _Row, folders: Sequence[str]) -> bool:
    """Return whether a setting differs otherwise than by the folders in which the runs lie."""
    return len({cell.replace(at, "") for cell, at in zip(row.cells, folders, strict=True)}) > 1


def _results(curves: Sequence[Mapping[str, Curve]], x_names: Sequence[str]) -> tuple[_Row, ...]:
    results = [{each.name: each for each in results_of(list(own.values()))} for own in curves]
    names = dict.fromkeys(name for own in results for name in own)
    return tuple(
        _Row(name, tuple(_value(own.get(name), x) for own, x in zip(results, x_names, strict=True)))
        for name in names
    )


def _value(result: Result | None, x_name: str) -> str:
    if result is None:
        return NONE
    if result.best == result.last:
        return f"{result.last:.4g}"
    return f"{result.last:.4g}, best {result.best:.4g} at {x_name} {result.best_step:,}"


def _sections(
    names: Sequence[str],
    curves: Sequence[Mapping[str, Curve]],
    seen: Sequence[Curve | None],
    x_names: Sequence[str],
) -> tuple[Section, ...]:
    """Return a chart for each metric that a run has, losses first."""
    metrics = dict.fromkeys(metric for own in curves for metric in own)
    panels: dict[str, list[Panel]] = {}
    for metric in sorted(metrics, key=lambda name: not name.endswith("/loss")):
        runs = [at for at, own in enumerate(curves) if metric in own]
        panel = panel_of(
            metric,
            [curves[at][metric]._replace(name=names[at]) for at in runs],
            [names[at] for at in runs],
            metrics=[metric] * len(runs),
            seen=[seen[at] for at in runs],
            x_name=x_names[runs[0]],
        )
        panels.setdefault(section_of(metric), []).append(panel)
    return in_order(panels)

"""What went on in a run besides learning: warnings, restarts, where it ran, and what to do next."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_swin.plurals import counted
from ssl_swin.reporting.facts import Fact
from ssl_swin.reporting.thinning import Curve
from ssl_swin.runs.side_failures import SideFailures

LARGEST_WAIT = 0.05  # share of the time that steps wait for data, from which it is told


def warnings_of(run_folder: Path, curves: Sequence[Curve]) -> list[str]:
    """Return what a reader should know before trusting the curves, one sentence each.

    Args:
        run_folder: Folder of the run.
        curves: Its metrics.
    """
    by_name = {curve.name: curve for curve in curves}
    found = []
    if skipped := _last(by_name, "health/skipped_steps"):
        found.append(f"{counted(int(skipped), 'step')} left out: not finite")
    if bad := _last(by_name, "data/bad_samples"):
        found.append(f"{counted(int(bad), 'image')} could not be read")
    if collapse := by_name.get("health/collapse"):
        raised = [step for step, high in _highs(collapse) if high > 0]
        if raised:
            found.append(f"the alarm for a collapse was on, first about step {raised[0]:,}")
    found += [
        f"{curve.name}: {counted(curve.num_nonfinite, 'value')} not finite"
        for curve in curves
        if curve.num_nonfinite
    ]
    waiting = by_name.get("perf/data_wait_frac")
    if waiting and (share := sum(waiting.values) / len(waiting.values)) > LARGEST_WAIT:
        found.append(f"steps waited for data {100 * share:.0f} % of the time")
    if failed := SideFailures(run_folder).summary():
        found.append(failed)
    return found


def starts_of(provenance: Mapping[str, Any]) -> str:
    """Return how often a run was started, as far as is known.

    Args:
        provenance: Where it comes from.
    """
    starts = [str(start)[:16].replace("T", " ") for start in _list(provenance.get("starts"))]
    if not starts:
        return ""
    if len(starts) == 1:
        return f"started once, {starts[0]} UTC"
    return f"started {len(starts)} times, first {starts[0]}, last {starts[-1]} UTC"


def environment_of(provenance: Mapping[str, Any]) -> list[Fact]:
    """Return where a run ran and on what.

    Args:
        provenance: Where it comes from.
    """
    packages = provenance.get("packages")
    data = provenance.get("data")
    facts = [
        Fact("code", str(provenance.get("git") or "")),
        Fact("Python", str(provenance.get("python") or "")),
        Fact("packages", _pairs(packages)),
        Fact("machine", str(provenance.get("machine") or "")),
        Fact("GPUs", ", ".join(map(str, _list(provenance.get("gpus"))))),
        Fact("compute threads", str(provenance.get("cpu_threads") or "")),
        Fact("fingerprint of the data", _pairs(data)),
    ]
    return [fact for fact in facts if fact.text]


def next_steps_of(provenance: Mapping[str, Any]) -> list[str]:
    """Return what the run said at its end that one can do next.

    Args:
        provenance: Where it comes from.
    """
    return [str(line) for line in _list(provenance.get("next"))]


def _last(curves: Mapping[str, Curve], name: str) -> float:
    return curves[name].values[-1] if name in curves else 0.0


def _highs(curve: Curve) -> list[tuple[int, float]]:
    return list(zip(curve.steps, curve.highs or curve.values, strict=True))


def _pairs(found: Any) -> str:
    if not isinstance(found, Mapping):
        return ""
    return ", ".join(f"{name} {value}" for name, value in found.items())


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []

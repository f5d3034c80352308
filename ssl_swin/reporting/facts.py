"""What was run and what came of it, from the files that a run has left: the head of its report."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssl_swin.errors import UserError
from ssl_swin.plain_yaml import read_plain_yaml
from ssl_swin.reporting.thinning import Curve
from ssl_swin.runs.dotted_names import by_dotted_name
from ssl_swin.runs.metrics import is_lower_better

TARGET = "_target_"
AGAINST_THE_MEAN = "val/loss_vs_mean"
RESULTS = ("val/", "test/", "probe/")
_OF_A_MODEL = ("version", "img_size_px", "patch_size_px", "embed_dim", "depths", "window_size")
_OF_A_STAGE = re.compile(r"/stage\d+$")
_NOT_SETTINGS = ("name", "run_dir", "resume", "plan", "logger")


class Fact(NamedTuple):
    """A line of the head."""

    label: str
    text: str


class Result(NamedTuple):
    """The last and the best value of one metric."""

    name: str
    last: float
    best: float
    best_step: int


def read_config(run_folder: Path) -> dict[str, Any]:
    """Return the configuration of a run; nothing if there is none that can be read."""
    try:
        return read_plain_yaml(run_folder / "config.yaml")
    except (OSError, UserError):
        return {}


def read_provenance(run_folder: Path) -> dict[str, Any]:
    """Return where a run comes from; nothing if that cannot be read."""
    try:
        found = json.loads((run_folder / "provenance.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def facts_of(run_folder: Path, curves: Sequence[Curve]) -> list[Fact]:
    """Return what a reader wants to know first; what the run has not left is left out.

    Args:
        run_folder: Folder of the run.
        curves: Its metrics.
    """
    config, provenance = read_config(run_folder), read_provenance(run_folder)
    facts = [
        Fact("trained", _what_was_trained(config)),
        Fact("data", str(_at(config, "data", "root") or "")),
        Fact("recipe", _recipe(config)),
        Fact("results", _result_line(results_of(curves), x_name_of(config))),
        Fact("verdict", _verdict(curves)),
        Fact("machine", _machine(provenance)),
        Fact("command", " ".join(map(str, _list(provenance.get("command"))))),
    ]
    return [fact for fact in facts if fact.text]


def x_name_of(config: Mapping[str, Any]) -> str:
    """Return what a run's metrics are logged over: a linear probe's over the stages.

    Args:
        config: The configuration of a run.
    """
    return "stage" if "poolings" in config and "linear" in config else "step"


def results_of(curves: Sequence[Curve]) -> list[Result]:
    """Return the values of what was measured, not of what was trained on.

    Args:
        curves: Metrics of a run.
    """
    return [_result(curve) for curve in curves if curve.name.startswith(RESULTS)]


def settings_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Return all settings by dotted key, without those that only say where a run lies.

    Args:
        config: The configuration of a run.
    """
    told = {key: value for key, value in config.items() if key not in _NOT_SETTINGS}
    leaves = by_dotted_name(told).items()
    return {key: "null" if value is None else str(value) for key, value in leaves}


def _result(curve: Curve) -> Result:
    is_lower = is_lower_better(curve.name)
    extremes = (curve.lows if is_lower else curve.highs) or curve.values
    best = (min if is_lower else max)(extremes)
    return Result(curve.name, curve.values[-1], best, curve.steps[extremes.index(best)])


def _result_line(results: Sequence[Result], x_name: str) -> str:
    """Tell what was measured: of a metric of every stage, only the stage that is best at the end.

    A linear probe logs what it chose under three names, and the best of a stage and pooling, which
    its charts show, under four.
    """
    if x_name == "stage":
        chosen = [each for each in results if each.name.count("/") == 2]
        return ", ".join(
            f"{each.name} {each.last:.4g} at stage {each.best_step}" for each in chosen
        )
    told: dict[str, list[Result]] = {}
    for result in results:
        told.setdefault(_OF_A_STAGE.sub("", result.name), []).append(result)
    return ", ".join(_in_words(_best_at_the_end(group)) for group in told.values())


def _best_at_the_end(results: Sequence[Result]) -> Result:
    best = min if is_lower_better(results[0].name) else max
    return best(results, key=lambda result: result.last)


def _in_words(result: Result) -> str:
    last = f"{result.name} {result.last:.4g}"
    if result.best == result.last:
        return last
    return f"{last} (best {result.best:.4g} at step {result.best_step:,})"


def _verdict(curves: Sequence[Curve]) -> str:
    """Say whether masked patches of held-out images are predicted better than by the mean."""
    found = next((curve for curve in curves if curve.name == AGAINST_THE_MEAN), None)
    if found is None:
        return ""
    gain = 100 * (1 - found.values[-1])
    if gain <= 0:
        return "held-out images are predicted no better than by the mean"
    return f"held-out images are predicted {gain:.1f} % better than by the mean"


def _what_was_trained(config: Mapping[str, Any]) -> str:
    parts = [
        str(_at(config, group, TARGET)).rpartition(".")[2]
        for group in ("objective", "task")
        if _at(config, group, TARGET)
    ]
    if (ratio := _at(config, "objective", "mask_ratio")) is not None:
        parts.append(f"mask ratio {ratio}")
    model = config.get("model")
    if isinstance(model, Mapping):
        parts += [f"{key} {model[key]}" for key in _OF_A_MODEL if model.get(key) is not None]
    if config.get("backbone") is not None:
        parts.append(f"from {config['backbone']}")
    return ", ".join(parts)


def _recipe(config: Mapping[str, Any]) -> str:
    found = {
        "epochs": _at(config, "trainer", "max_epochs"),
        "batch size per device": config.get("batch_size"),
        "base learning rate": _at(config, "optim", "base_lr"),
        "weight decay": _at(config, "optim", "weight_decay"),
        "precision": _at(config, "trainer", "precision"),
        "seed": config.get("seed"),
    }
    return ", ".join(f"{label} {value}" for label, value in found.items() if value is not None)


def _machine(provenance: Mapping[str, Any]) -> str:
    packages = provenance.get("packages")
    torch = packages.get("torch") if isinstance(packages, Mapping) else None
    gpus = _list(provenance.get("gpus"))
    threads = provenance.get("cpu_threads")
    parts = [
        provenance.get("machine"),
        ", ".join(map(str, gpus)) or (f"CPU, compute threads: {threads}" if threads else ""),
        f"torch {torch}" if torch else "",
        provenance.get("started"),
    ]
    return ", ".join(str(part) for part in parts if part)


def _at(config: Mapping[str, Any], group: str, key: str) -> Any:
    found = config.get(group)
    return found.get(key) if isinstance(found, Mapping) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []

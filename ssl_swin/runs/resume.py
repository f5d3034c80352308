"""Whether a run may go on, and from where."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from ssl_swin.errors import UserError
from ssl_swin.quoting import override, shell_line
from ssl_swin.runs.folder import RunFolder
from ssl_swin.runs.names import shortened
from ssl_swin.runs.renamed import up_to_date

Difference = tuple[str, Any, Any]  # dotted key, value of the run, value asked for now
MOST_SHOWN = 3  # differences, a line each
# Groups and settings that another run may change and still start at this one's last step.
OF_A_RECIPE = ("trainer", "schedule", "optim", "augment", "compile", "ema_decay", "name", "run_dir")


def checkpoint_to_resume(
    folder: RunFolder, resume: str, config: Mapping[str, Any], may_change: Iterable[str]
) -> Path | None:
    """Decide where a run starts from, before anything is written.

    Args:
        folder: Folder of the run.
        resume: "auto" continues the folder's run if it has a checkpoint; "never" refuses a folder
            that holds a run; anything else is the path of a checkpoint.
        config: The resolved configuration asked for now.
        may_change: Dotted keys of settings and groups that may differ from the run's own.

    Returns:
        The checkpoint to continue, or None to start afresh.

    Raises:
        UserError: If the folder holds a run that must not be touched, or the path is wrong.
    """
    explicit = None if resume in ("auto", "never") else _existing_checkpoint(Path(resume))
    if not folder.has_results():
        return explicit
    if resume == "never":
        raise UserError(f"{folder.path} already holds a run and resume=never: choose another name=")
    different = _differences(up_to_date(_read_yaml(folder.config)), config, may_change)
    if different:
        raise UserError(_refusal(folder, config, different))
    if explicit is not None:
        return explicit
    return folder.last_checkpoint if folder.last_checkpoint.exists() else None


def _refusal(folder: RunFolder, config: Mapping[str, Any], different: Sequence[Difference]) -> str:
    """Return what is said of a folder that holds a run with another configuration."""
    shown = MOST_SHOWN if len(different) <= MOST_SHOWN else MOST_SHOWN - 1
    lines = [f"{folder.path} already holds a run with another configuration:"]
    lines += [f"  {key}: was {old!r}, now {new!r}" for key, old, new in different[:shown]]
    if rest := [key for key, _, _ in different[shown:]]:
        lines.append(f"  and {len(rest)} more: {shortened(', '.join(rest), 200)}")
    lines.append("set these back to continue that run, or choose another name=")
    options = _options_to_go_on(folder, config)
    if options and all(_belongs_to(key, OF_A_RECIPE) for key, _, _ in different):
        lines.append(
            f"to go on from its last step with these settings, add: {shell_line(options)} "
            "(the learning rate is then that of the new schedule at this step)"
        )
    return "\n".join(lines)


def _options_to_go_on(folder: RunFolder, config: Mapping[str, Any]) -> list[str]:
    """Return options by which another run starts at the end of this one; none if nothing can."""
    path = folder.path
    if not folder.last_checkpoint.exists() or path.parent.name.endswith("_sweep"):
        return []
    numbered = (path.with_name(f"{path.name}_{number}") for number in count(2))
    new = next(other for other in numbered if not other.exists())
    place = ("name", new.name) if path.name == str(config.get("name")) else ("run_dir", new)
    return [override(*place), override("resume", folder.last_checkpoint)]


def _existing_checkpoint(path: Path) -> Path:
    if not path.is_file():
        raise UserError(f"resume={path}: no such checkpoint (use auto, never, or the path of one)")
    return path


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise UserError(f"{path} is damaged: it has YAML aliases, which no run writes")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        problem = " ".join(str(error).split())
        raise UserError(f"{path} is damaged: {shortened(problem, 300)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it holds no configuration")
    return content


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any], may_change: Iterable[str]
) -> list[Difference]:
    """Return the values that differ and may not."""
    before, after = _flatten(old), _flatten(new)
    keys = sorted(before.keys() | after.keys())
    changed = [key for key in keys if before.get(key) != after.get(key)]
    free = tuple(may_change)
    return [(key, before.get(key), after.get(key)) for key in changed if not _belongs_to(key, free)]


def _belongs_to(key: str, keys: Iterable[str]) -> bool:
    return any(key == each or key.startswith(f"{each}.") for each in keys)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat

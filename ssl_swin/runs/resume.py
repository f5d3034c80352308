"""Whether a run may go on, and from where."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ssl_swin.errors import UserError
from ssl_swin.runs.folder import RunFolder
from ssl_swin.runs.renamed import up_to_date


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
        raise UserError(
            f"{folder.path} already holds a run with another configuration:\n"
            + "\n".join(f"  {key}: was {old!r}, now {new!r}" for key, old, new in different)
            + "\nchoose another name=, or set these back to continue that run"
        )
    if explicit is not None:
        return explicit
    return folder.last_checkpoint if folder.last_checkpoint.exists() else None


def _existing_checkpoint(path: Path) -> Path:
    if not path.is_file():
        raise UserError(f"resume={path}: no such checkpoint (use auto, never, or the path of one)")
    return path


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it holds no configuration")
    return content


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any], may_change: Iterable[str]
) -> list[tuple[str, Any, Any]]:
    """Return (dotted key, old, new) of the values that differ and may not."""
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

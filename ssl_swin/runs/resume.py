"""Whether a run may go on, and from where."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from ssl_swin.errors import UserError
from ssl_swin.plain_yaml import read_plain_yaml
from ssl_swin.quoting import override, shell_line
from ssl_swin.runs.checkpoint_files import read_facts
from ssl_swin.runs.dotted_names import by_dotted_name
from ssl_swin.runs.folder import RunFolder
from ssl_swin.runs.names import shortened
from ssl_swin.runs.renamed import up_to_date
from ssl_swin.runs.whole_checkpoints import Found, check_given, newest_whole

Difference = tuple[str, Any, Any]  # dotted key, value of the run, value asked for now
MOST_SHOWN = 3  # differences, a line each
# Groups and settings that another run may change and still start at this one's last step.
OF_A_RECIPE = ("trainer", "schedule", "optim", "augment", "compile", "ema_decay", "name", "run_dir")


@dataclass(frozen=True)
class Resumption:
    """Where a run starts from.

    Attributes:
        checkpoint: To continue from; None starts afresh.
        identity: Of the run, as its checkpoint says; empty if it does not.
        notes: Lines for the user.
        damaged: Files to set aside before anything is written.
    """

    checkpoint: Path | None = None
    identity: str = ""
    notes: tuple[str, ...] = ()
    damaged: tuple[Path, ...] = ()


def checkpoint_to_resume(
    folder: RunFolder, resume: str, config: Mapping[str, Any], may_change: Iterable[str]
) -> Resumption:
    """Decide where a run starts from, before anything is written.

    Args:
        folder: Folder of the run.
        resume: "auto" continues the folder's run if it has a checkpoint; "never" refuses a folder
            that holds a run; anything else is the path of a checkpoint. A run that has gone on from
            there, and is started in the same way once more, continues from its own checkpoint.
        config: The resolved configuration asked for now.
        may_change: Dotted keys of settings and groups that may differ from the run's own.

    Returns:
        The checkpoint to continue, read through, and what is to be said of it.

    Raises:
        UserError: If the folder holds a run that must not be touched, or that cannot be continued,
            or the path is wrong.
    """
    gone_on = _gone_on(folder, resume)
    is_path = resume not in ("auto", "never") and gone_on is None
    explicit = check_given(Path(resume)) if is_path else None
    if not folder.has_results():
        return Resumption(explicit)
    if resume == "never":
        raise UserError(f"{folder.path} already holds a run and resume=never: choose another name=")
    before, problem = _own_config(folder)
    different = [] if before is None else _differences(up_to_date(before), config, may_change)
    try:
        found = gone_on or (Found(explicit) if explicit is not None else newest_whole(folder))
    except UserError as error:
        raise UserError(_refusal(folder, config, different)) if different else error from None
    notes, damaged = list(found.notes), list(found.damaged)
    if before is None or different:
        told = _told_config(folder, config, may_change, found, different)
        if told is None and explicit is None:
            raise UserError(f"{problem}, and {_ways_out(folder, found.checkpoint)}")
        problem = problem or f"{folder.config} is not the configuration of {found.checkpoint}"
        source = "of its checkpoint" if told is not None else "asked for now"
        notes.append(f"note: {problem}; the configuration {source} is taken")
        damaged += [folder.config] if folder.config.exists() else []
    return Resumption(found.checkpoint, found.identity, tuple(notes), tuple(damaged))


def _told_config(
    folder: RunFolder,
    config: Mapping[str, Any],
    may_change: Iterable[str],
    found: Found,
    different: Sequence[Difference],
) -> dict[str, Any] | None:
    """Return the configuration that a checkpoint carries, where config.yaml is of no use.

    Args:
        folder: Of the run.
        config: Asked for now.
        may_change: What may differ.
        found: The checkpoint.
        different: In what config.yaml differs from what is asked for; nothing if it is damaged. A
            checkpoint of the folder that does not differ says that the file is what is wrong.

    Raises:
        UserError: If the run has another configuration.
    """
    told = read_facts(found.checkpoint).config if found.checkpoint is not None else None
    is_own = found.checkpoint is not None and found.checkpoint.parent == folder.checkpoints
    if different and (told is None or not is_own):
        raise UserError(_refusal(folder, config, different))
    told_differs = [] if told is None else _differences(up_to_date(told), config, may_change)
    if told_differs:
        raise UserError(_refusal(folder, config, different or told_differs))
    return told


def _gone_on(folder: RunFolder, resume: str) -> Found | None:
    """Return the newest checkpoint that a run has written since it was started from another one.

    A scheduler that starts a job again repeats its whole command, `resume=PATH` included.
    """
    since = folder.started_from(resume)
    if resume in ("auto", "never") or since is None:
        return None
    found = newest_whole(folder)
    if found.checkpoint is None or found.written < since:
        return None
    if found.checkpoint == Path(resume):
        return found
    note = (
        f"note: {folder.path} has gone on since it was started with {override('resume', resume)}, "
        "so it continues from its own checkpoint; another name= starts from there again"
    )
    return replace(found, notes=(note, *found.notes))


def _ways_out(folder: RunFolder, checkpoint: Path | None) -> str:
    """Return what can be done where nothing says how a run was configured."""
    if checkpoint is None:
        return "no checkpoint tells the configuration: choose another name="
    return (
        f"{checkpoint} is of a version that did not write it into checkpoints: put the file back, "
        f"or take the settings of this command for those of the run by "
        f"{override('resume', checkpoint)}, or choose another name="
    )


def _own_config(folder: RunFolder) -> tuple[dict[str, Any] | None, str]:
    """Return the configuration in a run's folder, or what is wrong with it."""
    if not folder.config.exists():
        return None, f"{folder.path} holds a run without its config.yaml"
    try:
        return read_plain_yaml(folder.config), ""
    except UserError as error:
        return None, str(error)


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


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any], may_change: Iterable[str]
) -> list[Difference]:
    """Return the values that differ and may not."""
    before, after = by_dotted_name(old), by_dotted_name(new)
    keys = sorted(before.keys() | after.keys())
    changed = [key for key in keys if before.get(key) != after.get(key)]
    free = tuple(may_change)
    return [(key, before.get(key), after.get(key)) for key in changed if not _belongs_to(key, free)]


def _belongs_to(key: str, keys: Iterable[str]) -> bool:
    return any(key == each or key.startswith(f"{each}.") for each in keys)

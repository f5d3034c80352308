"""Which checkpoint of a run is whole: damaged and foreign ones are found before training."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ssl_swin.errors import UserError
from ssl_swin.runs.catalogue import Catalogue, Damaged, Entry
from ssl_swin.runs.checkpoint_files import read_facts
from ssl_swin.runs.folder import RunFolder

MOST_NAMED = 3


@dataclass(frozen=True)
class Found:
    """A checkpoint to go on from.

    Attributes:
        checkpoint: None where the folder holds none at all.
        identity: Of its run, if it says so.
        notes: Lines for the user.
        damaged: Files that are no state of this run.
        written: When the checkpoint was, in seconds since 1970.
    """

    checkpoint: Path | None = None
    identity: str = ""
    notes: tuple[str, ...] = ()
    damaged: tuple[Path, ...] = ()
    written: float = 0.0


def newest_whole(folder: RunFolder) -> Found:
    """Return the last state of a run, or the newest one before it that is whole.

    Args:
        folder: Of the run.

    Raises:
        UserError: If there are checkpoints and none can be used.
    """
    catalogue, last = Catalogue(folder.checkpoints), folder.last_checkpoint
    if not catalogue.checkpoints():
        return Found()
    problems: list[str] = [] if last.exists() else [f"there is no {last}"]
    damaged: list[Path] = []
    others: set[str] = set()  # other runs whose whole checkpoints are there
    for name in _in_order(catalogue, last.name):
        path = folder.checkpoints / name
        try:
            entry = catalogue.verified(name)
            if _is_of_another_run(folder, entry):
                others.add(entry.run)
                raise Damaged(f"{path} {_of_another_run(folder, entry)}")
        except Damaged as error:
            problems.append(str(error))
            damaged.append(path)
            continue
        if entry.healthy:
            notes = _notes(problems, entry)
            damaged += [folder.identity_file] if _is_cut(folder.known_identity(), entry) else []
            return Found(path, entry.run, notes, tuple(damaged), entry.time)
        problems.append(f"{path} {_why_unhealthy(path)}")
    told = "\n".join(f"  {problem}" for problem in problems[:MOST_NAMED])
    raise UserError(
        f"no checkpoint of {folder.path} can be continued:\n{told}\n{_ways_out(folder, others)}"
    )


def check_given(path: Path) -> Path:
    """Return the checkpoint that `resume=` names if it can be continued.

    Args:
        path: As given.

    Raises:
        UserError: If it cannot, with what lies beside it and can.
    """
    if not path.exists():
        raise UserError(f"resume={path}: no such checkpoint (use auto, never, or the path of one)")
    catalogue = Catalogue(path.parent)
    try:
        catalogue.verified(path.name)
        problem = read_facts(path).problem
        problem = problem and f"{path} {problem}"
    except UserError as error:
        problem = str(error)
    if problem:
        raise UserError(f"resume={path}: {problem}{_others(catalogue, path)}")
    return path


def _in_order(catalogue: Catalogue, last: str) -> Iterator[str]:
    """Yield names: first the last state, then the others by step."""
    if (catalogue.folder / last).exists():
        yield last
    for entry in catalogue.by_step():
        if entry.name != last:
            yield entry.name


def _is_of_another_run(folder: RunFolder, entry: Entry) -> bool:
    own = folder.known_identity()
    return bool(own and entry.run and own != entry.run and not _is_cut(own, entry))


def _of_another_run(folder: RunFolder, entry: Entry) -> str:
    return f"is of another run ({entry.run}, this one is {folder.known_identity()})"


def _ways_out(folder: RunFolder, others: set[str]) -> str:
    """Return what can be done where no checkpoint of a folder can be used.

    Args:
        folder: Of the run.
        others: Ids of other runs whose checkpoints it holds; one alone may be its own.
    """
    if len(others) == 1:
        (other,) = others
        return (
            f"if they are this run's own, {folder.identity_file} is what is wrong: remove that "
            f"file, and the same command continues run {other}; if not, put a good copy in their "
            "place, or choose another name="
        )
    return "put a good copy in its place, or choose another name="


def _is_cut(own: str, entry: Entry) -> bool:
    """Return whether the folder's id is the beginning of its checkpoint's: a file that was cut."""
    return own not in ("", entry.run) and entry.run.startswith(own)


def _notes(problems: list[str], entry: Entry) -> tuple[str, ...]:
    if not problems:
        return ()
    return (f"note: {problems[0]}; going on from {entry.name}, step {entry.step:,}",)


def _why_unhealthy(path: Path) -> str:
    return read_facts(path).problem or "is of a time when training had gone wrong"


def _others(catalogue: Catalogue, path: Path) -> str:
    good: list[str] = []
    for entry in catalogue.by_step():
        if entry.name != path.name and entry.healthy and len(good) < MOST_NAMED:
            good.append(f"{os.path.join(catalogue.folder, entry.name)} (step {entry.step:,})")
    return f"; whole are {', '.join(good)}" if good else ""

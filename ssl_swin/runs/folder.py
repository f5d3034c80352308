"""A run's folder: what it was asked to do, and where its results lie."""

import json
import os
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ssl_swin.files import make_folder, remove_leftovers, set_aside, write_atomically
from ssl_swin.runs.place import Place
from ssl_swin.runs.provenance import provenance
from ssl_swin.runs.side_failures import FILE as ERRORS

FACTS = ("git", "data", "python", "packages", "machine", "gpus")
MEASURED = "measured"  # in provenance.json


class RunFolder:
    """The folder `runs/JOB/NAME` and the files that every job puts there."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.place = Place(self.path)  # from `start` on
        self._opened = time.time()
        self.config = self.path / "config.yaml"
        self.provenance = self.path / "provenance.json"
        self.metrics = self.path / "metrics.csv"
        self.checkpoints = self.path / "checkpoints"
        self.last_checkpoint = self.checkpoints / "last.ckpt"
        self.backbone = self.path / "backbone"
        self.results = self.path / "results.json"
        self.identity_file = self.path / "run_id"

    @property
    def address(self) -> str:
        """The path, so written that `backbone=` takes it for nothing but a path."""
        path = str(self.path)
        return f"./{path}" if path == "none" or re.match(r"[\w-]+:", path) else path

    def facts(self) -> dict[str, Any]:
        """Return what its provenance says of code, data and machine, and not of one start."""
        record = self._record() or {}
        return {key: record[key] for key in FACTS if key in record}

    def has_results(self) -> bool:
        """Return False where nothing has to be kept, as after a failure before a checkpoint."""
        results = (*self.checkpoints.glob("*.ckpt"), self.backbone, self.results)
        return any(os.path.lexists(path) for path in results)

    def identity(self) -> str:
        """Return this run's own short id, the same whenever the run is continued."""
        return self.known_identity() or self._identify("")

    def known_identity(self) -> str:
        """Return the run's id as its file says; empty if that is missing or damaged."""
        try:
            text = self.identity_file.read_text()
        except (OSError, UnicodeDecodeError):
            return ""
        return text if re.fullmatch(r"[\w-]{8,64}", text) else ""

    def _identify(self, identity: str) -> str:
        """Write the run's id down: that of its checkpoint, or a new one."""
        identity = identity or uuid.uuid4().hex[:10]
        write_atomically(self.identity_file, identity)
        return identity

    def start(
        self,
        config: Mapping[str, Any],
        facts: Mapping[str, Any],
        *,
        resumed: bool = False,
        identity: str = "",
        damaged: Iterable[Path] = (),
    ) -> list[str]:
        """Create the folder and write down what is about to run.

        What a killed process was writing before this object was made is removed, and damaged files
        are set aside.

        Args:
            config: The resolved configuration.
            facts: What else to record, such as the fingerprint of the data.
            resumed: Continues a run, so that its earlier time counts too.
            identity: Of the run, if its own file is lost; empty makes a new one.
            damaged: Files to set aside.

        Returns:
            Lines for the user on what was set aside.
        """
        make_folder(self.path)
        self.place.note()
        if not resumed:
            (self.path / ERRORS).unlink(missing_ok=True)
        remove_leftovers(self.path, before=self._opened)
        beside = [] if self._record() is not None else [self.provenance]
        if not self.known_identity():
            beside += [self.identity_file] if self.identity_file.exists() else []
        notes = [_set_aside(path) for path in [*damaged, *beside] if os.path.lexists(path)]
        if not self.known_identity():
            self._identify(identity)
        write_atomically(self.config, yaml.safe_dump(dict(config), sort_keys=False))
        earlier_s = self._recorded_s() if resumed else 0.0
        since = {"from": self._started_from(str(config.get("resume", "auto")))}
        before = (self._record() or {}) if resumed else {}
        record = provenance({**facts, **since, "earlier_s": earlier_s})
        starts = before.get("starts")
        record["starts"] = [*(starts if isinstance(starts, list) else []), record["started"]]
        if MEASURED in before:
            record[MEASURED] = before[MEASURED]
        write_atomically(self.provenance, json.dumps(record, indent=2) + "\n")
        return notes

    def measured(self) -> str:
        """Return what was measured last when this run was finished before; empty if it was not."""
        found = (self._record() or {}).get(MEASURED)
        return found if isinstance(found, str) else ""

    def finish(
        self,
        seconds: float,
        status: str = "finished",
        next_steps: Iterable[str] = (),
        measured: str = "",
    ) -> float:
        """Record that the run ended after this many seconds; return all its recorded seconds.

        The time of a session that was killed is not known and does not count.

        Args:
            seconds: Since this start.
            status: How it ended.
            next_steps: What to do now, for whoever reads its report.
            measured: What was measured last, in one phrase.
        """
        record = self._record() or {}
        total_s = round(_seconds(record, "earlier_s") + seconds, 1)
        record |= {"status": status, "duration_s": total_s, "next": list(next_steps)}
        record |= {MEASURED: measured} if measured else {}
        write_atomically(self.provenance, json.dumps(record, indent=2) + "\n")
        return total_s

    def started_from(self, resume: str) -> float | None:
        """Return when this run was first started with this `resume=`, at a stretch; None if not.

        Args:
            resume: As given.
        """
        before = (self._record() or {}).get("from")
        if not isinstance(before, dict) or before.get("resume") != resume:
            return None
        return _seconds(before, "since")

    def _started_from(self, resume: str) -> dict[str, Any]:
        since = self.started_from(resume)
        return {"resume": resume, "since": time.time() if since is None else since}

    def _recorded_s(self) -> float:
        record = self._record() or {}
        return _seconds(record, "duration_s" if "duration_s" in record else "earlier_s")

    def _record(self) -> dict[str, Any] | None:
        """Return provenance.json; nothing if there is none, None if it is damaged."""
        try:
            record = json.loads(self.provenance.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError):
            return None
        return record if isinstance(record, dict) else None


def _seconds(record: Mapping[str, Any], key: str) -> float:
    value = record.get(key, 0.0)
    return float(value) if isinstance(value, int | float) else 0.0


def _set_aside(path: Path) -> str:
    return f"note: {path} is damaged or no file of this run: now {set_aside(path).name}"

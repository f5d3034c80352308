"""A run's folder: what it was asked to do, and where its results lie."""

import json
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ssl_swin.files import make_folder, write_atomically
from ssl_swin.runs.provenance import provenance
from ssl_swin.runs.side_failures import FILE as ERRORS


class RunFolder:
    """The folder `runs/JOB/NAME` and the files that every job puts there."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.provenance = self.path / "provenance.json"
        self.metrics = self.path / "metrics.csv"
        self.checkpoints = self.path / "checkpoints"
        self.last_checkpoint = self.checkpoints / "last.ckpt"
        self.backbone = self.path / "backbone"
        self.results = self.path / "results.json"
        self._identity = self.path / "run_id"

    @property
    def address(self) -> str:
        """The path, so written that `backbone=` takes it for nothing but a path."""
        path = str(self.path)
        return f"./{path}" if path == "none" or re.match(r"[\w-]+:", path) else path

    def has_results(self) -> bool:
        """Return False where nothing has to be kept, as after a failure before a checkpoint."""
        results = (*self.checkpoints.glob("*.ckpt"), self.backbone, self.results)
        return self.config.exists() and any(path.exists() for path in results)

    def identity(self) -> str:
        """Return this run's own short id, the same whenever the run is continued."""
        if not self._identity.exists():
            write_atomically(self._identity, uuid.uuid4().hex[:10])
        return self._identity.read_text()

    def start(
        self, config: Mapping[str, Any], facts: Mapping[str, Any], *, resumed: bool = False
    ) -> None:
        """Create the folder and write down what is about to run.

        Args:
            config: The resolved configuration.
            facts: What else to record, such as the fingerprint of the data.
            resumed: Continues a run, so that its earlier time counts too.
        """
        make_folder(self.path)
        if not resumed:
            (self.path / ERRORS).unlink(missing_ok=True)
        write_atomically(self.config, yaml.safe_dump(dict(config), sort_keys=False))
        record = provenance({**facts, "earlier_s": self._recorded_s() if resumed else 0.0})
        write_atomically(self.provenance, json.dumps(record, indent=2) + "\n")

    def finish(self, seconds: float) -> float:
        """Record that the run ended after this many seconds; return all its recorded seconds.

        The time of a session that was killed is not known and does not count.
        """
        record: dict[str, Any] = json.loads(self.provenance.read_text())
        total_s = round(float(record["earlier_s"]) + seconds, 1)
        record |= {"status": "finished", "duration_s": total_s}
        write_atomically(self.provenance, json.dumps(record, indent=2) + "\n")
        return total_s

    def _recorded_s(self) -> float:
        if not self.provenance.exists():
            return 0.0
        record = json.loads(self.provenance.read_text())
        return float(record.get("duration_s", record.get("earlier_s", 0.0)))

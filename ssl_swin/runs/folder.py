"""A run's folder: what it was asked to do, whether it may go on, and where its results lie."""

import json
import platform
import subprocess
import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml

from ssl_swin.errors import UserError
from ssl_swin.files import make_folder, write_atomically
from ssl_swin.runs.renamed import up_to_date

# What may differ when a run is continued. With other devices, batch_size and accumulation change so
# that their product stays; if it does not, the run says so.
MAY_CHANGE = (
    "recipe",  # what an experiment says of itself
    "resume",
    "batch_size",
    "num_workers",
    "compile",
    "data.root",
    "data.index_dir",
    "data.cache",
    "data.max_bad_samples",
    "data.max_bad_ratio",
    "features.folder",
    "test_img_size_px",
    "data.prepare",
    "data.how_to_make",
    "logger",
    "callbacks",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.accumulate_grad_batches",
    "trainer.strategy",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
    "trainer.num_sanity_val_steps",
)
RECORDED_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "hydra-core",
    "webdataset",
    "wandb",
)


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
        self.batch_digest = self.path / "batch_digest"
        self._identity = self.path / "run_id"

    def checkpoint_to_resume(self, resume: str, config: Mapping[str, Any]) -> Path | None:
        """Decides where a run starts from, before anything is written.

        Args:
            resume: "auto" continues this folder's run if it has a checkpoint; "never" refuses a
                folder that holds a run; anything else is the path of a checkpoint.
            config: The resolved configuration asked for now.

        Returns:
            The checkpoint to continue, or None to start afresh.

        Raises:
            UserError: If the folder holds a run that must not be touched, or the path is wrong.
        """
        explicit = None if resume in ("auto", "never") else _existing_checkpoint(Path(resume))
        if not self._has_results():
            return explicit
        if resume == "never":
            raise UserError(
                f"{self.path} already holds a run and resume=never: choose another name="
            )
        different = _differences(up_to_date(_read_yaml(self.config)), config)
        if different:
            raise UserError(
                f"{self.path} already holds a run with another configuration:\n"
                + "\n".join(f"  {key}: was {old!r}, now {new!r}" for key, old, new in different)
                + "\nchoose another name=, or set these back to continue that run"
            )
        if explicit is not None:
            return explicit
        return self.last_checkpoint if self.last_checkpoint.exists() else None

    def _has_results(self) -> bool:
        """An attempt that failed before its first checkpoint left nothing to protect."""
        results = (*self.checkpoints.glob("*.ckpt"), self.backbone, self.results)
        return self.config.exists() and any(path.exists() for path in results)

    def identity(self) -> str:
        """Gives this run's own short id, the same whenever the run is continued."""
        if not self._identity.exists():
            write_atomically(self._identity, uuid.uuid4().hex[:10])
        return self._identity.read_text()

    def start(
        self, config: Mapping[str, Any], facts: Mapping[str, Any], *, resumed: bool = False
    ) -> None:
        """Creates the folder and writes down what is about to run.

        Args:
            config: The resolved configuration.
            facts: What else to record, such as the fingerprint of the data.
            resumed: Continues a run, so that its earlier time counts too.
        """
        make_folder(self.path)
        write_atomically(self.config, yaml.safe_dump(dict(config), sort_keys=False))
        record = _provenance({**facts, "earlier_s": self._recorded_s() if resumed else 0.0})
        write_atomically(self.provenance, json.dumps(record, indent=2) + "\n")

    def finish(self, seconds: float) -> float:
        """Records that the run ended after this many seconds; gives all its recorded seconds.

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


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Lists (dotted key, old, new) of the values that differ and may not."""
    before, after = flatten(old), flatten(new)
    keys = sorted(before.keys() | after.keys())
    changed = [key for key in keys if before.get(key) != after.get(key)]
    return [(key, before.get(key), after.get(key)) for key in changed if not _may_change(key)]


def _may_change(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in MAY_CHANGE)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Gives the leaves of nested mappings by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _provenance(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": _git_revision(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in RECORDED_PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}",
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cpu_threads": torch.get_num_threads(),
        **facts,
    }


def _git_revision() -> str | None:
    """Revision of the source tree, marked when it has uncommitted changes; None outside one."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None

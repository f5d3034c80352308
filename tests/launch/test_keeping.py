"""Backbones and pictures as artifacts of Weights & Biases; test_scripts.py has real ones."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
from wandb_files import wandb_records

from ssl_swin.launch.keeping import artifact_of, keep_folders, use_backbone, use_data
from ssl_swin.runs.folder import RunFolder
from ssl_swin.training.dashboards import dashboard
from ssl_swin.training.progress import StepAt
from ssl_swin.training.wandb_logger import WandbLogger


class Keeping(WandbLogger):
    """Weights & Biases without its process."""

    def __init__(self, *, artifacts: bool = True, offline: bool = False, fails: bool = False):
        super().__init__(artifacts, id="abc")
        self.told: list[tuple[Any, ...]] = []
        self.fails = fails
        self.run = SimpleNamespace(
            offline=offline, log_artifact=self.log_artifact, use_artifact=self.use_artifact
        )

    @property
    def experiment(self) -> Any:
        return self.run

    def log_artifact(self, folder: str, name: str, type: str) -> None:
        if self.fails:
            raise OSError("no server")
        self.told.append((Path(folder).name, name, type))

    def use_artifact(self, reference: str) -> None:  # type: ignore[override]
        if self.fails:
            raise OSError("no server")
        self.told.append((reference,))


def told_of(logger: Keeping, folder: Path, backbone: str) -> list[tuple[Any, ...]]:
    run: Any = SimpleNamespace(folder=RunFolder(folder), config={"backbone": backbone})
    (folder / "backbone").mkdir(parents=True, exist_ok=True)
    loggers = [dashboard(logger, StepAt())]
    use_backbone(run, loggers)
    keep_folders(run, loggers, "backbone", "reconstructions")
    return logger.told


def test_artifacts__of_what_is_there_and_where_it_came_from(tmp_path: Path) -> None:
    told = told_of(Keeping(), tmp_path, "wandb:team/swins/backbone-xyz:v3")
    assert told == [("team/swins/backbone-xyz:v3",), ("backbone", "backbone-abc", "backbone")]


def test_artifacts__offline_there_is_no_link(tmp_path: Path) -> None:
    told = told_of(Keeping(offline=True), tmp_path, "wandb:swins/backbone-xyz:v3")
    assert told == [("backbone", "backbone-abc", "backbone")]


def test_artifacts__none_unless_asked_for(tmp_path: Path) -> None:
    assert told_of(Keeping(artifacts=False), tmp_path, "wandb:swins/backbone-xyz:v3") == []


def test_artifacts__a_failure_costs_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told_of(Keeping(fails=True), tmp_path, "wandb:swins/backbone-xyz:v3") == []
    printed = capsys.readouterr().out
    assert "an artifact of W&B failed: OSError: no server; the job goes on without" in printed


def test_artifact_of(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "backbone").mkdir(parents=True)
    assert artifact_of(str(run)) == ""
    (run / "run_id").write_text("1cd8f6c754")
    for backbone in (run, run / "backbone"):
        assert artifact_of(str(backbone)) == "backbone-1cd8f6c754:latest"
    for backbone in ("", "none", "timm:swin_tiny", str(tmp_path)):
        assert artifact_of(backbone) == ""


def artifacts_written(folder: Path, *, asked_for: bool) -> list[Any]:
    """What an offline run of Weights & Biases has of the data that it reads."""
    logger = WandbLogger(asked_for, save_dir=folder, id="abc", project="p", offline=True)
    run: Any = SimpleNamespace(
        folder=RunFolder(folder), config={"data": {"root": "https://bucket/shards"}}
    )
    readers: dict[str, Any] = {
        "train": SimpleNamespace(fingerprint="1cd8f6c754", num_samples=40),
        "val": SimpleNamespace(fingerprint="77aa", num_samples=8),
    }
    use_data(run, [dashboard(logger, StepAt())], readers)
    logger.experiment.finish()
    wandb.teardown()  # whose process may write the last records after finish() is done
    (file,) = folder.glob("wandb/offline-run-*/run-abc.wandb")
    records = wandb_records(file)
    return [r for r in records if "artifact" in str(r.WhichOneof("record_type") or r)[:40]]


def test_use_data__is_an_input_without_files(tmp_path: Path) -> None:
    (record,) = artifacts_written(tmp_path, asked_for=True)
    artifact = getattr(record, record.WhichOneof("record_type"))
    artifact = getattr(artifact, "log_artifact", artifact)
    artifact = getattr(artifact, "artifact", artifact)
    assert (artifact.name, artifact.type) == ("dataset-1cd8f6c754", "dataset")
    assert artifact.use_after_commit
    assert json.loads(artifact.metadata) == {
        "source": "https://bucket/shards",
        "splits": {
            "train": {"fingerprint": "1cd8f6c754", "images": 40},
            "val": {"fingerprint": "77aa", "images": 8},
        },
    }
    assert not artifact.manifest.contents


def test_use_data__none_unless_asked_for(tmp_path: Path) -> None:
    assert artifacts_written(tmp_path, asked_for=False) == []

"""Weights & Biases as Lightning has it, which also keeps what a run hands on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers


class WandbLogger(loggers.WandbLogger):
    """Lightning's logger of Weights & Biases, with artifacts where they are asked for."""

    def __init__(self, artifacts: bool = False, **others: Any) -> None:
        """Sets the logger up.

        Args:
            artifacts: Keep a run's backbone and pictures, and name the backbone that it started
                from, so that the graph of artifacts leads from one run to the next.
            others: Arguments of Lightning's logger and of `wandb.init`.
        """
        super().__init__(**others)
        self.artifacts = artifacts

    def keep_folder(self, kind: str, folder: Path) -> None:
        """Keeps a folder as the artifact KIND-ID of this run, if artifacts are asked for.

        Args:
            kind: What it is, as "backbone".
            folder: The folder; nothing is done without it.
        """
        if self.artifacts and folder.is_dir():
            self.experiment.log_artifact(str(folder), name=f"{kind}-{self.version}", type=kind)

    def use_folder(self, reference: str) -> None:
        """Names an artifact that the run starts from; W&B takes that only online.

        Args:
            reference: [[ENTITY/]PROJECT/]NAME:VERSION.
        """
        if self.artifacts and not self.experiment.offline:
            self.experiment.use_artifact(reference)

    def use_data(self, fingerprint: str, facts: Mapping[str, Any]) -> None:
        """Names the data that the run reads, as an artifact that holds facts and no files.

        Args:
            fingerprint: Of its training images; the artifact is dataset-FINGERPRINT.
            facts: What else to tell of it.
        """
        if not self.artifacts:
            return
        import wandb  # late: a second, of runs that log nowhere too

        data = wandb.Artifact(f"dataset-{fingerprint}", type="dataset", metadata=dict(facts))
        if self.experiment.offline:  # use_artifact refuses there, before it comes to this
            self.experiment._log_artifact(data, use_after_commit=True)
        else:
            self.experiment.use_artifact(data)

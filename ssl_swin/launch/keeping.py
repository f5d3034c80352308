"""What a run starts from and hands on, as artifacts of Weights & Biases where asked for."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from lightning.pytorch.loggers import Logger

from ssl_swin.data.loading.protocol import Split
from ssl_swin.launch.artifacts import SCHEME
from ssl_swin.launch.printing import is_first_process, say
from ssl_swin.launch.run import Run
from ssl_swin.runs.folder import RunFolder
from ssl_swin.runs.side_failures import SideFailures
from ssl_swin.training.wandb_logger import WandbLogger

NO_FINGERPRINT = "unknown"  # of images that are streamed from a list of places


def keep_folders(run: Run, loggers: Sequence[Logger], *kinds: str) -> None:
    """Keep folders of a run as artifacts.

    Args:
        run: The run.
        loggers: The run's, not closed yet.
        kinds: Names of the folders.
    """
    for logger in _keepers(loggers):
        with _failing_alone(run, "what the run hands on is whole"):
            for kind in kinds:
                logger.keep_folder(kind, run.folder.path / kind)


def use_backbone(run: Run, loggers: Sequence[Logger]) -> None:
    """Name the artifact that a run starts from, if it is one or may have been kept as one.

    Args:
        run: The run.
        loggers: The run's.
    """
    artifact = artifact_of(str(run.config.get("backbone") or ""))
    for logger in _keepers(loggers) if artifact else ():
        with _failing_alone(run, "the job goes on without this link"):
            logger.use_folder(artifact)


def use_data(run: Run, loggers: Sequence[Logger], readers: Mapping[str, Split]) -> None:
    """Name the data that a run trains on: fingerprints, numbers of images, where it lies.

    Args:
        run: The run.
        loggers: The run's.
        readers: Its splits; without a fingerprint of `train` there is no artifact.
    """
    splits = {
        split: {"fingerprint": reader.fingerprint, "images": reader.num_samples}
        for split, reader in readers.items()
    }
    facts = {"splits": splits, "source": str(run.config["data"]["root"])}
    fingerprint = readers["train"].fingerprint
    for logger in _keepers(loggers) if fingerprint != NO_FINGERPRINT else ():
        with _failing_alone(run, "the job goes on without this link"):
            logger.use_data(fingerprint, facts)


def artifact_of(backbone: str) -> str:
    """Return the artifact of a backbone: its own address, or that of the run that left it.

    Args:
        backbone: As configured.

    Returns:
        The artifact with its version; empty if there is none.
    """
    if backbone.startswith(SCHEME):
        return backbone.removeprefix(SCHEME)
    path = Path(backbone)
    run = path.parent if path.name == "backbone" else path
    identity = RunFolder(run).known_identity() if backbone else ""
    return f"backbone-{identity}:latest" if identity else ""


def _keepers(loggers: Sequence[Logger]) -> list[WandbLogger]:
    inner = [getattr(logger, "logger", None) for logger in loggers] if is_first_process() else []
    return [logger for logger in inner if isinstance(logger, WandbLogger)]


def _failing_alone(run: Run, effect: str) -> AbstractContextManager[None]:
    return SideFailures(run.folder.path, tell=say).allowed("an artifact of W&B", effect)

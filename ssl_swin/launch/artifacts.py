"""Backbones that are artifacts of Weights & Biases."""

from pathlib import Path

from filelock import FileLock

from ssl_swin.errors import UserError
from ssl_swin.files import make_folder
from ssl_swin.launch.resolvers import wandb_offline
from ssl_swin.weights.sources import resolve_backbone

SCHEME = "wandb:"


def local_backbone(reference: str, cache: Path) -> Path:
    """Returns the local folder of a backbone, whatever it is named by.

    Args:
        reference: What `resolve_backbone` takes, or wandb:ENTITY/PROJECT/NAME:VERSION.
        cache: Folder for what is fetched or converted.

    Raises:
        UserError: If there is no such backbone, or no way to get it.
    """
    if reference.startswith(SCHEME):
        return resolve_backbone(str(_download(reference, cache / "wandb")), cache)
    return resolve_backbone(reference, cache)


def _download(reference: str, cache: Path) -> Path:
    from lightning.pytorch.loggers import WandbLogger  # seconds, for the one form that needs it

    artifact = reference.removeprefix(SCHEME)
    project, _, version = artifact.rpartition(":")
    if not version or project.count("/") not in (1, 2):
        raise UserError(f"give an artifact as wandb:ENTITY/PROJECT/NAME:VERSION, got {reference}")
    if wandb_offline():
        raise UserError(
            f"{reference} needs a key for Weights & Biases and a network: run `wandb login`, or "
            "set WANDB_API_KEY, and unset WANDB_MODE"
        )
    folder = cache / artifact.replace("/", "_").replace(":", "_")
    with FileLock(make_folder(cache) / f".{folder.name}.lock"):
        try:
            WandbLogger.download_artifact(artifact, str(folder), use_artifact=False)
        except Exception as error:  # wandb's own classes, which nothing here imports
            problem = " ".join(str(error).split())[:400]
            raise UserError(f"{reference} cannot be fetched: {problem}") from error
    return folder

"""Where a backbone is on this machine, whatever it is named by; also an artifact of W&B."""

from pathlib import Path

from filelock import FileLock

from ssl_swin.errors import UserError
from ssl_swin.files import make_folder
from ssl_swin.weights.sources import locate_backbone

SCHEME = "wandb:"


def local_backbone(reference: str, cache: Path) -> Path:
    """Returns the local folder of a backbone, and prints what one should know of it.

    Args:
        reference: What `locate_backbone` takes, or wandb:ENTITY/PROJECT/NAME:VERSION.
        cache: Folder for what is fetched or converted.

    Raises:
        UserError: If there is no such backbone, or no way to get it.
    """
    is_artifact = reference.startswith(SCHEME)
    path = str(_download(reference, cache / "wandb")) if is_artifact else reference
    located = locate_backbone(path, cache)
    if located.notes:
        from ssl_swin.launch.printing import say  # seconds, for the one form that needs it

        for note in located.notes:
            say(f"backbone: {note}")
    return located.folder


def _download(reference: str, cache: Path) -> Path:
    from lightning.pytorch.loggers import WandbLogger  # seconds, for the one form that needs it

    from ssl_swin.launch.resolvers import wandb_offline

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

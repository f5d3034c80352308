"""Loading what predicts, whatever it is named by."""

from pathlib import Path

from ssl_swin.arguments import PathLike
from ssl_swin.deploy.file_predictor import FilePredictor, is_exported
from ssl_swin.inference.predictors.base import Predictor, task_folder
from ssl_swin.inference.predictors.base import load_predictor as load_folder
from ssl_swin.launch.artifacts import local_backbone
from ssl_swin.weights.sources import default_cache


def load_predictor(reference: PathLike) -> Predictor:
    """Load what predicts, whatever it is named by.

    Args:
        reference: A file of `ssl-swin export`, the folder of a task or a run that has one, or every
            form of `backbone=`.

    Raises:
        UserError: If there is none.
    """
    if is_exported(str(reference)):
        return FilePredictor.load(Path(reference))
    if folder := task_folder(Path(reference).expanduser()):
        return load_folder(folder)
    return load_folder(local_backbone(str(reference), default_cache()))

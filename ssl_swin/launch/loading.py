"""Loading a backbone, whatever it is named by."""

from pathlib import Path

from ssl_swin.arguments import PathLike, Positive, RateBelow1, SizePx, checked
from ssl_swin.launch.artifacts import local_backbone
from ssl_swin.weights.backbone import Backbone
from ssl_swin.weights.backbone import load_backbone as load_folder
from ssl_swin.weights.sources import default_cache


@checked
def load_backbone(
    reference: PathLike,
    *,
    img_size_px: SizePx | None = None,
    window_size: Positive | None = None,
    drop_path_rate: RateBelow1 = 0.0,
    grad_checkpointing: bool = False,
    cache: PathLike | None = None,
) -> Backbone:
    """Load a pretrained encoder and the normalisation that it was trained with.

    Args:
        reference: Every form of `backbone=`: the folder of a run or a backbone, a checkpoint, a
            file of weights, timm:NAME, hf-hub:USER/NAME, wandb:ENTITY/PROJECT/NAME:VERSION.
        img_size_px: Another input size, a side or (height, width); None keeps the backbone's.
        window_size: Another attention window in tokens; None lets the size decide.
        drop_path_rate: Stochastic depth of the training to come.
        grad_checkpointing: Whether the training to come recomputes activations.
        cache: Folder for what is fetched or converted; None takes the user's.

    Returns:
        `encoder`, `mean` and `std`.

    Raises:
        UserError: If there is no such backbone, or it cannot take the size.
    """
    folder = local_backbone(str(reference), default_cache() if cache is None else Path(cache))
    return load_folder(
        folder,
        img_size_px=img_size_px,
        window_size=window_size,
        drop_path_rate=drop_path_rate,
        grad_checkpointing=grad_checkpointing,
    )

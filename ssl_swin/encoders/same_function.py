"""Whether an encoder computes what a model of timm does, beyond having the same weights."""

from typing import Any

import torch

from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError

_SIDE_PX = 64
_TOLERANCE = 1e-3  # of the largest value


@torch.no_grad()
def check_same_function(model: Any, encoder: Encoder) -> None:
    """Give an encoder the weights of a model, and compare what both make of a picture of noise.

    Args:
        model: A model of timm that takes images of any size, with or without a head.
        encoder: Built for it.

    Raises:
        UserError: If the tensors or the values differ: the model is a variant that is not known.
    """
    head = f"{encoder.head_prefix}."
    state = {name: t for name, t in model.state_dict().items() if not name.startswith(head)}
    variant = f"this variant of {type(model).__name__} is unknown"
    try:
        encoder.model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{variant}: {' '.join(str(error).split())[:400]}") from error
    modes = [(module, module.training) for module in (*model.modules(), *encoder.modules())]
    images = torch.linspace(-1, 1, encoder.in_chans * _SIDE_PX**2).sin()
    images = images.view(1, encoder.in_chans, _SIDE_PX, _SIDE_PX)
    theirs = model.eval().forward_features(images)
    ours = encoder.model.eval().forward_features(images)
    for module, mode in modes:
        module.training = mode
    if theirs.shape != ours.shape or (theirs - ours).abs().max() > _TOLERANCE * theirs.abs().max():
        raise UserError(f"{variant}: its values are not those of a {encoder.title}")

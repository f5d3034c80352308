"""The table of checkpoint formats, and which of them a file is."""

import re
from collections.abc import Mapping

from torch import Tensor

from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.weights.formats.detectron2 import DETECTRON2
from ssl_swin.weights.formats.family_formats import family_formats
from ssl_swin.weights.formats.format import Format
from ssl_swin.weights.formats.huggingface import HUGGINGFACE, HUGGINGFACE_V2
from ssl_swin.weights.formats.official_ape_format import SWIN_APE
from ssl_swin.weights.formats.official_format import SIMMIM, SWIN
from ssl_swin.weights.formats.official_mlp_format import SWIN_MLP
from ssl_swin.weights.formats.official_vit_format import SIMMIM_FINETUNED_VIT, SIMMIM_VIT, TIMM_VIT
from ssl_swin.weights.formats.openmmlab import OPENMMLAB
from ssl_swin.weights.formats.timm_format import TIMM
from ssl_swin.weights.formats.torchvision_format import (
    TORCHVISION,
    TORCHVISION_RESNET,
    TORCHVISION_V2,
)

# The first that recognises a file counts; those of `family_formats` come last.
FORMATS: tuple[Format, ...] = (
    SIMMIM,
    SIMMIM_VIT,
    SIMMIM_FINETUNED_VIT,
    SWIN_MLP,
    SWIN_APE,
    SWIN,
    TIMM,
    TIMM_VIT,
    HUGGINGFACE,
    HUGGINGFACE_V2,
    TORCHVISION,
    TORCHVISION_V2,
    OPENMMLAB,
    DETECTRON2,
)
NAMES = tuple(dict.fromkeys(each.name for each in FORMATS))


def formats() -> tuple[Format, ...]:
    """Returns all formats that are known by now."""
    return (*FORMATS, *family_formats(), TORCHVISION_RESNET)


def recognise(state: Mapping[str, Tensor]) -> Format | None:
    """Returns the format that the names of the tensors show; None if they show none."""
    names = "\n".join(state)
    for known in formats():
        if all(re.search(part, names, re.MULTILINE) for part in known.recognised_by):
            return known
    return None


def check_format(known: Format, name: str | None) -> None:
    """Checks that a file is of the format that the user says.

    Args:
        known: What its names show.
        name: What the user says; None says nothing.

    Raises:
        UserError: If it is another, or there is no such format.
    """
    if name is None:
        return
    _check_name(name)
    if known.name != name:
        raise UserError(f"not of the format {name!r}: its names are those of {known.title}")


def format_for(name: str, encoder: Encoder) -> Format:
    """Returns the format of that name for an encoder.

    Raises:
        UserError: If there is none.
    """
    _check_name(name)
    kind = encoder.kind
    of_name = [known for known in formats() if known.name == name]
    for known in of_name:
        if kind in known.kinds:
            return known
    kinds = ", ".join(kind for known in of_name for kind in known.kinds)
    raise UserError(f"a {kind} cannot be written as {name!r}, which is for {kinds}")


def _check_name(name: str) -> None:
    if name not in NAMES:
        raise UserError(f"there is no format {name!r}; there are {', '.join(NAMES)}")

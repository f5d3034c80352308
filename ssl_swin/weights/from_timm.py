"""timm's pretrained models as backbones: where their weights are, and their form here."""

import json
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError
from timm.models import get_pretrained_cfg, is_model
from torch import nn

from ssl_swin.encoders.build import known_architectures
from ssl_swin.encoders.from_timm import encoder_of
from ssl_swin.errors import UserError
from ssl_swin.tasks.classification import Classifier
from ssl_swin.weights.backbone import (
    CONFIG,
    SWIN_CROP_RATIO,
    WEIGHTS,
    save_backbone,
    save_classifier,
)
from ssl_swin.weights.cards import timm_card


def is_timm_name(name: str) -> bool:
    """Returns whether timm has this architecture, with or without a tag behind a dot."""
    known: bool = is_model(name.partition(".")[0])
    return known


def supported_names() -> list[str]:
    """Lists the architectures of timm that can be backbones."""
    names: list[str] = timm.list_models(list(_patterns()))
    return names


def _patterns() -> dict[str, None]:
    """Returns the patterns of timm's names that encoders of some family take."""
    families = dict.fromkeys(known_architectures().values())
    return dict.fromkeys(pattern for family in families for pattern in family.timm_names)


def timm_repository(name: str) -> str:
    """Finds the hub's repository of a timm model's pretrained weights.

    Args:
        name: Architecture, such as swin_tiny_patch4_window7_224, for the weights that timm prefers;
            or with a tag, such as swin_tiny_patch4_window7_224.ms_in22k.

    Raises:
        UserError: If timm has no such model or weights, or the model cannot be a backbone here.
    """
    architecture = name.partition(".")[0]
    if not is_timm_name(name):
        raise UserError(f"timm has no model {architecture}; {_supported()}")
    _check_supported(architecture)
    try:
        source: Any = get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        tagged = ", ".join(timm.list_pretrained(f"{architecture}.*"))
        raise UserError(f"timm has no weights {name}; it has: {tagged or 'none'}") from error
    return str(source.hf_hub_id)


def convert_timm(folder: Path, target: Path) -> None:
    """Rewrites a folder in timm's layout to one that `load_backbone` reads, with its head if any.

    timm's own configurations leave the sizes of an architecture to its code; ours state them.

    Args:
        folder: Holds config.json, which names the architecture, and model.safetensors.
        target: Created.

    Raises:
        UserError: If the architecture is not supported, or the two files do not fit together.
    """
    config = json.loads((folder / CONFIG).read_text())
    architecture = str(config["architecture"])
    _check_supported(architecture)
    try:
        model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True)
    except (RuntimeError, TypeError, ValueError, LookupError, SafetensorError) as error:
        problem = " ".join(str(error).split())[:400]
        raise UserError(f"{folder / WEIGHTS} does not fit the {CONFIG}: {problem}") from error
    source, encoder = model.pretrained_cfg, encoder_of(model)
    weights = f"{architecture}.{source['tag']}" if source.get("tag") else architecture
    moments = {"mean": source["mean"], "std": source["std"]}
    crop_ratio = source.get("crop_pct") or SWIN_CROP_RATIO
    head = _head_of(model, encoder.head_prefix)
    if head is None or encoder.for_finetuning() is not encoder:
        card = timm_card(weights, 0)
        save_backbone(target, encoder, **moments, card=card, crop_ratio=crop_ratio)
        return
    classifier = Classifier(encoder, num_classes=head.out_features)
    classifier.head.load_state_dict(head.state_dict())
    save_classifier(
        target,
        classifier,
        classes=_names(config, head.out_features),
        **moments,
        card=timm_card(weights, head.out_features),
        crop_ratio=crop_ratio,
    )


def _head_of(model: Any, name: str) -> nn.Linear | None:
    """Returns the last layer of a timm model, which has that name; None where it has none."""
    layer = model.get_submodule(name)
    return layer if isinstance(layer, nn.Linear) and layer.bias is not None else None


def _names(config: Mapping[str, Any], num_classes: int) -> list[str]:
    """Returns the names of a model's classes, or else their numbers."""
    names = config.get("label_names")
    if not isinstance(names, list) or len(names) != num_classes:
        names = list(range(num_classes))
    return list(map(str, names))


def _check_supported(architecture: str) -> None:
    if not any(fnmatch(architecture, pattern) for pattern in _patterns()):
        raise UserError(f"{architecture} of timm cannot be a backbone here; {_supported()}")


def _supported() -> str:
    return f"supported: {', '.join(supported_names())}"

"""Which parameter gets which weight decay and which share of the learning rate.

Reference: the parameter rules of the official SimMIM pretraining and fine-tuning. The layer scale
is baked into each group's `lr`, and no group carries an `lr_scale` key, which some schedulers would
apply a second time.
"""

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from ssl_swin.errors import UserError
from ssl_swin.objectives.simmim import MaskedImageModel
from ssl_swin.tasks.classification import Classifier

WEIGHT_DECAY_POLICIES = ("official", "intended")

# Multi-dimensional parameters that the recipe means to leave undecayed, as timm names them.
_UNDECAYED = re.compile(
    r"(mask_token|cls_token|pos_embed|relative_position_bias_table|logit_scale|cpb_mlp\..*)$"
)
# Those of them that the original decays nevertheless. In pretraining, Swin's keywords carry a
# prefix, `encoder.`, that never occurs inside the names they are matched against; the ViT has no
# keywords at all, and its list of names lacks the mask token.
_DECAYED_BY_ACCIDENT = {
    "swin pretraining": r"(relative_position_bias_table|logit_scale|cpb_mlp\.\d\.weight)$",
    "vit pretraining": r"(relative_position_bias_table|mask_token)$",
    "swin finetuning": r"(?!)",  # nothing
    "vit finetuning": r"relative_position_bias_table$",
}


def is_decayed(name: str, parameter: nn.Parameter, policy: str, *, stage: str) -> bool:
    """Says whether weight decay applies to a parameter.

    Args:
        name: Dotted name, with timm's names for the encoder's parts.
        parameter: Its tensor; one-dimensional ones are never decayed.
        policy: "intended" spares tokens and position-bias parameters as the recipe means to;
            "official" decays those that the original in fact does, and so the published numbers.
        stage: The encoder's family and what it goes through, as "vit pretraining".

    Raises:
        UserError: If the policy is not one of the two.
    """
    if policy not in WEIGHT_DECAY_POLICIES:
        raise UserError(
            f"weight_decay_policy must be one of {WEIGHT_DECAY_POLICIES}, got {policy!r}"
        )
    if parameter.ndim == 1 or name.endswith(".bias"):
        return False
    if policy == "official" and re.search(_DECAYED_BY_ACCIDENT[stage], name):
        return True
    return not _UNDECAYED.search(name)


def weight_decay_groups(
    model: MaskedImageModel, *, lr: float, weight_decay: float, policy: str
) -> list[dict[str, Any]]:
    """Splits trainable parameters into a decayed and an undecayed group, for pretraining.

    Args:
        model: Encoder, mask token and decoder.
        lr: Learning rate of both groups.
        weight_decay: Of the decayed group.
        policy: See `is_decayed`.
    """
    groups = {
        True: _group("decay", lr, weight_decay),
        False: _group("no_decay", lr, 0.0),
    }
    for name, parameter in _trainable(model):
        decayed = is_decayed(name, parameter, policy, stage=f"{model.encoder.family} pretraining")
        groups[decayed]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


def layer_decay_groups(
    model: Classifier,
    *,
    depths: tuple[int, ...],
    lr: float,
    layer_decay: float,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Groups parameters by layer, with learning rates that shrink towards the input.

    A parameter of layer i gets `lr * layer_decay ** (last - i)`. As in the original, fine-tuning
    spares Swin's position-bias parameters from weight decay, but decays a ViT's.

    Args:
        model: A classifier.
        depths: Blocks per stage of its encoder.
        lr: Learning rate of the head.
        layer_decay: Factor per layer, in (0, 1]; 1 turns it off.
        weight_decay: Of the decayed groups.

    Raises:
        UserError: If `layer_decay` is out of range.
    """
    if not 0.0 < layer_decay <= 1.0:
        raise UserError(f"layer_decay must lie in (0, 1], got {layer_decay}")
    family, last = model.encoder.family, sum(depths) + 1
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in _trainable(model):
        layer = _LAYER_ID[family](name, depths)
        decayed = is_decayed(name, parameter, "official", stage=f"{family} finetuning")
        group_name = f"layer_{layer}_{'decay' if decayed else 'no_decay'}"
        scaled_lr = lr * layer_decay ** (last - layer)
        new = _group(group_name, scaled_lr, weight_decay if decayed else 0.0)
        groups.setdefault(group_name, new)["params"].append(parameter)
    return list(groups.values())


def swin_layer_id(name: str, depths: tuple[int, ...]) -> int:
    """Numbers the layers of a Swin for layer-wise decay, as the original does.

    The patch embedding is 0, blocks count from 1 through all stages, and the final norm and the
    head come last. A patch merging belongs to the last block before it; timm's own table, which
    keeps the merging in the stage that follows, puts it with the first block after.

    Args:
        name: Dotted timm name, with any prefix.
        depths: Blocks per stage.
    """
    if "patch_embed." in name or name.endswith("mask_token"):
        return 0
    if match := re.search(r"layers\.(\d+)\.blocks\.(\d+)\.", name):
        stage, block = map(int, match.groups())
        return sum(depths[:stage]) + block + 1
    if match := re.search(r"layers\.(\d+)\.downsample\.", name):
        return sum(depths[: int(match.group(1))])
    return sum(depths) + 1


def vit_layer_id(name: str, depths: tuple[int, ...]) -> int:
    """Numbers the layers of a ViT for layer-wise decay, as the original does.

    The patch embedding and the tokens are 0, blocks count from 1 and include a table of their own;
    a shared table, the norms and the head come last.

    Args:
        name: Dotted timm name, with any prefix.
        depths: The number of blocks, alone.
    """
    if "patch_embed." in name or name.endswith(("cls_token", "mask_token")):
        return 0
    if match := re.search(r"blocks\.(\d+)\.", name):
        return int(match.group(1)) + 1
    return sum(depths) + 1


_LAYER_ID = {"swin": swin_layer_id, "vit": vit_layer_id}


def _group(name: str, lr: float, weight_decay: float) -> dict[str, Any]:
    return {"name": name, "params": [], "lr": lr, "weight_decay": weight_decay}


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((n, p) for n, p in model.named_parameters() if p.requires_grad)

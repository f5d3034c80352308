"""Which parameter gets which weight decay and which share of the learning rate.

Reference: the parameter rules of the official SimMIM pretraining and fine-tuning. The layer scale
is baked into each group's `lr`, and no group carries an `lr_scale` key, which some schedulers would
apply a second time.
"""

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.objectives.base import Objective

_SPARED_IN_DENSE = r"absolute_pos_embed|relative_position_bias_table|norm"
WEIGHT_DECAY_POLICIES = ("official", "intended")


def is_decayed(
    name: str,
    parameter: nn.Parameter,
    policy: str,
    *,
    encoder: Encoder,
    phase: str,
    undecayed: frozenset[str] = frozenset(),
) -> bool:
    """Tell whether weight decay applies to a parameter.

    Args:
        name: Dotted name, with timm's names for the encoder's parts.
        parameter: The tensor; one-dimensional ones are never decayed.
        policy: "intended" spares tokens and position-bias parameters as the recipe means to;
            "official" decays those that the original in fact does, and so the published numbers.
        encoder: Declares which names its recipes spare, and which of them the original decayed.
        phase: "pretraining" or "finetuning".
        undecayed: Names of further parameters to spare, those of the objective.

    Raises:
        UserError: If the policy is not one of the two.
    """
    if policy not in WEIGHT_DECAY_POLICIES:
        raise UserError(
            f"weight_decay_policy must be one of {WEIGHT_DECAY_POLICIES}, got {policy!r}"
        )
    if parameter.ndim == 1 or name.endswith(".bias"):
        return False
    accident = encoder.decayed_by_accident.get(phase)
    if policy == "official" and accident and re.search(accident, name):
        return True
    return name not in undecayed and not re.search(encoder.undecayed, name)


def weight_decay_groups(
    model: Objective, *, lr: float, weight_decay: float, policy: str
) -> list[dict[str, Any]]:
    """Split trainable parameters into a decayed and an undecayed group, for pretraining.

    Args:
        model: The objective with its encoder.
        lr: Learning rate of both groups.
        weight_decay: Weight decay of the decayed group.
        policy: See `is_decayed`.
    """
    groups = {
        True: _group("decay", lr, weight_decay),
        False: _group("no_decay", lr, 0.0),
    }
    for name, parameter in _trainable(model):
        decayed = is_decayed(
            name,
            parameter,
            policy,
            encoder=model.encoder,
            phase="pretraining",
            undecayed=model.undecayed(),
        )
        groups[decayed]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


def dense_groups(model: Objective, *, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Split trainable parameters as the recipes of segmentation and detection do: by name alone.

    Norms whose name says so, position biases and what the encoder names are spared; biases of
    other layers and batch norms called `bn` are decayed, unlike everywhere else.

    Args:
        model: The task with its encoder.
        lr: Learning rate of both groups.
        weight_decay: Weight decay of the decayed group.
    """
    groups = {
        True: _group("decay", lr, weight_decay),
        False: _group("no_decay", lr, 0.0),
    }
    spared = re.compile(_SPARED_IN_DENSE)
    for name, parameter in _trainable(model):
        of_encoder = name.startswith("encoder.") and re.search(model.encoder.undecayed, name)
        is_spared = spared.search(name) or of_encoder or name in model.undecayed()
        groups[not is_spared]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


def layer_decay_groups(
    model: Objective,
    *,
    lr: float,
    layer_decay: float,
    weight_decay: float,
    policy: str = "official",
    phase: str = "finetuning",
) -> list[dict[str, Any]]:
    """Group parameters by layer, with learning rates that shrink towards the input.

    A parameter of layer i gets `lr * layer_decay ** (last - i)`. As in the original, fine-tuning
    spares Swin's position-bias parameters from weight decay, but decays a ViT's.

    Args:
        model: The task or objective with its encoder, which numbers the layers.
        lr: Learning rate of the head.
        layer_decay: Factor per layer, in (0, 1]; 1 turns it off.
        weight_decay: Weight decay of the decayed groups.
        policy: See `is_decayed`.
        phase: See `is_decayed`.

    Raises:
        UserError: If `layer_decay` is out of range.
    """
    if not 0.0 < layer_decay <= 1.0:
        raise UserError(f"layer_decay must lie in (0, 1], got {layer_decay}")
    encoder, last = model.encoder, model.encoder.last_layer
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in _trainable(model):
        # Whatever their names, an objective's own blocks are none of the encoder's; its mask token
        # is at the input.
        is_own = not name.startswith("encoder.") and not name.endswith("mask_token")
        layer = last if is_own else encoder.layer_id(name)
        decayed = is_decayed(
            name,
            parameter,
            policy,
            encoder=encoder,
            phase=phase,
            undecayed=model.undecayed(),
        )
        group_name = f"layer_{layer}_{'decay' if decayed else 'no_decay'}"
        scaled_lr = lr * layer_decay ** (last - layer)
        new = _group(group_name, scaled_lr, weight_decay if decayed else 0.0)
        groups.setdefault(group_name, new)["params"].append(parameter)
    return list(groups.values())


def _group(name: str, lr: float, weight_decay: float) -> dict[str, Any]:
    return {"name": name, "params": [], "lr": lr, "weight_decay": weight_decay}


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((n, p) for n, p in model.named_parameters() if p.requires_grad)

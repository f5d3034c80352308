"""The classification head beside a backbone, for fine-tuning on classes that it knows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from ssl_swin.encoders.build import known_architectures
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.plurals import counted
from ssl_swin.tasks.base import Task
from ssl_swin.weights.backbone import CONFIG, WEIGHTS
from ssl_swin.weights.formats.head_classes import published_rows


@dataclass(frozen=True)
class KeptHead:
    """A classification head, and what its rows stand for.

    Attributes:
        weight: (classes, features).
        bias: (classes,).
        names: Names of its classes; empty if nothing tells them.
    """

    weight: Tensor
    bias: Tensor
    names: tuple[str, ...]

    def rows_of(self, classes: Sequence[str]) -> tuple[list[int], str] | None:
        """Return the row of each class, and whose names told it; None if it lacks a class.

        A head of 1,000 or 21,841 classes without names of its own has those of ImageNet-1k or
        ImageNet-22k in the published order.

        Args:
            classes: Names of the classes, by label.
        """
        own = {name: row for row, name in enumerate(self.names)}
        known = [(own, "its class names")] if len(own) == len(self.names) else []
        if not own or self.names == tuple(map(str, range(len(self.bias)))):
            known += [(rows, f"the order of {of}") for rows, of in published_rows(len(self.bias))]
        if len(set(classes)) < len(classes):
            return None
        for rows, told in known:
            if rows.keys() >= set(classes):
                return [rows[name] for name in classes], told
        return None


def read_head(folder: Path) -> KeptHead | None:
    """Read the head that lies beside a backbone; None if there is none.

    Args:
        folder: Holds config.json and model.safetensors.
    """
    config = json.loads((folder / CONFIG).read_text())
    prefix = known_architectures()[config["architecture"]].head_prefix
    with safetensors.safe_open(folder / WEIGHTS, "pt") as file:
        if not {f"{prefix}.weight", f"{prefix}.bias"} <= set(file.keys()):
            return None
        weight, bias = file.get_tensor(f"{prefix}.weight"), file.get_tensor(f"{prefix}.bias")
    names = config.get("label_names", ())
    fits = isinstance(names, list) and len(names) == len(bias)
    return KeptHead(weight, bias, tuple(map(str, names)) if fits else ())


def keep_head(task: Task, encoder: Encoder, folder: Path) -> str:
    """Put the head of a backbone into a task, where it knows all classes.

    Args:
        task: Has a linear layer `head`, or else keeps what it has.
        encoder: The encoder that the task was made of.
        folder: Folder of the backbone.

    Returns:
        One line for the user; empty if the backbone has no head.
    """
    kept = read_head(folder)
    layer = getattr(task, "head", None)
    if kept is None or not isinstance(layer, torch.nn.Linear):
        return ""
    if layer.in_features != kept.weight.shape[1] or task.encoder is not encoder:
        return "head: a new one, since the backbone's acts on other features"
    found = kept.rows_of(task.classes)
    if found is None:
        number = counted(len(kept.bias), "class")
        return f"head: a new one, since the backbone's, of {number}, has others"
    rows, told = found
    with torch.no_grad():
        layer.weight.copy_(kept.weight[rows])
        layer.bias.copy_(kept.bias[rows])
    of = "" if len(rows) == len(kept.bias) else f" of its {len(kept.bias):,}"
    return (
        f"head: the backbone's own, {len(rows):,}{of} classes by {told}; head=fresh starts a new "
        "one"
    )

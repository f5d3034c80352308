"""From the setting `kernels` and a device to the computations that a model uses."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import DictConfig
from torch import nn

from ssl_swin.encoders.kernels import Kernels, use_kernels
from ssl_swin.errors import UserError

TABLE = Path(__file__).with_name("kernels.yaml")
AUTO = "auto"
NAMES = tuple(field.name for field in fields(Kernels))


def kernels_for(settings: Mapping[str, Any], device: torch.device) -> Kernels:
    """Return the choices of a configuration on a device.

    Args:
        settings: By name, "auto" for what the table has; as a name that an older run lacks.
        device: Where the model will be.

    Raises:
        UserError: If it cannot be trained there by one of them.
    """
    usual = table_entry(read_table(), device)
    if settings.get("attention") == "flex" and device.type != "cuda":
        raise UserError(
            f"kernels.attention=flex is for CUDA GPUs, and this run is on {device.type}, where "
            "torch's FlexAttention has no backward pass: set kernels.attention to products, fused "
            "or auto"
        )
    given = {name: settings.get(name, AUTO) for name in NAMES}
    return Kernels(**{name: usual[name] if given[name] == AUTO else given[name] for name in NAMES})


def take_kernels(cfg: DictConfig, model: nn.Module, device: torch.device) -> None:
    """Let a model compute as the group `kernels` says; a run from before it has none.

    Args:
        cfg: Configuration of a job.
        model: The Lightning module of an objective or task.
        device: Where it will be.

    Raises:
        UserError: If it cannot be trained there by one of them.
    """
    use_kernels(model, kernels_for(cfg.get("kernels") or {}, device))


def read_table(path: Path = TABLE) -> list[dict[str, Any]]:
    """Return the entries of the table, the most particular first."""
    entries: list[dict[str, Any]] = yaml.safe_load(path.read_text())
    return entries


def table_entry(
    table: Sequence[Mapping[str, Any]], device: torch.device, card: str | None = None
) -> Mapping[str, Any]:
    """Return the first entry of a table that fits a device; for any other device that of CPUs.

    Args:
        table: Its entries.
        device: The device.
        card: Name of the graphics card; None asks the device.
    """
    names = [device.type]
    if device.type == "cuda":
        names.append(torch.cuda.get_device_name(device) if card is None else card)
    for entry in table:
        if any(name.startswith(entry["device"]) for name in names):
            return entry
    return next(entry for entry in table if entry["device"] == "cpu")

"""Checkpoints of our own runs: the state of a training, of which the weights are a part.

The architecture stands in the checkpoint since 0.2.0. For older ones it is read from what lies in
the run's folder: the configuration, or what the run handed on.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_swin.errors import UserError
from ssl_swin.plain_yaml import read_plain_yaml

FACTS = "ssl_swin"  # the key in a checkpoint of what it says of its encoder
ENCODER = "state_dict.model.encoder.model"  # the network that a run hands on
_OF_LIGHTNING = "pytorch-lightning_version"
_OF_TRAINING = "current_model_state"  # beside an average, the weights that training goes on with
_ENCODER_NAMES = "model.encoder.model."
_FOLDER = "checkpoints"
_MODEL_ARGS = {  # of timm, by our setting
    "img_size_px": "img_size",
    "window_size": "window_size",
    "pretrained_window_sizes": "pretrained_window_sizes",
}


@dataclass(frozen=True)
class RunFacts:
    """What a checkpoint says of its run.

    Attributes:
        config: In timm's layout, as a backbone's config.json; without what nothing tells.
        step: Number of optimiser steps that were made.
        note: One line for the user.
    """

    config: dict[str, Any]
    step: int
    note: str


def run_facts(file: Path, checkpoint: Mapping[Any, Any]) -> RunFacts | None:
    """Returns what a checkpoint of a run says; None if it is no such checkpoint.

    Args:
        file: The checkpoint, perhaps still in the folder of its run.
        checkpoint: Its content.
    """
    state = checkpoint.get("state_dict")
    if _OF_LIGHTNING not in checkpoint or not isinstance(state, Mapping):
        return None
    if not any(str(name).startswith(_ENCODER_NAMES) for name in state):
        return None
    step = checkpoint.get("global_step")
    step = step if isinstance(step, int) else 0
    run = run_of(file)
    facts = checkpoint.get(FACTS)
    config = dict(facts) if isinstance(facts, Mapping) else _config_of(run)
    average = ", averaged over its steps" if _OF_TRAINING in checkpoint else ""
    return RunFacts(config, step, _note(file, run, step, average))


def run_of(checkpoint: Path) -> Path | None:
    """Returns the folder of the run that a checkpoint lies in; None if it was moved away."""
    run = checkpoint.absolute().parent.parent
    is_there = checkpoint.absolute().parent.name == _FOLDER and (run / "config.yaml").is_file()
    return run if is_there else None


def newest_checkpoint(run: Path) -> Path | None:
    """Returns the checkpoint from which a stopped run would be handed on; None without any.

    Fine-tuning hands on its best epoch; otherwise the last state counts, or the kept checkpoint
    of the most steps.
    """
    folder = run / _FOLDER
    for name in ("best.ckpt", "last.ckpt"):
        if (folder / name).exists():
            return folder / name
    kept = [each for each in folder.glob("*.ckpt") if re.search(r"\d", each.stem)]
    return max(kept, key=lambda each: int(re.findall(r"\d+", each.stem)[-1]), default=None)


def is_finished(run: Path) -> bool:
    """Returns whether a run recorded that it came to its end."""
    try:
        record = json.loads((run / "provenance.json").read_text())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and record.get("status") == "finished"


def _note(file: Path, run: Path | None, step: int, average: str) -> str:
    if run is None:
        return f"{file.name}: the weights of step {step:,}{average}, of a run elsewhere"
    state = "the finished run" if is_finished(run) else "the unfinished run"
    return f"{file.name}: the weights of step {step:,}{average}, of {state} {run.name}"


def _config_of(run: Path | None) -> dict[str, Any]:
    """Returns what a run's folder tells of its encoder, in timm's layout."""
    if run is None:
        return {}
    settings = _read_yaml(run / "config.yaml")
    data, model = _group(settings, "data"), _group(settings, "model")
    cfg = {key: list(data[key]) for key in ("mean", "std") if isinstance(data.get(key), list)}
    handed_on = next(
        (each for each in sorted(run.glob("*/config.json")) if _has_weights(each.parent)), None
    )
    if handed_on is not None:
        return _read_config(handed_on) | {"pretrained_cfg": cfg}
    told = {theirs: model[ours] for ours, theirs in _MODEL_ARGS.items() if model.get(ours)}
    if settings.get("backbone") not in (None, "none"):
        told = _sizes_of_backbone(settings, Path(str(settings["backbone"])))
    return {"model_args": told, "pretrained_cfg": cfg}


def _sizes_of_backbone(settings: Mapping[str, Any], backbone: Path) -> dict[str, Any]:
    """Returns the sizes of a fine-tuned encoder: those that were asked for, or the backbone's."""
    own: dict[str, Any] = {}
    for folder in (backbone, backbone / "backbone"):
        if (folder / "config.json").is_file() and _has_weights(folder):
            own = _group(_read_config(folder / "config.json"), "model_args")
    asked = {"img_size": settings.get("img_size_px"), "window_size": settings.get("window_size")}
    chosen = {key: value for key, value in asked.items() if value is not None}
    kept = ("img_size", "window_size", "pretrained_window_sizes")
    if "img_size" in chosen and "window_size" not in chosen:
        own.pop("window_size", None)  # it was scaled with the image; the weights tell it
    return {key: own[key] for key in kept if key in own} | chosen


def _has_weights(folder: Path) -> bool:
    return (folder / "model.safetensors").is_file()


def _group(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    group = settings.get(name)
    return dict(group) if isinstance(group, Mapping) else {}


def _read_config(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        return read_plain_yaml(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error

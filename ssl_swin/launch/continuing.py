"""Pretraining that starts from weights instead of random ones."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ssl_swin.divided_checkpoint import open_state
from ssl_swin.encoders.build import build_encoder
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.resize import resize_encoder
from ssl_swin.errors import UserError
from ssl_swin.launch.artifacts import local_backbone
from ssl_swin.launch.build import warn_of_other_normalisation
from ssl_swin.launch.printing import say
from ssl_swin.launch.targets import make
from ssl_swin.objectives.base import Objective
from ssl_swin.weights.backbone import (
    check_same_architecture,
    load_backbone,
    load_extra_weights,
)
from ssl_swin.weights.formats.run_checkpoints import FACTS
from ssl_swin.weights.sources import default_cache

_OWN = "model=from_backbone"
_SIZES = ("img_size", "window_size")  # of timm's arguments
_RESIZED = (*_SIZES, "pretrained_window_sizes")


class Start:
    """What a pretraining starts from: random weights, a backbone's, or its own checkpoint's."""

    def __init__(self, cfg: DictConfig, checkpoint: Path | None) -> None:
        """Builds the encoder.

        Args:
            cfg: Configuration of the job.
            checkpoint: The run's own, which holds all weights, so that the backbone is not needed;
                None for a new run.

        Raises:
            UserError: If the backbone is not of the model's architecture, or neither says it.
        """
        self.folder: Path | None = None
        self._before: Encoder | None = None
        self._reference = None if cfg.backbone == "none" else cfg.backbone
        has_model = cfg.model.get("_target_") is not None
        is_started = checkpoint is not None and self._reference is not None
        facts = _facts(checkpoint) if checkpoint is not None and is_started else None
        if checkpoint is None and self._reference is not None:
            self.folder = local_backbone(self._reference, default_cache())
            self.encoder = self._from_backbone(cfg, self.folder, has_model)
        elif facts is not None:
            self.encoder = build_encoder(
                facts["architecture"], facts["model_args"], **_training(cfg)
            )
        elif has_model:
            self.encoder = make(cfg.model)
        else:
            raise UserError(f"{_OWN} takes the backbone's architecture: give backbone=, or a model")

    def _from_backbone(self, cfg: DictConfig, folder: Path, has_model: bool) -> Encoder:
        sizes = (
            {} if has_model else {key: cfg.model.get(key) for key in ("img_size_px", "window_size")}
        )
        backbone = load_backbone(folder, **sizes, **_training(cfg))
        self._before = encoder = backbone.encoder
        if has_model:
            encoder = _as_asked(encoder, make(cfg.model), _training(cfg))
        if encoder.in_chans != cfg.data.channels:
            raise UserError(
                f"backbone={cfg.backbone} takes images of {encoder.in_chans} channels, and "
                f"data.channels is {cfg.data.channels}: set data.channels={encoder.in_chans} with "
                "a mean and a std for each, or start from weights for such images"
            )
        warn_of_other_normalisation(cfg.data, backbone.mean, backbone.std)
        return encoder

    def take_over(self, objective: Objective) -> None:
        """Loads what lies beside the backbone for this objective, and prints what was taken."""
        if self.folder is None or self._before is None:
            return
        taken = load_extra_weights(self.folder, objective.extra_weights())
        parts = ["encoder" + self._resized(objective.encoder), *taken]
        left = [n for n, _ in objective.named_parameters() if n not in taken]
        rest = dict.fromkeys(name.partition(".")[0] for name in left)
        rest.pop("encoder", None)
        fresh = f"; {', '.join(rest)} not from there" if rest else ""
        say(f"starting from {self._reference}: {', '.join(parts)}{fresh}")

    def _resized(self, encoder: Encoder) -> str:
        assert self._before is not None
        before, after = ("x".join(map(str, e.img_size_px)) for e in (self._before, encoder))
        if before != after:
            return f" (resized from {before} to {after} px)"
        return "" if self._before.model_args == encoder.model_args else " (fitted to its window)"


def _as_asked(own: Encoder, asked: Encoder, training: dict[str, Any]) -> Encoder:
    """Returns the backbone's encoder at the size and window of the model that was asked for.

    Position biases of Swin V2 stay in units of the window that they were trained with.
    """
    way_out = f"name the backbone's model, or {_OWN} to take its own at its own size"
    check_same_architecture(own, asked, but=_RESIZED, way_out=way_out)
    if all(own.model_args.get(key) == asked.model_args.get(key) for key in _SIZES):
        return own
    window = asked.model_args.get("window_size")
    return resize_encoder(own, img_size_px=asked.img_size_px, window_size=window, **training)


def _training(cfg: DictConfig) -> dict[str, Any]:
    return {
        "drop_path_rate": cfg.model.get("drop_path_rate", 0.0),
        "grad_checkpointing": cfg.model.get("grad_checkpointing", False),
    }


def _facts(checkpoint: Path) -> dict[str, Any] | None:
    """Returns what a checkpoint says of its encoder; None of one before 0.2.0."""
    facts = open_state(checkpoint).get(FACTS)
    return facts if isinstance(facts, dict) else None

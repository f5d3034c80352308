"""The step of each objective of `conf/objective`, at its own settings, on one encoder and images.

A step is all that a run does: both views, teachers and momentum targets, and what follows the
optimiser. Examples are made as in a loader, of images of noise. A teacher is a network as large as
the student.
"""

import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from lightning.fabric.utilities.apply_func import move_data_to_device
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor
from torch.optim import AdamW

from benchmarks.step.variants import MAX_GRADIENT_NORM, RECIPE, Absent, Prepared, Variant
from benchmarks.step.workload import CONF, Workload, load_settings
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.errors import UserError
from ssl_swin.objectives.base import Objective, Progress
from ssl_swin.optim.param_groups import weight_decay_groups
from ssl_swin.pixels import normalize
from ssl_swin.training.clipping import clip_gradients
from ssl_swin.weights.backbone import save_backbone

REFERENCE = "simmim"
NAMES = (REFERENCE, *sorted({p.stem for p in (CONF / "objective").glob("*.yaml")} - {REFERENCE}))
HALFWAY = Progress(step=50, num_steps=100, steps_per_epoch=1)  # past what changes at the start


@dataclass(frozen=True)
class ObjectiveVariant(Variant):
    """An objective's step; `prepare` takes a mask for the sign of a further batch, no more."""

    def step(self, mask: Prepared) -> None:
        """Trains once on a batch, as the loop does."""
        objective: Any = self.model
        self.loss(mask).backward()  # type: ignore[no-untyped-call]
        objective.after_backward()
        clip_gradients([*objective.parameters()], MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        objective.after_step(HALFWAY.step + 1)


def build_objective(name: str, workload: Workload, original: object = None) -> Variant | Absent:
    """Builds an objective around the workload's encoder.

    Args:
        name: One of `NAMES`.
        workload: What all are given.
        original: Not used; see `variants.build`.

    Returns:
        The variant, or why it cannot take part.
    """
    settings = load_settings(f"objective={name}")
    encoder = workload.fresh_encoder()
    encoder.load_state_dict(workload.encoder.state_dict())
    torch.manual_seed(workload.seed)  # for heads
    try:
        objective = _objective(settings, encoder)
        number = len(workload.images)
        objective.check_batch_size(number, number)
    except UserError as error:
        return Absent(name, str(error))
    objective.before_step(HALFWAY)
    objective.to(workload.device)
    normalized = partial(normalize, mean=list(settings.data.mean), std=list(settings.data.std))
    return ObjectiveVariant(
        name,
        objective,
        lambda _, batch: objective(batch, normalized).loss,
        _batches(objective, settings, workload),
        AdamW(weight_decay_groups(objective, **RECIPE, policy="official"), fused=True),
        workload,
        is_simmim=False,
    )


def _objective(settings: DictConfig, encoder: Any) -> Objective:
    """Builds an objective; a teacher that has to be named is the encoder as it is now."""
    with tempfile.TemporaryDirectory() as folder:
        if OmegaConf.is_missing(settings.objective, "teacher"):
            data = settings.data
            save_backbone(folder, encoder, mean=list(data.mean), std=list(data.std), card="")
            settings.objective.teacher = folder
        objective: Objective = instantiate(settings.objective)(encoder)
    return objective


def _batches(
    objective: Objective, settings: DictConfig, workload: Workload
) -> Callable[[Tensor], Prepared]:
    """Returns what makes the next batch: that of the next epoch of the same images."""
    size = workload.encoder.img_size_px
    augment = instantiate(settings.augment)(size)
    pixels = PixelFormat.from_settings(settings.data)
    transform = objective.make_transform(augment, pixels, seed=workload.seed)
    collate = objective.make_collate()
    samples = [_noise(size, number) for number in range(len(workload.images))]
    epochs = count()

    def prepare(_: Tensor) -> Prepared:
        epoch = next(epochs)
        batch = collate([transform(sample, epoch) for sample in samples])
        return move_data_to_device(batch, workload.device)

    return prepare


def _noise(size: tuple[int, int], number: int) -> EncodedSample:
    levels = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    return EncodedSample.of_image(file.getvalue(), "png", None, str(number))

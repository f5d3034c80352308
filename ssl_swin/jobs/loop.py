"""What the jobs that train share: loaders and a Lightning module around an objective."""

from collections.abc import Mapping

from omegaconf import DictConfig

from ssl_swin.data.box_lists import BOXES
from ssl_swin.data.encoded import MASK
from ssl_swin.data.loading.paired import UNLABELLED
from ssl_swin.data.loading.protocol import Split
from ssl_swin.data.samples import LabeledTransform, PixelFormat
from ssl_swin.data.transforms import CentreCrop
from ssl_swin.launch.targets import make
from ssl_swin.objectives.base import Objective
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.module import TrainingModule


def training_data(
    cfg: DictConfig, readers: Mapping[str, Split], objective: Objective
) -> ImageDataModule:
    """Return the loaders of what an objective is trained on and evaluated with.

    Args:
        cfg: Configuration of the job.
        readers: Data by split; images of `UNLABELLED` join every batch of training.
        objective: Says how a sample becomes an example, and examples a batch.

    Raises:
        UserError: If the augmentation cannot change samples of this kind.
    """
    pixels = PixelFormat.from_settings(cfg.data)
    augment = make(cfg.augment)(objective.view_size_px)
    crop_ratio = cfg.get("eval_crop_ratio", 1.0)  # of jobs that look at whole images: for probes
    evaluation = objective.make_evaluation(crop_ratio)
    centre_crop = CentreCrop(objective.encoder.img_size_px, crop_ratio=crop_ratio)
    augment.check_samples(
        channels=cfg.data.channels,
        dtype=cfg.data.dtype,
        is_annotated=not {MASK, BOXES}.isdisjoint(objective.members),
    )
    unlabelled, companion = readers.get(UNLABELLED), None
    if unlabelled is not None:
        companion = objective.make_companion(unlabelled, pixels, seed=cfg.seed)
    return ImageDataModule(
        {split: reader for split, reader in readers.items() if split != UNLABELLED},
        train_samples=objective.make_transform(augment, pixels, seed=cfg.seed),
        eval_samples=objective.make_transform(evaluation, pixels, seed=cfg.seed),
        labelled_samples=LabeledTransform(centre_crop, pixels, seed=cfg.seed),
        collate=objective.make_collate(),
        batch_size=cfg.batch_size,
        num_workers=cfg.num_workers,
        seed=cfg.seed,
        companion=companion,
    )


def training_module(cfg: DictConfig, objective: Objective, suffix: str = "") -> TrainingModule:
    """Return the Lightning module that trains an objective.

    Args:
        cfg: Configuration of the job.
        objective: What to train.
        suffix: Appended to the names of evaluation metrics.
    """
    return TrainingModule(
        objective,
        optimizer=make(cfg.optim),
        schedule=make(cfg.schedule),
        mean=list(cfg.data.mean),
        std=list(cfg.data.std),
        seed=cfg.seed,
        suffix=suffix,
        freeze_backbone_epochs=cfg.get("freeze_backbone_epochs"),
    )

"""A tiny pretraining run, to hang callbacks on."""

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from PIL import Image

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.samples import LabeledTransform, PixelFormat
from ssl_swin.data.transforms import CentreCrop
from ssl_swin.encoders.swin import swin
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.optim.schedules import CosineSchedule
from ssl_swin.training.callbacks.probes import Probes
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.metrics_csv import MetricsCsv
from ssl_swin.training.module import TrainingModule
from ssl_swin.training.optim import pretrain_optimizer
from ssl_swin.training.progress import TrainingProgress

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}


class Shades(ImageDataset):
    """Images of one shade each, class by class; light ones are of the last class."""

    fingerprint = "shades"

    def __init__(self, length: int, num_classes: int) -> None:
        self.classes = tuple("ab"[:num_classes])
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> EncodedSample:
        label = 2 * index // self.length
        shade = np.random.default_rng(index).integers(0, 40, 3) + 180 * label
        file = io.BytesIO()
        Image.new("RGB", (16, 16), tuple(map(int, shade))).save(file, "PNG")
        return EncodedSample.of_image(
            file.getvalue(), "png", label if self.classes else None, str(index)
        )


Pretrain = Callable[..., Trainer]


@pytest.fixture
def make_probes() -> Callable[..., Probes]:
    def make_probes(folder: Path, **settings: Any) -> Probes:
        """Probes of all images, as often as they are asked for."""
        defaults: dict[str, Any] = {
            **{"every_n_steps": 2, "num_train_images": 12, "k": 3, "temperature": 0.07},
            **{"linear_epochs": 9, "linear_base_lr": 0.3, "max_s": 1000, "max_time_ratio": 1.0},
        }
        return Probes(folder / "probes", **{**defaults, **settings})

    return make_probes


@pytest.fixture
def pretrain(tmp_path: Path) -> Pretrain:
    def pretrain(
        callback: Callback,
        *,
        loggers: Sequence[Any] = (),
        num_classes: int = 2,
        num_val: int = 6,
        freeze_backbone_epochs: float | None = None,
        ckpt_path: Path | None = None,
        **options: Any,
    ) -> Trainer:
        """Trains on 12 images in batches of 4: three steps an epoch."""
        torch.manual_seed(0)
        encoder = swin(
            version=1, img_size_px=16, window_size=2, embed_dim=8, depths=(1, 1), num_heads=(1, 2)
        )
        objective = SimMIM(encoder, mask_ratio=0.5, mask_patch_size_px=8)
        module = TrainingModule(
            objective,
            seed=0,
            optimizer=partial(
                pretrain_optimizer,
                base_lr=0.5,  # 0.004 for 4 images
                weight_decay=0.05,
                betas=(0.9, 0.999),
                eps=1e-8,
                weight_decay_policy="official",
            ),
            schedule=CosineSchedule(0, 0.0, 0.0, warmup_prefix=False),
            mean=[0.5] * 3,
            std=[0.25] * 3,
            freeze_backbone_epochs=freeze_backbone_epochs,
        )
        crop, pixels = CentreCrop((16, 16)), PixelFormat(3, "uint8")
        samples = objective.make_transform(crop, pixels, seed=0)
        lengths = {"train": 12, "val": num_val}
        data = ImageDataModule(
            {
                s: IndexedSplit(Shades(n, num_classes), OrderConstants(64, 512, 1))
                for s, n in lengths.items()
                if n
            },
            train_samples=samples,
            eval_samples=samples,
            labelled_samples=LabeledTransform(crop, pixels, seed=0),
            collate=objective.make_collate(),
            batch_size=4,
            num_workers=0,
            seed=0,
        )
        progress = TrainingProgress()
        options = {"max_epochs": 2, "log_every_n_steps": 2, **QUIET, **options}
        trainer = Trainer(
            callbacks=[progress, callback],
            logger=[
                MetricsCsv(tmp_path / "metrics.csv", resume=False, progress=progress),
                *loggers,
            ],
            enable_checkpointing=False,
            default_root_dir=tmp_path,
            **options,
        )
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
        return trainer

    return pretrain


@pytest.fixture
def logged() -> Callable[[Trainer, str], dict[int, float]]:
    def logged(trainer: Trainer, name: str) -> dict[int, float]:
        """Values of a metric by step."""
        (logger, *_) = trainer.loggers
        assert isinstance(logger, MetricsCsv)
        rows = logger.file.rows(after=-1, up_to=10**9)
        return {step: row[name] for step, row in rows if name in row}

    return logged

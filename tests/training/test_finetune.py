import io
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from PIL import Image

from ssl_swin.data.batch import collate_labeled
from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.loading.protocol import LoaderConfig
from ssl_swin.data.samples import LabeledTransform, PixelFormat
from ssl_swin.data.transforms import CentreCrop
from ssl_swin.errors import UserError
from ssl_swin.optim.schedules import CosineSchedule
from ssl_swin.tasks.classification import Classification
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.module import TrainingModule
from ssl_swin.training.optim import finetune_optimizer

SAMPLES = LabeledTransform(CentreCrop((16, 16)), PixelFormat(3, "uint8"), seed=0)


class Noise(ImageDataset):
    """Pictures of noise; every third is of the same class."""

    classes = ("a", "b", "c")
    fingerprint = "noise"

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> EncodedSample:
        pixels = np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "png")
        return EncodedSample.of_image(file.getvalue(), "png", index % 3, str(index))


def reader(length: int) -> IndexedSplit:
    return IndexedSplit(Noise(length), OrderConstants(4, 64, 1))


def data_module(batch_size: int = 2, **lengths: int) -> ImageDataModule:
    return ImageDataModule(
        {split: reader(length) for split, length in lengths.items()},
        train_samples=SAMPLES,
        eval_samples=SAMPLES,
        collate=collate_labeled,
        batch_size=batch_size,
        num_workers=0,
        seed=0,
    )


@pytest.fixture
def module(tiny_encoder) -> TrainingModule:
    """Learns nothing: its rate is 0. Its scores are far apart."""
    encoder = tiny_encoder(
        img_size_px=16, patch_size_px=2, window_size=2, depths=(2, 1), num_heads=(1, 2)
    )
    model = Classification(encoder, Noise.classes)
    torch.nn.init.normal_(model.head.weight)
    return make_module(model)


def make_module(model: Classification, **changes: Any) -> TrainingModule:
    recipe = {"base_lr": 1e-30, "weight_decay": 0.0, "betas": (0.9, 0.999), "eps": 1e-8}
    return TrainingModule(
        model,
        optimizer=partial(finetune_optimizer, layer_decay=1.0, **recipe),
        schedule=CosineSchedule(warmup_epochs=0, warmup_lr=0, min_lr=0, warmup_prefix=False),
        mean=[0.5] * 3,
        std=[0.5] * 3,
        seed=0,
        **changes,
    )


def trainer(**options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )


def by_hand(module: TrainingModule, length: int) -> dict[str, float]:
    """All images in one batch."""
    loader = reader(length).eval_loader(SAMPLES, collate_labeled, LoaderConfig(length, 0, 0, 1))
    (batch,) = loader
    with torch.no_grad():
        scores = module.eval().model.predict(module.normalized(batch.pixels))
    right = scores.argmax(1) == batch.labels
    loss = F.cross_entropy(scores, batch.labels)
    return {"val/loss": loss.item(), "val/top1": right.float().mean().item()}


@pytest.mark.slow
@pytest.mark.parametrize("num_images", [5, 7, 8])
def test_validation__counts_every_image_once_over_two_devices(module, num_images):
    """Of 5 images one device gets two batches and the other one; of 7 the last ones differ."""
    expected = by_hand(module, num_images)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a forked process may not use its parent's
    try:
        two = trainer(devices=2, strategy="ddp_fork")
        two.fit(module, datamodule=data_module(train=8, val=num_images))
    finally:
        torch.set_num_threads(threads)
    measured = {name: two.callback_metrics[name].item() for name in expected}
    assert measured == pytest.approx(expected, rel=1e-5)


def test_validation__counts_images_and_not_batches(module):
    """Batches of 4 and 1: the mean over batches would give the last image the weight of four."""
    (measured,) = trainer(devices=1).validate(
        module, datamodule=data_module(batch_size=4, train=8, val=5), verbose=False
    )
    assert measured == pytest.approx(by_hand(module, 5), rel=1e-5)


def test_suffix__tells_two_measurements_apart(module):
    other = make_module(module.model, suffix="_at_16px")
    data = data_module(train=8, val=5, test=6)
    (val,) = trainer(devices=1).validate(other, datamodule=data, verbose=False)
    (test,) = trainer(devices=1).test(other, datamodule=data, verbose=False)
    names = [f"{split}/{name}_at_16px" for split in ("test", "val") for name in ("loss", "top1")]
    assert sorted(val | test) == names
    expected = by_hand(module, 6)["val/top1"]
    assert test["test/top1_at_16px"] == pytest.approx(expected)


def test_mixing__refuses_an_odd_batch(module):
    mixing = Classification(module.model.encoder, Noise.classes, mixup_alpha=0.8)
    mixing.check_batch_size(4, 8)
    module.model.check_batch_size(3, 3)  # nothing is mixed
    with pytest.raises(UserError, match="batch_size 3 must be even"):
        mixing.check_batch_size(3, 6)

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from torch.optim import SGD
from torch.utils.data import DataLoader

from ssl_swin.data.batch import collate_masked
from ssl_swin.data.indexed import IndexedReader
from ssl_swin.data.order import OrderConstants
from ssl_swin.data.records import ImageRecord
from ssl_swin.data.samples import MaskedSamples
from ssl_swin.data.transforms import CentreCropView
from ssl_swin.encoders import swin
from ssl_swin.errors import UserError
from ssl_swin.schedules import CosineSchedule
from ssl_swin.simmim import SimMIM
from ssl_swin.training.callbacks import throughput
from ssl_swin.training.callbacks.checkpoint import StepCheckpoint
from ssl_swin.training.callbacks.knn_probe import KnnProbe
from ssl_swin.training.callbacks.reconstructions import Reconstructions
from ssl_swin.training.callbacks.throughput import Throughput
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.metrics_csv import MetricsCsv
from ssl_swin.training.optim import pretrain_optimizer
from ssl_swin.training.pretrain import PretrainModule

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}


# StepCheckpoint


class OneWeight(LightningModule):
    """Pulls a weight to each batch in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return (self.weight - batch).square().mean()

    def configure_optimizers(self) -> SGD:
        return SGD(self.parameters(), lr=0.1)


class Saves(Callback):
    """Writes down (optimiser steps, batches) of every checkpoint, and stops after a batch."""

    def __init__(self, last_batch: int) -> None:
        self.last_batch = last_batch
        self.saves: list[tuple[int, int]] = []

    def on_save_checkpoint(self, trainer: Trainer, *args: Any) -> None:
        self.saves.append((trainer.global_step, self.num_batches(trainer)))

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        trainer.should_stop = self.num_batches(trainer) >= self.last_batch

    def num_batches(self, trainer: Trainer) -> int:
        return trainer.fit_loop.epoch_loop.batch_progress.current.ready


def saves_of_a_run(
    checkpoint: type[ModelCheckpoint], folder: Path, last_batch: int, resume_from: Path | None
) -> list[tuple[int, int]]:
    saves = Saves(last_batch)
    save = checkpoint(dirpath=folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    options = {"max_epochs": 1, "accumulate_grad_batches": 3, "logger": False, **QUIET}
    trainer = Trainer(callbacks=[saves, save], **options)
    trainer.fit(OneWeight(), DataLoader(torch.arange(12.0)), ckpt_path=resume_from)
    return saves.saves


@pytest.mark.parametrize(
    ("checkpoint", "after_resuming"),
    [
        (StepCheckpoint, [(3, 9), (4, 12)]),
        (ModelCheckpoint, [(2, 7), (3, 9), (4, 12)]),  # the error that StepCheckpoint is there for
    ],
)
def test_step_checkpoint__never_saves_inside_an_accumulation(tmp_path, checkpoint, after_resuming):
    assert saves_of_a_run(checkpoint, tmp_path, 6, None) == [(1, 3), (2, 6)]
    resume_from = tmp_path / "step=2.ckpt"
    assert saves_of_a_run(checkpoint, tmp_path, 12, resume_from) == after_resuming


# Throughput


class Run:
    """Plays Lightning's hooks to a callback by the clock; keeps what it logs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **trainer: int) -> None:
        self.now_s = 5000.0
        monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: self.now_s))
        self.trainer = SimpleNamespace(global_step=0, **trainer)
        self.logged: list[dict[str, float]] = []
        self.module = SimpleNamespace(log=lambda name, value: self.logged[-1].update({name: value}))
        self.callback: Any = Throughput()
        self.callback.on_train_start(self.trainer, self.module)

    def start_epoch(self) -> None:
        self.callback.on_train_epoch_start(self.trainer, self.module)

    def batch(self, wait_s: float, work_s: float, steps: bool = True) -> dict[str, float]:
        """Gives what was logged at the end of a batch of 8 images."""
        self.logged.append({})
        batch = (torch.zeros(8, 1), None)
        self.now_s += wait_s
        self.callback.on_train_batch_start(self.trainer, self.module, batch, 0)
        self.now_s += work_s
        self.trainer.global_step += steps
        self.callback.on_train_batch_end(self.trainer, self.module, None, batch, 0)
        return self.logged[-1]


def test_throughput__window_of_two_steps_on_four_devices(monkeypatch):
    run = Run(monkeypatch, log_every_n_steps=2, world_size=4)
    run.start_epoch()
    assert run.batch(wait_s=1.0, work_s=3.0) == {}
    first = run.batch(wait_s=0.5, work_s=3.5)  # 2 * 8 * 4 images in 8 s
    assert first == {"perf/samples_per_s": 8.0, "perf/data_wait_frac": 1.5 / 8}
    assert run.batch(wait_s=0.0, work_s=1.0) == {}
    second = run.batch(wait_s=3.0, work_s=0.0)
    assert second == {"perf/samples_per_s": 16.0, "perf/data_wait_frac": 0.75}


def test_throughput__window_over_epochs_leaves_out_what_lies_between(monkeypatch):
    run = Run(monkeypatch, log_every_n_steps=3, world_size=1)
    run.start_epoch()
    run.batch(wait_s=1.0, work_s=1.0)
    run.now_s += 1000.0  # validation, checkpoints
    run.start_epoch()
    run.batch(wait_s=1.0, work_s=1.0)
    run.now_s += 500.0
    run.callback.on_validation_end(run.trainer, run.module)
    logged = run.batch(wait_s=2.0, work_s=2.0)
    assert logged == {"perf/samples_per_s": 24 / 8, "perf/data_wait_frac": 0.5}


def test_throughput__accumulated_batches_belong_to_their_step(monkeypatch):
    run = Run(monkeypatch, log_every_n_steps=2, world_size=1)
    run.start_epoch()
    logs = [run.batch(wait_s=1.0, work_s=1.0, steps=steps) for steps in [False, True] * 4]
    expected = {"perf/samples_per_s": 4.0, "perf/data_wait_frac": 0.5}
    assert logs == [{}, {}, {}, expected] * 2


def test_throughput__off_where_nothing_is_logged(monkeypatch):
    run = Run(monkeypatch, log_every_n_steps=0, world_size=1)
    assert [run.batch(wait_s=1.0, work_s=1.0) for _ in range(3)] == [{}, {}, {}]


# A tiny pretraining run


class Shades:
    """Images of one shade each, class by class; light ones are of the last class."""

    fingerprint = "shades"

    def __init__(self, length: int, num_classes: int) -> None:
        self.classes = tuple("ab"[:num_classes])
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> ImageRecord:
        label = 2 * index // self.length
        shade = np.random.default_rng(index).integers(0, 40, 3) + 180 * label
        file = io.BytesIO()
        Image.new("RGB", (16, 16), tuple(map(int, shade))).save(file, "PNG")
        return ImageRecord(file.getvalue(), "png", label if self.classes else None, str(index))


Pretrain = Callable[..., Trainer]


@pytest.fixture
def pretrain(tmp_path: Path) -> Pretrain:
    def pretrain(
        callback: Callback,
        *,
        loggers: Sequence[Any] = (),
        num_classes: int = 2,
        num_val: int = 6,
        **options: Any,
    ) -> Trainer:
        """Trains on 12 images in batches of 4: three steps an epoch."""
        torch.manual_seed(0)
        encoder = swin(
            version=1, img_size_px=16, window_size=2, embed_dim=8, depths=(1, 1), num_heads=(1, 2)
        )
        module = PretrainModule(
            SimMIM(encoder),
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
        )
        samples = MaskedSamples(
            CentreCropView((16, 16)),
            channels=3,
            dtype="uint8",
            mask_units=(2, 2),
            mask_ratio=0.5,
            seed=0,
        )
        lengths = {"train": 12, "val": num_val}
        data = ImageDataModule(
            {
                s: IndexedReader(Shades(n, num_classes), OrderConstants(64, 512, 1))
                for s, n in lengths.items()
                if n
            },
            train_samples=samples,
            eval_samples=samples,
            collate=collate_masked,
            batch_size=4,
            num_workers=0,
            seed=0,
        )
        options = {"max_epochs": 2, "log_every_n_steps": 2, **QUIET, **options}
        trainer = Trainer(
            callbacks=[callback],
            logger=[MetricsCsv(tmp_path / "metrics.csv", resume=False), *loggers],
            enable_checkpointing=False,
            default_root_dir=tmp_path,
            **options,
        )
        trainer.fit(module, datamodule=data)
        return trainer

    return pretrain


def logged(trainer: Trainer, name: str) -> dict[int, float]:
    """Values of a metric by step."""
    (logger, *_) = trainer.loggers
    assert isinstance(logger, MetricsCsv)
    return {step: row[name] for step, row in logger.rows.items() if name in row}


def test_throughput__reaches_the_logger_at_every_logged_step(pretrain):
    trainer = pretrain(Throughput())
    steps = list(logged(trainer, "train/loss"))
    assert steps == [1, 3, 5]  # Lightning counts from 0
    assert list(logged(trainer, "perf/samples_per_s")) == steps
    assert all(0 < wait < 1 for wait in logged(trainer, "perf/data_wait_frac").values())


# Reconstructions


class ImageLogger(MetricsCsv):
    """Keeps the pictures that it is given."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, resume=False)
        self.pictures: list[tuple[int, Image.Image]] = []

    def log_image(self, key: str, images: list[Image.Image], step: int) -> None:
        assert key == "recon/grid"
        self.pictures += [(step, image) for image in images]


@pytest.mark.parametrize(
    ("options", "every_n_steps", "steps"),
    [
        ({}, 2, [0, 2, 4, 6]),
        ({}, 4, [0, 4, 6]),  # and at the end
        ({"accumulate_grad_batches": 3}, 1, [0, 1, 2]),
        ({"num_val": 0}, 100, [0, 6]),  # of training images where none are held out
    ],
)
def test_reconstructions__pictures_and_steps(pretrain, tmp_path, options, every_n_steps, steps):
    folder = tmp_path / "reconstructions"
    logger = ImageLogger(tmp_path / "other.csv")
    callback = Reconstructions(folder, every_n_steps=every_n_steps, num_images=3)
    pretrain(callback, loggers=[logger], **options)
    names = [f"step_{step:07d}.png" for step in steps]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert [step for step, _ in logger.pictures] == steps
    pictures = [Image.open(folder / name) for name in names]
    assert {picture.size for picture in pictures} == {(4 * (16 + 2), 16 + 3 * (16 + 2))}
    drawn = [np.asarray(picture) for picture in pictures]
    sent = [np.asarray(picture) for _, picture in logger.pictures]
    assert all((one == other).all() for one, other in zip(sent, drawn, strict=True))
    # The same images under the same masks; the model's idea of them changes.
    inputs, predictions = slice(0, 2 * 18), slice(2 * 18, 3 * 18)
    assert all((d[16:, inputs] == drawn[0][16:, inputs]).all() for d in drawn)
    assert all((d[16:, predictions] != drawn[0][16:, predictions]).any() for d in drawn[1:])


def test_reconstructions__draws_the_bands_that_are_asked_for(pretrain, tmp_path):
    bands = {"as they are": None, "turned": [2, 1, 0]}
    for name, chosen in bands.items():
        pretrain(
            Reconstructions(tmp_path / name, every_n_steps=9, num_images=3, bands=chosen),
            max_epochs=1,
        )
    one, other = (np.asarray(Image.open(tmp_path / name / "step_0000000.png")) for name in bands)
    inputs = np.s_[16:, :16]
    assert (one[inputs] == other[inputs][..., ::-1]).all()
    assert (one[inputs] != other[inputs]).any()


def test_reconstructions__bands_that_are_not_there(pretrain, tmp_path):
    callback = Reconstructions(tmp_path / "r", every_n_steps=1, num_images=2, bands=[0, 1, 3])
    with pytest.raises(UserError, match="one or three from 0 to 2, got"):
        pretrain(callback)
    assert not (tmp_path / "r").exists()


def test_reconstructions__do_not_change_the_training(pretrain, tmp_path):
    drawing = pretrain(Reconstructions(tmp_path / "r", every_n_steps=1, num_images=2))
    weights = drawing.lightning_module.state_dict()
    assert drawing.lightning_module.training
    plain = pretrain(Callback()).lightning_module.state_dict()
    assert all(weights[name].equal(tensor) for name, tensor in plain.items())


# KnnProbe


def knn_probe(num_train_images: int = 12) -> KnnProbe:
    return KnnProbe(every_n_epochs=2, num_train_images=num_train_images, k=3, temperature=0.07)


def test_knn_probe__logs_every_stage_in_percent(pretrain):
    trainer = pretrain(knn_probe(), max_epochs=3)
    for stage in (1, 2):  # dark from light is easy; of 6 images, all
        top1 = logged(trainer, f"probe/knn_top1/stage{stage}")
        assert list(top1) == [0, 6]  # untrained, and after the second epoch
        assert top1[0] == 100.0 and top1[6] > 60.0
    assert not logged(trainer, "probe/knn_top1/stage3")


def test_knn_probe__small_bank_has_all_classes(pretrain):
    trainer = pretrain(knn_probe(num_train_images=4), max_epochs=1)
    assert logged(trainer, "probe/knn_top1/stage1") == {0: 100.0}


@pytest.mark.parametrize("options", [{"num_classes": 0}, {"num_classes": 1}, {"num_val": 0}])
def test_knn_probe__does_nothing_without_labels_or_val(pretrain, options):
    trainer = pretrain(knn_probe(), **options)
    assert trainer.global_step == 6
    assert not any("knn" in name for row in trainer.loggers[0].rows.values() for name in row)

"""The parts of a run, built from its configuration."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra.utils import instantiate
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from ssl_swin.data.loading.opening import open_splits
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.loading.protocol import Split
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.resize import resize_encoder
from ssl_swin.errors import UserError
from ssl_swin.files import make_folder
from ssl_swin.launch.artifacts import local_backbone
from ssl_swin.launch.quiet import quiet_libraries
from ssl_swin.runs.folder import RunFolder, flatten
from ssl_swin.training.callbacks.batch_digest import BatchDigest
from ssl_swin.training.checkpointing.io import AtomicCheckpointIO
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.metrics_csv import MetricsCsv
from ssl_swin.training.module import TrainingModule
from ssl_swin.weights.backbone import check_same_architecture, load_backbone
from ssl_swin.weights.sources import default_cache

# Sections whose settings are numbers, flags or lists, and the settings there that may be words.
NUMERIC = {"seed", "batch_size", "num_workers", "model", "objective", "optim"}
NUMERIC |= {"schedule", "trainer", "task", "linear", "knn", "labels", "ema_decay"}
NUMERIC |= {"compile", "img_size_px", "window_size", "test_img_size_px"}
WORDS = {"_target_", "accelerator", "devices", "strategy", "precision"}
WORDS |= {"weight_decay_policy", "optimizer"}


@dataclass(frozen=True)
class Run:
    """One run: its configuration, its folder, and where it starts from."""

    cfg: DictConfig
    config: dict[str, Any]  # resolved, plain
    folder: RunFolder
    checkpoint: Path | None
    started: float

    @property
    def name(self) -> str:
        """Last part of the run's folder."""
        return self.folder.path.name


@rank_zero_only
def say(text: str) -> None:
    """Prints on the first process only."""
    print(text, flush=True)


def is_first_process() -> bool:
    """False in the other processes of a distributed run."""
    return getattr(rank_zero_only, "rank", 0) == 0


def open_run(cfg: DictConfig) -> Run:
    """Checks the configuration and the run's folder; nothing is written yet.

    Raises:
        UserError: If the folder holds another run.
    """
    config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(config, dict)
    plain: dict[str, Any] = {str(key): value for key, value in config.items()}
    _check_numbers(plain)
    quiet_libraries()
    seed_everything(cfg.seed, verbose=False)
    folder = RunFolder(cfg.run_dir)
    resume = plain.get("resume", "auto")
    if resume == "never" and not is_first_process():
        resume = "auto"  # the first process has just created the folder
    checkpoint = folder.checkpoint_to_resume(resume, plain)
    return Run(cfg, plain, folder, checkpoint, time.time())


def _check_numbers(config: Mapping[str, Any]) -> None:
    """Refuses words where Lightning would stumble over them much later."""
    for key, value in flatten(config).items():
        section, _, _ = key.partition(".")
        if section in NUMERIC and key.rpartition(".")[2] not in WORDS and isinstance(value, str):
            raise UserError(f"{key} must be a number, got {value!r}")
    for key in ("batch_size", "num_workers"):
        lowest = 1 if key == "batch_size" else 0
        if config[key] < lowest:
            raise UserError(f"{key} must be at least {lowest}, got {config[key]}")


def open_data(cfg: DictConfig) -> dict[str, Split]:
    """Opens the splits of `cfg.data`, making the set first if it is one that can be made."""
    data = cfg.data
    if data.prepare is not None:
        root = Path(data.root)
        with FileLock(make_folder(root.parent) / f".{root.name}.lock"):
            instantiate(data.prepare)
    readers = open_splits(
        data.root,
        data.reader,
        how_to_make=data.how_to_make or "",
        order=OrderConstants(**data.order),
        val_ratio=data.get("val_ratio", 0.0),
        index_dir=data.index_dir,
        cache=data.cache,
        num_samples=data.num_samples,
    )
    for split, reader in readers.items():
        say(f"{split}: {reader.summary()}")
    if readers["train"].warning:
        say(f"note: {readers['train'].warning}")
    return readers


def check_labelled(readers: Mapping[str, Split], needed: tuple[str, ...]) -> tuple[str, ...]:
    """Gives the class names of labelled data.

    Raises:
        UserError: If there are none, or a split is missing.
    """
    missing = [split for split in needed if split not in readers]
    if missing:
        raise UserError(
            f"the data has no {' and no '.join(missing)} split, only {', '.join(readers)}; "
            "pack it with --val-ratio, or from a folder that holds train/ and val/"
        )
    classes = readers["train"].classes
    if len(classes) < 2:
        raise UserError(
            f"classification needs two classes or more, the data names {len(classes)}: "
            "pack a folder with one sub-folder per class, or put classes.txt beside the shards"
        )
    return classes


def build_encoder(cfg: DictConfig) -> Encoder:
    """Load `cfg.backbone`, or with none build `cfg.model` with random weights.

    Either way at `cfg.img_size_px` and `cfg.window_size`, where they are set, and with the
    `drop_path_rate` and `grad_checkpointing` of `cfg.model`.

    Raises:
        UserError: If backbone and model contradict each other, neither says what to build, or the
            encoder cannot take the size.
    """
    model = cfg.model
    has_model = model.get("_target_") is not None
    if cfg.backbone == "none":
        if not has_model:
            raise UserError(
                "backbone=none starts from random weights: name a model, as model=swin_t"
            )
        return _resized(cfg, instantiate(model))
    backbone = load_backbone(
        local_backbone(cfg.backbone, default_cache()),
        img_size_px=cfg.img_size_px,
        window_size=cfg.window_size,
        drop_path_rate=model.drop_path_rate,
        grad_checkpointing=model.grad_checkpointing,
    )
    if has_model:
        check_same_architecture(backbone.encoder, _resized(cfg, instantiate(model)))
    _warn_of_other_normalisation(cfg.data, backbone.mean, backbone.std)
    return backbone.encoder


def _resized(cfg: DictConfig, encoder: Encoder) -> Encoder:
    if cfg.img_size_px is None and cfg.window_size is None:
        return encoder
    return resize_encoder(
        encoder,
        img_size_px=cfg.img_size_px,
        window_size=cfg.window_size,
        drop_path_rate=cfg.model.drop_path_rate,
        grad_checkpointing=cfg.model.grad_checkpointing,
    )


def _warn_of_other_normalisation(
    data: DictConfig, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    if (tuple(data.mean), tuple(data.std)) != (mean, std):
        say(
            f"note: the backbone was trained with mean {mean} and std {std}, the data has "
            f"{tuple(data.mean)} and {tuple(data.std)}; set data.mean and data.std to match"
        )


def make_loggers(run: Run) -> list[Logger]:
    """The run's metrics.csv, and the logger that the configuration asks for."""
    loggers: list[Logger] = [MetricsCsv(run.folder.metrics, resume=run.checkpoint is not None)]
    logger = run.cfg.logger
    if logger.get("_target_") is not None:
        # One process decides on the run's id; the others log nothing.
        known = "id" in logger and is_first_process()
        identity = {"id": run.folder.identity()} if known else {}
        loggers.append(instantiate(logger, **identity))
    return loggers


def make_trainer(run: Run) -> Trainer:
    """Lightning's trainer with the run's callbacks and checkpoints; `fit` adds the loggers."""
    trainer: Trainer = instantiate(
        run.cfg.trainer,
        callbacks=_callbacks(run),
        logger=False,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=str(run.folder.path),
    )
    return trainer


def _callbacks(run: Run) -> list[Callback]:
    options = dict(run.cfg.callbacks)
    digest = [BatchDigest(run.folder.batch_digest)] if options.pop("batch_digest") else []
    chosen = [instantiate(callback) for callback in options.values() if callback is not None]
    return [*chosen, *digest]


def fit(run: Run, trainer: Trainer, module: TrainingModule, data: ImageDataModule) -> None:
    """Creates the run's folder and trains, from the start or from the run's checkpoint."""
    data.trainer = trainer
    module.optimizer_for(trainer, data)  # a faulty recipe shows before a file is written
    start_folder(run, data.readers)
    trainer.loggers = make_loggers(run)
    if run.checkpoint is not None:
        say(f"continuing from {run.checkpoint}")
    trainer.fit(module, datamodule=data, ckpt_path=run.checkpoint)


@rank_zero_only
def start_folder(run: Run, readers: Mapping[str, Split]) -> None:
    """Creates the run's folder and records what runs on which data."""
    fingerprints = {split: reader.fingerprint for split, reader in readers.items()}
    run.folder.start(run.config, {"data": fingerprints}, resumed=run.checkpoint is not None)


def close_loggers(loggers: list[Logger]) -> None:
    """Ends what a logger keeps open, so that the next job of a sweep starts its own."""
    for logger in loggers:
        finish = getattr(getattr(logger, "experiment", None), "finish", None)
        if finish is not None:
            finish()

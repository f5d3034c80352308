"""`ssl-swin show`: the first training batch as a run would see it."""

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ssl_swin.arguments import Count, Positive
from ssl_swin.commands.parsing import path, value_of
from ssl_swin.commands.places import check_picture
from ssl_swin.plurals import counted

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ssl_swin.data.loading.protocol import Loader, Split
    from ssl_swin.objectives.base import Batch, Objective
    from ssl_swin.reporting.figures import Bands

PRETRAIN = "pretrain"
JOBS = (PRETRAIN, "finetune", "segment", "detect")


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Describes the command."""
    parser = commands.add_parser(
        "show",
        help="draw the first training batch: crops, flips, masks and classes",
        description="Draws images of the first training batch exactly as a job with the same "
        "settings sees them on one device. Of pretraining, the view, and what the mask leaves of "
        "it; of segmentation, the crop, and the classes of its pixels over it; of detection, the "
        "view with its boxes and masks, and of images without boxes the weak and the strong view; "
        "of fine-tuning, the view under the name of its class.",
        usage="%(prog)s [options] --out FILE.png [JOB] [settings ...]",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "settings",
        nargs="*",
        help=f"{', '.join(JOBS)}, of which the first if none is named; and settings as for that "
        "job: data=shards data.root=shards model=swin_t",
    )
    parser.add_argument("--out", type=path, required=True, metavar="FILE.png", help="the picture")
    parser.add_argument(
        "--images", type=value_of(Positive), default=8, help="how many of the batch"
    )
    parser.add_argument("--epoch", type=value_of(Count), default=0, help="counted from 0")
    return parser


def run(args: argparse.Namespace) -> None:
    """Load the batch and draw it."""
    import torch

    from ssl_swin.files import atomic_path
    from ssl_swin.launch.user_errors import only_user_errors
    from ssl_swin.pixels import normalize
    from ssl_swin.reporting.figures import draw_figure, stacked

    check_picture("--out", args.out)
    job, settings = _job_of(args.settings)
    cfg = _compose(job, settings)
    with only_user_errors(job, None):
        objective, batches = _first_batch(cfg, job, args.images, args.epoch)
    mean, std = list(cfg.data.mean), list(cfg.data.std)
    figures = [
        draw_figure(
            objective.preview(batch, lambda pixels: normalize(pixels, mean, std)),
            mean,
            std,
            bands=_bands(cfg),
            stretch=batch.pixels.dtype != torch.uint8,
            names=_titles(objective, batch),
        )
        for batch in batches
    ]
    with atomic_path(args.out) as temporary:
        stacked(figures).save(temporary, format="png")
    whiches = [f" of epoch {args.epoch}", " without boxes"]
    images = ", and ".join(map(_counted, batches, whiches))
    print(f"{args.out}: {images}; {objective.describe()}")


def _counted(batch: "Batch", which: str) -> str:
    channels, height_px, width_px = batch.pixels.shape[1:]
    return f"{counted(len(batch.names), 'image')}{which}, {channels} x {height_px} x {width_px}"


def _job_of(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the job that is named, or pretraining, and the settings.

    Raises:
        UserError: If something else is named.
    """
    from ssl_swin.errors import UserError

    if not words or "=" in words[0] or words[0].startswith("~"):
        return PRETRAIN, list(words)
    job, *settings = words
    if job not in JOBS:
        raise UserError(
            f"show draws what {', '.join(JOBS)} see, got {job!r}; settings are KEY=VALUE"
        )
    return job, settings


def _compose(job: str, settings: Sequence[str]) -> "DictConfig":
    """Compose what `ssl-swin JOB SETTINGS` would.

    Raises:
        UserError: If the settings do not compose, or one is not allowed.
    """
    from omegaconf import OmegaConf

    from ssl_swin.jobs import settings as of_jobs
    from ssl_swin.launch.check import check_settings
    from ssl_swin.launch.composing import composed_for_user, plain_settings

    classes = {
        PRETRAIN: of_jobs.PretrainSettings,
        "finetune": of_jobs.FinetuneSettings,
        "segment": of_jobs.SegmentSettings,
        "detect": of_jobs.DetectSettings,
    }
    cfg = composed_for_user(job, settings)
    OmegaConf.resolve(cfg)
    check_settings(plain_settings(cfg), classes[job])
    return cfg


def _first_batch(
    cfg: "DictConfig", job: str, num_images: int, epoch: int
) -> "tuple[Objective, list[Batch]]":
    """Loads an epoch's first images in this process, as the objective wants them.

    Where there are images without boxes beside others, they are a batch of their own. The order
    of shards and folders is the same with more workers and a larger batch; that of
    data.reader=stream is the one of a run with num_workers=0.
    """
    from ssl_swin.jobs.loop import training_data

    objective, readers = _pretraining(cfg) if job == PRETRAIN else _task(cfg, job)
    data = training_data(cfg, readers, objective)
    data.num_workers = 0
    if data.companion is None:
        data.batch_size = min(num_images, cfg.batch_size)
    loaders = _loaders_at(data.train_dataloader(), num_images, epoch)
    batches: list[Batch] = [next(iter(each)) for each in loaders]
    for bad in (bad for each in loaders for bad in each.bad_samples):
        print(f"cannot be read, the next image stands in: {bad.name}: {bad.reason}")
    return objective, batches


def _loaders_at(loader: "Loader", num_images: int, epoch: int) -> "list[Loader]":
    """Return loaders of the first images of an epoch, one for each source of these."""
    from ssl_swin.data.loading.exact import Cursor, ExactLoader
    from ssl_swin.data.loading.paired import PairedLoader
    from ssl_swin.data.loading.stream import EpochLoader

    if isinstance(loader, PairedLoader):
        loader.go_to_epoch(epoch)
        loaders: list[Loader] = []
        for source in (loader.first, loader.second):
            smaller = source.of_size(min(num_images, source.config.batch_size))
            smaller.go_to(source.cursor)
            loaders.append(smaller)
        return loaders
    if isinstance(loader, ExactLoader):
        loader.go_to(Cursor(epoch, 0))
    elif isinstance(loader, EpochLoader):
        loader.current_epoch = lambda: epoch
    return [loader]


def _pretraining(cfg: "DictConfig") -> "tuple[Objective, Mapping[str, Split]]":
    import torch

    from ssl_swin.launch.build import open_data
    from ssl_swin.launch.continuing import Start
    from ssl_swin.launch.targets import make

    if cfg.model.get("_target_") is None:
        encoder = Start(cfg, None).encoder
    else:
        with torch.device("meta"):  # its sizes are wanted, not its weights
            encoder = make(cfg.model)
    objective: Objective = make(cfg.objective)(encoder)
    return objective, open_data(cfg, objective.members)


def _task(cfg: "DictConfig", job: str) -> "tuple[Objective, Mapping[str, Split]]":
    from importlib import import_module

    from ssl_swin.launch.build import build_encoder

    module = import_module(f"ssl_swin.jobs.{job}")
    task, readers = module.task_and_data(cfg, build_encoder(cfg))
    return task, readers


def _titles(objective: "Objective", batch: "Batch") -> list[str]:
    """Return the names of images, with their classes where they have one."""
    from ssl_swin.data.batch import UNLABELLED, LabeledBatch

    if not isinstance(batch, LabeledBatch):
        return list(batch.names)
    classes: Sequence[str] = getattr(objective, "classes", ())
    return [
        name if label == UNLABELLED else f"{name}: {classes[label]}"
        for name, label in zip(batch.names, batch.labels.tolist(), strict=True)
    ]


def _bands(cfg: "DictConfig") -> "Bands":
    """Return the channels that the job draws its pictures of."""
    from omegaconf import OmegaConf

    names = ("reconstructions", "predictions")
    chosen: Bands = next(
        filter(None, (OmegaConf.select(cfg, f"callbacks.{name}.bands") for name in names)), None
    )
    return chosen

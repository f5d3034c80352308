"""`ssl-swin show`: the first training batch as a run would see it."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ssl_swin.arguments import Count, Positive
from ssl_swin.commands.parsing import path, value_of
from ssl_swin.commands.places import check_picture
from ssl_swin.plurals import counted

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ssl_swin.objectives.base import Batch, Objective

JOB = "pretrain"


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Describes the command."""
    parser = commands.add_parser(
        "show",
        help="draw the first training batch: crops, flips and masks",
        description="Draws images of the first training batch exactly as `ssl-swin pretrain` with "
        "the same settings sees them on one device: the view, and what the mask leaves of it.",
        usage="%(prog)s [options] --out FILE.png [settings ...]",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "settings", nargs="*", help="as for pretrain: data=shards data.root=shards model=swin_t"
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
    from omegaconf import OmegaConf

    from ssl_swin.files import atomic_path
    from ssl_swin.launch.user_errors import only_user_errors
    from ssl_swin.pixels import normalize
    from ssl_swin.reporting.figures import draw_figure

    check_picture("--out", args.out)
    cfg = _compose(args.settings)
    with only_user_errors(JOB, None):
        objective, batch = _first_batch(cfg, args.images, args.epoch)
    mean, std = list(cfg.data.mean), list(cfg.data.std)
    figure = draw_figure(
        objective.preview(batch, lambda pixels: normalize(pixels, mean, std)),
        mean,
        std,
        bands=OmegaConf.select(cfg, "callbacks.reconstructions.bands"),
        stretch=batch.pixels.dtype != torch.uint8,
        names=batch.names,
    )
    with atomic_path(args.out) as temporary:
        figure.save(temporary, format="png")
    channels, height_px, width_px = batch.pixels.shape[1:]
    print(
        f"{args.out}: {counted(len(batch.names), 'image')} of epoch {args.epoch}, "
        f"{channels} x {height_px} x {width_px}; {objective.describe()}"
    )


def _compose(settings: Sequence[str]) -> "DictConfig":
    """Compose what `ssl-swin pretrain SETTINGS` would.

    Raises:
        UserError: If the settings do not compose, or one is not allowed.
    """
    from omegaconf import OmegaConf

    from ssl_swin.jobs.settings import PretrainSettings
    from ssl_swin.launch.check import check_settings
    from ssl_swin.launch.composing import composed_for_user, plain_settings

    cfg = composed_for_user(JOB, settings)
    OmegaConf.resolve(cfg)
    check_settings(plain_settings(cfg), PretrainSettings)
    return cfg


def _first_batch(cfg: "DictConfig", num_images: int, epoch: int) -> "tuple[Objective, Batch]":
    """Loads an epoch's first images in this process, as the objective wants them.

    The order of shards and folders is the same with more workers and a larger batch; that of
    data.reader=stream is the one of a run with num_workers=0.
    """
    import torch

    from ssl_swin.data.loading.exact import Cursor, ExactLoader
    from ssl_swin.data.loading.stream import EpochLoader
    from ssl_swin.jobs.loop import training_data
    from ssl_swin.launch.build import open_data
    from ssl_swin.launch.continuing import Start
    from ssl_swin.launch.targets import make

    if cfg.model.get("_target_") is None:
        encoder = Start(cfg, None).encoder
    else:
        with torch.device("meta"):  # its sizes are wanted, not its weights
            encoder = make(cfg.model)
    objective: Objective = make(cfg.objective)(encoder)
    data = training_data(cfg, open_data(cfg, objective.members), objective)
    data.batch_size, data.num_workers = min(num_images, cfg.batch_size), 0
    loader = data.train_dataloader()
    if isinstance(loader, ExactLoader):
        loader.go_to(Cursor(epoch, 0))
    elif isinstance(loader, EpochLoader):
        loader.current_epoch = lambda: epoch
    batch: Batch = next(iter(loader))
    for bad in loader.bad_samples:
        print(f"cannot be read, the next image stands in: {bad.name}: {bad.reason}")
    return objective, batch

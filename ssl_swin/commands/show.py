"""`ssl-swin show`: the first training batch as a run would see it."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ssl_swin.data.batch import PretrainBatch

CONFIG_FOLDER = Path(__file__).parents[1] / "conf"
JOB = "pretrain"


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Describes the command."""
    parser = commands.add_parser(
        "show",
        help="draw the first training batch: crops, flips and masks",
        description="Draws images of the first training batch exactly as pretrain.py with the same "
        "settings sees them on one device: the view, and what the mask leaves of it.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "settings", nargs="*", help="as for pretrain.py: data=shards data.root=shards model=swin_t"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.png", help="the picture")
    parser.add_argument("--images", type=int, default=8, help="how many of the batch")
    parser.add_argument("--epoch", type=int, default=0, help="counted from 0")
    return parser


def run(args: argparse.Namespace) -> None:
    """Loads the batch and draws it."""
    from ssl_swin.errors import UserError
    from ssl_swin.files import atomic_path
    from ssl_swin.reporting.batch import batch_grid

    if args.images < 1 or args.epoch < 0:
        raise UserError(
            f"--images must be at least 1 and --epoch at least 0, got {args.images}, {args.epoch}"
        )
    cfg = _compose(args.settings)
    batch = _first_batch(cfg, args.images, args.epoch)
    bands = cfg.callbacks.reconstructions.bands
    with atomic_path(args.out) as temporary:
        batch_grid(batch.pixels, batch.mask, batch.names, bands).save(temporary, format="png")
    channels, height_px, width_px = batch.pixels.shape[1:]
    num_masked, num_units = int(batch.mask[0].sum()), batch.mask[0].numel()
    print(
        f"{args.out}: {len(batch.names)} images of epoch {args.epoch}, {channels} x {height_px} x "
        f"{width_px}, {num_masked} of {num_units} units masked"
    )


def _compose(settings: Sequence[str]) -> "DictConfig":
    """Composes what `python pretrain.py SETTINGS` would.

    Raises:
        UserError: If the settings do not compose, or the YAML files are not there.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf import OmegaConf, open_dict
    from omegaconf.errors import OmegaConfBaseException

    from ssl_swin.errors import UserError
    from ssl_swin.launch.resolvers import register_resolvers
    from ssl_swin.launch.suggestions import explain_composition_error

    if not (CONFIG_FOLDER / f"{JOB}.yaml").exists():
        raise UserError(
            f"no {CONFIG_FOLDER}/{JOB}.yaml: `show` needs the folder conf/ beside the package. "
            "Install it from a clone: pip install -e ."
        )
    register_resolvers()
    try:
        with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3", job_name=JOB):
            cfg = compose(JOB, overrides=list(settings), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        OmegaConf.resolve(cfg)
        OmegaConf.to_container(cfg, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain_composition_error(error, CONFIG_FOLDER, JOB)) from error
    return cfg


def _first_batch(cfg: "DictConfig", num_images: int, epoch: int) -> "PretrainBatch":
    """Loads an epoch's first images in this process.

    The order of shards and folders is the same with more workers and a larger batch; that of
    data.reader=stream is the one of a run with num_workers=0.
    """
    import torch
    from hydra.utils import instantiate

    from ssl_swin.data.batch import PretrainBatch
    from ssl_swin.data.loading.exact import Cursor, ExactLoader
    from ssl_swin.data.loading.stream import EpochLoader
    from ssl_swin.jobs.pretrain import pretrain_data
    from ssl_swin.launch.build import open_data
    from ssl_swin.masking import mask_grid

    with torch.device("meta"):  # its sizes are wanted, not its weights
        encoder = instantiate(cfg.model)
    units = mask_grid(
        encoder.img_size_px, cfg.objective.mask_unit_px, patch_size_px=encoder.patch_size_px
    )
    data = pretrain_data(cfg, open_data(cfg), encoder, units)
    data.batch_size, data.num_workers = min(num_images, cfg.batch_size), 0
    loader = data.train_dataloader()
    if isinstance(loader, ExactLoader):
        loader.go_to(Cursor(epoch, 0))
    elif isinstance(loader, EpochLoader):
        loader.current_epoch = lambda: epoch
    batch: PretrainBatch = next(iter(loader))
    for bad in loader.bad_samples:
        print(f"cannot be read, the next image stands in: {bad.name}: {bad.reason}")
    return batch

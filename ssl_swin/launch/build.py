"""The data and the encoder of a run, built from its configuration."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import FileLock
from hydra.utils import instantiate
from omegaconf import DictConfig

from ssl_swin.data.encoded import IMAGE
from ssl_swin.data.loading.opening import open_splits
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.loading.protocol import Split
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.resize import resize_encoder
from ssl_swin.errors import UserError
from ssl_swin.files import make_folder
from ssl_swin.launch.artifacts import local_backbone
from ssl_swin.launch.printing import say
from ssl_swin.weights.backbone import check_same_architecture, load_backbone
from ssl_swin.weights.sources import default_cache


def open_data(cfg: DictConfig, members: Sequence[str] = ()) -> dict[str, Split]:
    """Open the splits of `cfg.data`, making the set first if it is one that can be made.

    Args:
        cfg: Configuration of a job.
        members: Members of every sample to read besides the image.
    """
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
        members=(IMAGE, *members),
        image=data.get("image"),
        label_key=data.get("label_key"),
    )
    for split, reader in readers.items():
        say(f"{split}: {reader.summary()}")
    if readers["train"].warning:
        say(f"note: {readers['train'].warning}")
    return readers


def check_splits(readers: Mapping[str, Split], needed: tuple[str, ...]) -> None:
    """Refuse data that lacks a split.

    Raises:
        UserError: If one is missing.
    """
    missing = [split for split in needed if split not in readers]
    if missing:
        raise UserError(
            f"the data has no {' and no '.join(missing)} split, only {', '.join(readers)}; "
            "pack it with --val-ratio, or from a folder that holds train/ and val/"
        )


def check_labelled(readers: Mapping[str, Split], needed: tuple[str, ...]) -> tuple[str, ...]:
    """Return the class names of labelled data.

    Raises:
        UserError: If there are none, or a split is missing.
    """
    check_splits(readers, needed)
    classes = readers["train"].classes
    if len(classes) < 2:
        raise UserError(
            f"classification needs two classes or more, the data names {len(classes)}: "
            "pack a folder with one sub-folder per class, or put classes.txt beside the "
            "shards and index them anew; labels in .json are read with ssl-swin index --label-key"
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

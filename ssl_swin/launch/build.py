"""The data and the encoder of a run, built from its configuration."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from omegaconf import DictConfig, OmegaConf

from ssl_swin.data.encoded import IMAGE
from ssl_swin.data.images.pixel_format import MAX_IMAGE_BYTES, PixelFormat
from ssl_swin.data.loading.few_labels import is_without_labels
from ssl_swin.data.loading.opening import open_splits
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.loading.protocol import Split
from ssl_swin.data.sources.left_out import some
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.files import make_folder
from ssl_swin.launch.artifacts import local_backbone
from ssl_swin.launch.command_line import command
from ssl_swin.launch.printing import say
from ssl_swin.launch.targets import make
from ssl_swin.pixels import check_normalization
from ssl_swin.quoting import override
from ssl_swin.weights.backbone import Backbone, check_same_architecture, load_backbone
from ssl_swin.weights.sources import default_cache


def open_data(cfg: DictConfig, members: Sequence[str] = ()) -> dict[str, Split]:
    """Open the splits of `cfg.data`, making the set first if it is one that can be made.

    Args:
        cfg: Configuration of a job.
        members: Members of every sample to read besides the image.

    Raises:
        UserError: If a setting of the pixels is not allowed, or there is no such data.
    """
    data = cfg.data
    PixelFormat.from_settings(data)  # refuses what contradicts itself, before anything is read
    check_normalization(data.mean, data.std, channels=data.channels, dtype=data.dtype)
    if data.prepare is not None:
        root = Path(data.root)
        with FileLock(make_folder(root.parent) / f".{root.name}.lock"):
            make(data.prepare)
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
        folder=_folder_options(data),
        boxes=_box_options(data),
        val_names=tuple(data.get("val_names") or ()),
        image=data.get("image"),
        label_key=data.get("label_key"),
        max_image_bytes=data.get("max_image_bytes", MAX_IMAGE_BYTES),
    )
    for split, reader in readers.items():
        say(f"{split}: {reader.summary()}")
    for line in readers["train"].warning.splitlines():
        say(f"note: {line}")
    return readers


def _folder_options(data: DictConfig) -> dict[str, Any]:
    """Return what is set of how to read a folder of images; older configurations set nothing."""
    keys = {"labels": "labelled", "splits": "splits", "masks": "masks"}
    options: dict[str, Any] = {name: data[key] for key, name in keys.items() if key in data}
    return {**options, "leave_out": tuple(data.get("leave_out") or ())}


def _box_options(data: DictConfig) -> dict[str, Any]:
    """Return what is set of how to read images with boxes."""
    names = ("annotations", "masks", "classes", "first_pixel", "leave_out")
    found = {name: data[name] for name in names if name in data}
    plain = {
        name: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        for name, value in found.items()
    }
    return {**plain, "exif_rotation": data.get("exif_rotation", False)}


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
        UserError: If there are none, no image of a split has one, or a split is missing.
    """
    check_splits(readers, needed)
    classes = readers["train"].classes
    if len(classes) < 2:
        raise UserError(
            f"classification needs two classes or more, the data names {len(classes)}: "
            "pack a folder with one sub-folder per class, or put classes.txt beside the "
            "shards and index them anew; labels in .json are read with ssl-swin index --label-key"
        )
    for split in dict.fromkeys(("train", *needed)):
        if is_without_labels(readers[split]):
            raise UserError(
                f"no image of {split} has a label: {some(classes)} are the classes of masks or "
                f"boxes, which {command('segment')} and {command('detect')} train on. To classify "
                "whole images, pack them with labels"
            )
    return classes


def usable_device(name: str) -> torch.device:
    """Return a device that tensors can be put on.

    Raises:
        UserError: If there is no such device here.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        problem = str(error).splitlines()[0][:200]
        raise UserError(f"device={name} cannot be used here: {problem}. Try device=cpu") from error
    return device


def backbone_folder(cfg: DictConfig) -> Path | None:
    """Return the local folder of `cfg.backbone`, None for none; print what to know of it.

    Args:
        cfg: Configuration of a job that takes a backbone.

    Raises:
        UserError: If there is no such backbone, or no way to get it.
    """
    return None if cfg.backbone == "none" else local_backbone(cfg.backbone, default_cache())


def build_encoder(cfg: DictConfig, folder: Path | None = None) -> Encoder:
    """Load `cfg.backbone`, or with none build `cfg.model` with random weights.

    A backbone takes size, `drop_path_rate` and `grad_checkpointing` from `cfg.model`; a model that
    is named has to be of the backbone's architecture.

    Args:
        cfg: Configuration of a job that takes a backbone.
        folder: What `backbone_folder` returned, if it was asked already.

    Raises:
        UserError: If backbone and model contradict each other, neither says what to build, or the
            encoder cannot take the size.
    """
    model = cfg.model
    has_model = model.get("_target_") is not None
    folder = folder or backbone_folder(cfg)
    if folder is None:
        if not has_model:
            raise UserError(
                "backbone=none starts from random weights: name a model, as model=swin_t"
            )
        encoder: Encoder = make(model)
        return encoder
    backbone = load_backbone(
        folder,
        img_size_px=model.get("img_size_px"),
        window_size=model.get("window_size"),
        drop_path_rate=model.drop_path_rate,
        grad_checkpointing=model.grad_checkpointing,
    )
    if has_model:
        asked = make(model)
        check_same_architecture(backbone.encoder, asked, but=["pretrained_window_sizes"])
    _check_channels(cfg.data, backbone)
    warn_of_other_normalisation(cfg.data, backbone.mean, backbone.std)
    return backbone.encoder


def _check_channels(data: DictConfig, backbone: Backbone) -> None:
    """Refuse images of other channels than the backbone's.

    Raises:
        UserError: If they differ, with what to set instead.
    """
    wanted = backbone.encoder.in_chans
    if data.channels == wanted:
        return
    values = override("data.mean", backbone.mean), override("data.std", backbone.std)
    if wanted == 3 and data.channels == 1:
        way_out = "leave data.channels, data.mean and data.std alone: gray is repeated"
    else:
        way_out = f"set data.channels={wanted} {' '.join(values)}"
        if wanted == 1 and data.channels == 3:
            way_out += ": of colours the luma is taken"
    raise UserError(
        f"the backbone takes images of {wanted} channel{'s' * (wanted > 1)}, and data.channels is "
        f"{data.channels}: {way_out}"
    )


def warn_of_other_normalisation(
    data: DictConfig, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    """Print a note if the data are normalised otherwise than those of the backbone's training.

    Args:
        data: The group `data`.
        mean: Mean of the backbone's training, per channel.
        std: Standard deviation of the backbone's training, per channel.
    """
    if (tuple(data.mean), tuple(data.std)) != (mean, std):
        say(
            f"note: the backbone was trained with mean {mean} and std {std}, the data has "
            f"{tuple(data.mean)} and {tuple(data.std)}; set data.mean and data.std to match"
        )

"""The hand-off: a folder that timm, finetune.py and linear_probe.py load.

`config.json` and `model.safetensors` follow timm's own layout, so anyone who has timm can write
`timm.create_model("local-dir:FOLDER", pretrained=True, num_classes=0)`. `README.md` is the card.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ssl_swin.arguments import (
    Above0,
    PathLike,
    PathName,
    Portion,
    Positive,
    RateBelow1,
    SizePx,
    checked,
)
from ssl_swin.encoders.build import build_encoder, known_architectures
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.resize import resize_encoder
from ssl_swin.errors import UserError
from ssl_swin.files import make_folder, write_atomically
from ssl_swin.plurals import counted
from ssl_swin.tasks.base import Export, Task
from ssl_swin.tasks.classification import Classifier, classifier_export

SWIN_CROP_RATIO = 0.875  # 224 of 256, the evaluation crop of the Swin recipe
CLASSIFICATION = "classification"  # the `task` of a config.json that does not name one
# What reading a config.json raises that is damaged, or of something else.
NOT_TOLD = (LookupError, TypeError, ValueError, AttributeError, RecursionError)
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
_LEAVE_OUT = (
    "leave the model out to take the backbone's own; img_size_px and window_size change its size"
)


@dataclass(frozen=True)
class Backbone:
    """A loaded hand-off."""

    encoder: Encoder
    mean: tuple[float, ...]  # per channel, of pixel values in [0, 1]
    std: tuple[float, ...]
    crop_ratio: float = field(default=SWIN_CROP_RATIO, kw_only=True)  # see `save_backbone`


@checked
def save_backbone(
    folder: PathName,
    encoder: Encoder,
    *,
    mean: Sequence[float],
    std: Sequence[Above0],
    card: str,
    crop_ratio: Portion = SWIN_CROP_RATIO,
) -> None:
    """Writes an encoder as a timm model without a head.

    Args:
        folder: Created if need be; its files are replaced one by one, each atomically.
        encoder: Encoder whose weights and size are written.
        mean: Normalisation that the encoder was trained with.
        std: Normalisation that the encoder was trained with.
        card: Text of the model card, Markdown.
        crop_ratio: Side of the centre crop that it was evaluated on over an image's shorter side,
            timm's `crop_pct`.

    Raises:
        UserError: If the normalisation has not a value per channel, or the folder cannot be made.
    """
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != encoder.in_chans:
            raise UserError(
                f"{name} has {counted(len(values), 'value')}, and the encoder takes images of "
                f"{counted(encoder.in_chans, 'channel')}"
            )
    config = _timm_config(encoder, mean, std, crop_ratio, num_classes=0)
    _write(Path(folder), encoder.model.state_dict(), config, card)


def save_task(
    folder: Path,
    task: Task,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    card: str,
    crop_ratio: float = SWIN_CROP_RATIO,
) -> None:
    """Write a trained task as a timm model with its head and class names; see `save_backbone`."""
    save_export(
        folder, task.encoder, task.export(), mean=mean, std=std, card=card, crop_ratio=crop_ratio
    )


def save_export(
    folder: Path,
    encoder: Encoder,
    export: Export,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    card: str,
    crop_ratio: float = SWIN_CROP_RATIO,
) -> None:
    """Write what is handed on of a network with a head; see `save_backbone`.

    Args:
        folder: As of `save_backbone`, and so are the following.
        encoder: Inside the network.
        export: Its weights with the head's, and settings.
        mean: Per channel.
        std: Per channel.
        card: Markdown.
        crop_ratio: Of the centre crop.
    """
    config = _timm_config(encoder, mean, std, crop_ratio, num_classes=export.num_classes)
    _write(folder, export.state, config | export.settings, card)


def save_classifier(
    folder: Path,
    classifier: Classifier,
    *,
    classes: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    card: str,
    crop_ratio: float = SWIN_CROP_RATIO,
) -> None:
    """Write a classifier as a timm model with its head and class names; see `save_backbone`."""
    save_export(
        folder,
        classifier.encoder,
        classifier_export(classifier, classes),
        mean=mean,
        std=std,
        card=card,
        crop_ratio=crop_ratio,
    )


def save_extra_weights(folder: Path, files: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write what an objective hands on beside the backbone.

    Args:
        folder: Folder of the backbone.
        files: Tensors by name, by file name.
    """
    for name, tensors in files.items():
        state = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        write_atomically(folder / name, safetensors.torch.save(state, metadata={"format": "pt"}))


def load_extra_weights(folder: Path, files: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
    """Fill tensors with what lies beside a backbone, as far as it does.

    Args:
        folder: Folder of the backbone.
        files: Tensors to fill, by name and by file name, as `Objective.extra_weights` returns them.

    Returns:
        Names of the tensors that were filled; the others are left as they are.

    Raises:
        UserError: If a file cannot be read, or holds a tensor of another shape.
    """
    filled = []
    for file, tensors in files.items():
        path = folder / file
        given = read_safetensors(path) if path.is_file() else {}
        for name, tensor in tensors.items():
            if name not in given:
                continue
            if given[name].shape != tensor.shape:
                raise UserError(
                    f"{path}: {name} has the shape {tuple(given[name].shape)}, and this model's "
                    f"has {tuple(tensor.shape)}; remove the file to start that part afresh"
                )
            with torch.no_grad():
                tensor.copy_(given[name])
            filled.append(name)
    return filled


@checked
def load_backbone(
    path: PathLike,
    *,
    img_size_px: SizePx | None = None,
    window_size: Positive | None = None,
    drop_path_rate: RateBelow1 = 0.0,
    grad_checkpointing: bool = False,
) -> Backbone:
    """Rebuilds the encoder of a hand-off folder with its weights.

    Args:
        path: A backbone folder, or a run folder that holds one.
        img_size_px: Another input size, a side or (height, width); see `resize_encoder`.
        window_size: Another window in tokens; see `resize_encoder`.
        drop_path_rate: Drop path rate of the training to come.
        grad_checkpointing: Gradient checkpointing in the training to come.

    Raises:
        UserError: If the path holds no backbone, its files do not belong together, or the encoder
            cannot take the size or window.
    """
    folder = find_backbone(path)
    config = _read_config(folder)
    encoder = _build_encoder(folder, config, drop_path_rate, grad_checkpointing)
    _load_weights(encoder, folder / WEIGHTS)
    if img_size_px is not None or window_size is not None:
        encoder = resize_encoder(
            encoder,
            img_size_px=img_size_px,
            window_size=window_size,
            drop_path_rate=drop_path_rate,
            grad_checkpointing=grad_checkpointing,
        )
    try:
        mean, std, crop_ratio = preprocessing_of(config, encoder.in_chans)
    except NOT_TOLD as error:
        raise UserError(f"{folder / CONFIG} is not a model configuration: {error!r}") from error
    return Backbone(encoder, mean, std, crop_ratio=crop_ratio)


def preprocessing_of(
    config: Mapping[str, Any], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...], float]:
    """Return mean, deviation and crop ratio, as a config.json tells them.

    Args:
        config: Content of the file.
        channels: Of the images.

    Raises:
        LookupError, TypeError, ValueError: If it does not, or they cannot be.
    """
    told = config["pretrained_cfg"]
    mean, std = (tuple(float(value) for value in told[name]) for name in ("mean", "std"))
    crop_ratio = float(told.get("crop_pct") or SWIN_CROP_RATIO)
    if not len(mean) == len(std) == channels:
        raise ValueError(f"{len(mean)} means and {len(std)} deviations for {channels} channels")
    if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise ValueError(f"means {mean} and deviations {std} must be finite, the latter above 0")
    if not 0 < crop_ratio <= 1:
        raise ValueError(f"crop_pct is {crop_ratio}, and must lie in (0, 1]")
    return mean, std, crop_ratio


def describes_encoder(config: Mapping[str, Any]) -> bool:
    """Returns whether a config.json tells all that rebuilds an encoder here, as timm's own do not.

    Args:
        config: Content of the file.
    """
    name, arguments = config.get("architecture"), config.get("model_args")
    if not (isinstance(name, str) and isinstance(arguments, Mapping)):
        return False
    family = known_architectures().get(name)
    if family is None or not isinstance(config.get("pretrained_cfg", {}), Mapping):
        return False
    return encoder_args(config).keys() >= {*family.required_args, "img_size"}


def encoder_args(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `model_args` of the encoder that a config.json describes.

    timm does not take the image size of every network as an argument; it stands in its input size.

    Args:
        config: Content of the file, with an architecture that is known.
    """
    family = known_architectures().get(config["architecture"])
    told = config.get("pretrained_cfg", {}).get("input_size")
    if family is None or family.fixed_input_size or not isinstance(told, list):
        return dict(config["model_args"])
    return {"img_size": tuple(told[1:]), **config["model_args"]}


def import_for_timm(folder: Path) -> str:
    """Return the Python that lets timm know a backbone's architecture.

    Empty where it knows it, and where the folder does not tell.

    Args:
        folder: Folder of the backbone.
    """
    try:
        config = _read_config(folder)
    except (OSError, UserError):  # a line for a reader is not worth a run
        return ""
    family = known_architectures().get(str(config.get("architecture")))
    if family is None or family.timm_import == "timm":
        return ""
    return f"import {family.timm_import}; "


def find_backbone(path: str | Path) -> Path:
    """Resolves a run folder or a backbone folder to the backbone folder.

    Raises:
        UserError: If there is none.
    """
    given = Path(path)
    if not given.exists():
        raise UserError(f"backbone={path}: no such folder")
    for folder in (given, given / "backbone"):
        if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
            return folder
    raise UserError(
        f"backbone={path} is not a backbone: neither it nor its sub-folder backbone/ holds "
        f"{CONFIG} and {WEIGHTS}; give the folder of a finished pretraining run, or none"
    )


def check_same_architecture(
    backbone: Encoder, asked: Encoder, *, but: Sequence[str] = (), way_out: str = _LEAVE_OUT
) -> None:
    """Refuses a backbone that is not the architecture that was asked for.

    Args:
        backbone: The encoder that was loaded.
        asked: The encoder of the configuration.
        but: Arguments of timm's model that may differ.
        way_out: What the user can do.

    Raises:
        UserError: Naming both.
    """
    ours, theirs = _describe(backbone), _describe(asked)
    keys = sorted((ours.keys() | theirs.keys()) - {*but})
    different = [key for key in keys if ours.get(key) != theirs.get(key)]
    if different:
        raise UserError(
            "the backbone is of another architecture than the model asked for: "
            + "; ".join(f"{k} is {ours.get(k)}, asked for {theirs.get(k)}" for k in different)
            + f" ({way_out})"
        )


def _describe(encoder: Encoder) -> dict[str, Any]:
    return {"architecture": encoder.architecture, **encoder.model_args}


def _timm_config(
    encoder: Encoder,
    mean: Sequence[float],
    std: Sequence[float],
    crop_ratio: float,
    *,
    num_classes: int,
) -> dict[str, Any]:
    return {
        "architecture": encoder.architecture,
        "num_classes": num_classes,
        "num_features": encoder.num_features,
        "global_pool": "avg",
        "model_args": {
            name: value
            for name, value in encoder.model_args.items()
            if name != "img_size" or encoder.fixed_input_size
        },
        "pretrained_cfg": {
            "input_size": [encoder.in_chans, *encoder.img_size_px],
            "fixed_input_size": encoder.fixed_input_size,
            "mean": [float(value) for value in mean],
            "std": [float(value) for value in std],
            "interpolation": "bicubic",
            "crop_pct": crop_ratio,
            "num_classes": num_classes,
            "first_conv": encoder.first_conv,
            "classifier": encoder.head_prefix,
            "custom_load": False,
        },
    }


def _write(folder: Path, state: dict[str, Tensor], config: dict[str, Any], card: str) -> None:
    make_folder(folder)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    weights = safetensors.torch.save(tensors, metadata={"format": "pt"})
    write_atomically(folder / CARD, card)
    write_atomically(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    write_atomically(folder / WEIGHTS, weights)


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text())
        preprocessing = config["pretrained_cfg"]
        arguments = encoder_args(config)
        family = known_architectures().get(config["architecture"], Encoder)
        _ = arguments["img_size"], [arguments[name] for name in sorted(family.required_args)]
        _ = preprocessing["mean"], preprocessing["std"]
    except NOT_TOLD as error:
        raise UserError(f"{folder / CONFIG} is not a model configuration: {error!r}") from error
    if (task := config.get("task", CLASSIFICATION)) != CLASSIFICATION:
        raise UserError(
            f"{folder} holds a network for {task} and no plain backbone: give the folder of its "
            "run, which holds that as backbone/"
        )
    return config


def _build_encoder(
    folder: Path, config: dict[str, Any], drop_path_rate: float, grad_checkpointing: bool
) -> Encoder:
    try:
        return build_encoder(
            config["architecture"],
            encoder_args(config),
            drop_path_rate=drop_path_rate,
            grad_checkpointing=grad_checkpointing,
        )
    except UserError as error:
        raise UserError(f"{folder / CONFIG}: {error}") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable safetensors file: {error}") from error


def _load_weights(encoder: Encoder, path: Path) -> None:
    state = read_safetensors(path)
    head = f"{encoder.head_prefix}."
    encoder_state = {name: t for name, t in state.items() if not name.startswith(head)}
    try:
        encoder.model.load_state_dict(encoder_state)
    except RuntimeError as error:
        raise UserError(
            f"{path} does not fit the {CONFIG} beside it: {str(error)[:400]}"
        ) from error

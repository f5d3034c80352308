"""The settings that every job has, with their types; and how a job describes its own.

A job's description is a dataclass with a field per setting of its primary configuration. A group
that a `_target_` builds is marked with what it `Makes`; another is a dataclass again, or has the
`ArgumentsOf` a callable. What a value may be stands in the signature of what uses it. What may
differ when a run is continued is marked `MAY_CHANGE`; all else belongs to the run.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_type_hints

from annotated_types import Ge, Lt, MinLen
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger

from ssl_swin.arguments import (
    EACH_ONCE,
    Above0,
    Count,
    Fraction,
    Name,
    Positive,
    RateBelow1,
    Seed,
    SizePx,
    Workers,
)
from ssl_swin.data.images.pixel_format import MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS, PixelFormat
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.remote.cache_options import CacheOptions
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.launch.signatures import signature_of
from ssl_swin.launch.targets import TARGET, located
from ssl_swin.pixels import check_normalization


@dataclass(frozen=True)
class MayChange:
    """Marks a setting that may differ when a run is continued."""

    keys: tuple[str, ...] = ()  # of a group; none: all of it


@dataclass(frozen=True)
class ArgumentsOf:
    """Marks a group of settings that are arguments of a callable."""

    target: Callable[..., Any]
    added: frozenset[str] = frozenset()  # arguments that the job adds


@dataclass(frozen=True)
class Makes:
    """Marks a group of settings by what its `_target_` makes of them."""

    kind: Any  # a class, or what a function says that it returns
    partial: bool = False  # whether the job adds the rest
    optional: bool = False  # whether the group may be empty or null
    added: frozenset[str] = frozenset()  # arguments that the job adds
    words: str = ""  # what it must do, where the name of the kind does not say it


@dataclass(frozen=True)
class Each:
    """Marks a group of such groups."""

    makes: Makes


MAY_CHANGE = MayChange()
Built = Mapping[str, Any]  # has a `_target_`, or holds what has one

# With other devices, batch_size and accumulation change so that their product stays; if it does
# not, the run says so.
TrainerSettings = Annotated[
    Built,
    Makes(Trainer, added=frozenset({"callbacks", "logger", "plugins", "default_root_dir"})),
    MayChange(
        (
            "accelerator",
            "devices",
            "num_nodes",
            "max_time",
            "accumulate_grad_batches",
            "strategy",
            "sync_batchnorm",
            "timeout_s",
            "sharded_checkpoints",
            "enable_progress_bar",
            "progress_every_s",
            "log_every_n_steps",
            "num_sanity_val_steps",
        )
    ),
]
CallbackSettings = Annotated[dict[str, Any], Each(Makes(Callback, optional=True)), MAY_CHANGE]
LoggerSettings = Annotated[Built | None, Makes(Logger, optional=True), MAY_CHANGE]


@dataclass(frozen=True)
class DataSettings:
    """The group `data`."""

    reader: Literal["indexed", "folder", "stream", "coco", "voc", "yolo"]
    root: Annotated[Name, MAY_CHANGE]
    index_dir: Annotated[Name | None, MAY_CHANGE]
    order: OrderConstants
    max_bad_samples: Annotated[Count, MAY_CHANGE]
    max_bad_ratio: Annotated[Fraction, MAY_CHANGE]
    channels: Positive
    dtype: Literal["uint8", "uint16", "float32"]
    mean: list[float]
    std: list[Above0]
    how_to_make: Annotated[str | None, MAY_CHANGE]
    prepare: Annotated[Built | None, Makes(NoneType, optional=True), MAY_CHANGE]
    num_samples: Positive | None
    cache: Annotated[CacheOptions | None, MAY_CHANGE]
    val_ratio: Annotated[float, Ge(0), Lt(1)] = 0.0
    image: Name | None = None
    label_key: Name | None = None
    # Of a folder of images; what they change in the list of samples, its fingerprint shows.
    labels: Annotated[bool, MAY_CHANGE] = True
    splits: Annotated[bool, MAY_CHANGE] = True
    masks: Annotated[bool | Name, MAY_CHANGE] = True
    leave_out: Annotated[list[Name], MAY_CHANGE] = dataclasses.field(default_factory=list)
    # Of images with boxes; likewise.
    annotations: Annotated[Name | dict[str, Name] | None, MAY_CHANGE] = None
    classes: Annotated[list[Name], MinLen(1), EACH_ONCE] | None = None
    first_pixel: Annotated[Literal[0, 1] | None, MAY_CHANGE] = None
    val_names: list[Name] = dataclasses.field(default_factory=list)
    bands: Annotated[list[Count], MinLen(1)] | None = None
    channel_axis: Literal["first", "last"] | None = None
    nodata: float | Annotated[list[float], MinLen(1)] | None = None
    fill: float | Annotated[list[float], MinLen(1)] | None = None
    exif_rotation: bool = False
    max_image_pixels: Annotated[Positive, MAY_CHANGE] = MAX_IMAGE_PIXELS
    max_image_bytes: Annotated[Positive, MAY_CHANGE] = MAX_IMAGE_BYTES

    @staticmethod
    def check_together(data: Mapping[str, Any]) -> None:
        """Refuse statistics that no images of this kind have, and settings of their pixels."""
        PixelFormat.from_settings(data)
        if data["num_samples"] is not None and data["reader"] != "stream":
            raise UserError(
                f"data.num_samples={data['num_samples']} is for data.reader=stream: what is "
                "indexed is counted; leave it out, or take part of an epoch by "
                "trainer.limit_train_batches"
            )
        check_normalization(
            data["mean"], data["std"], channels=data["channels"], dtype=data["dtype"]
        )


@dataclass(frozen=True)
class FromBackbone:
    """The group `model` where the architecture is the backbone's."""

    img_size_px: SizePx | None
    window_size: Positive | None
    drop_path_rate: RateBelow1
    grad_checkpointing: bool


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """What every job has."""

    name: str | int | float
    run_dir: Name
    seed: Seed
    batch_size: Annotated[Positive, MAY_CHANGE]
    num_workers: Annotated[Workers, MAY_CHANGE]
    data: DataSettings
    model: Annotated[Built, Makes(Encoder)]
    logger: LoggerSettings
    recipe: Annotated[dict[str, Any] | None, MAY_CHANGE] = None  # what an experiment says of itself

    @staticmethod
    def check_together(settings: Mapping[str, Any]) -> None:
        """Refuse a model for images of other channels than the data's, or of no such windows."""
        _check_window(settings["model"])
        given, channels = settings["model"].get("in_chans"), settings["data"]["channels"]
        if given not in (None, channels):
            raise UserError(
                f"model.in_chans={given} and data.channels={channels} contradict each other: "
                "leave model.in_chans alone"
            )


def _check_window(model: Mapping[str, Any]) -> None:
    """Refuse a window larger than the map of the first stage, which would be the map itself."""
    names = ("window_size", "img_size_px", "patch_size_px")
    window, size, patch = (model.get(name) for name in names)
    if None in (window, size, patch):
        return
    side = max(size if isinstance(size, Sequence) else [size]) // patch
    if side < 1:
        raise UserError(
            f"model.img_size_px={size} is less than one patch of model.patch_size_px={patch}"
        )
    if window > side:
        raise UserError(
            f"model.window_size={window} is more than the {side} tokens of the first stage at "
            f"model.img_size_px={size}: give at most {side}"
        )


def changeable(description: type, settings: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """Return the dotted keys that may differ when a run of a job is continued.

    Args:
        description: The job's dataclass.
        settings: The configuration of a run: what a `_target_` makes may declare its `places`.
    """
    keys: list[str] = []
    for name, annotation in get_type_hints(description, include_extras=True).items():
        marks = [mark for mark in get_args(annotation) if isinstance(mark, MayChange)]
        for mark in marks:
            keys += [f"{name}.{key}" for key in mark.keys] if mark.keys else [name]
        keys += [f"{name}.{key}" for key in _places((settings or {}).get(name), f"{name}.{TARGET}")]
        if dataclasses.is_dataclass(annotation):
            assert isinstance(annotation, type)
            keys += [f"{name}.{key}" for key in changeable(annotation)]
    return tuple(keys)


def _places(group: Any, key: str) -> tuple[str, ...]:
    """Return the settings of a group that only say where something lies."""
    if not isinstance(group, Mapping) or group.get(TARGET) is None:
        return ()
    target = located(key, group[TARGET])
    made = target if inspect.isclass(target) else signature_of(target).returns
    return tuple(getattr(made, "places", ()))

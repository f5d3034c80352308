"""The settings that every job has, with their types; and how a job describes its own.

A job's description is a dataclass with a field per setting of its primary configuration. A group is
a `Built` if its `_target_` says what it takes, else a dataclass again, or `ArgumentsOf` a callable.
What may differ when a run is continued is marked `MAY_CHANGE`; all else belongs to the run.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_type_hints

from annotated_types import Ge

from ssl_swin.data.loading.order import OrderConstants


@dataclass(frozen=True)
class MayChange:
    """Marks a setting that may differ when a run is continued."""

    keys: tuple[str, ...] = ()  # of a group; none: all of it


@dataclass(frozen=True)
class ArgumentsOf:
    """Marks a group of settings that are arguments of a callable."""

    target: Callable[..., Any]


MAY_CHANGE = MayChange()
Built = Mapping[str, Any]  # has a `_target_`, or holds what has one
Count = Annotated[int, Ge(0)]
Positive = Annotated[int, Ge(1)]
Size = int | tuple[int, int]  # a side, or height and width

# With other devices, batch_size and accumulation change so that their product stays; if it does
# not, the run says so.
TrainerSettings = Annotated[
    Built,
    MayChange(
        (
            "accelerator",
            "devices",
            "num_nodes",
            "accumulate_grad_batches",
            "strategy",
            "enable_progress_bar",
            "log_every_n_steps",
            "num_sanity_val_steps",
        )
    ),
]


@dataclass(frozen=True)
class DataSettings:
    """The group `data`."""

    reader: str
    root: Annotated[str, MAY_CHANGE]
    index_dir: Annotated[str | None, MAY_CHANGE]
    order: OrderConstants
    max_bad_samples: Annotated[Count, MAY_CHANGE]
    max_bad_ratio: Annotated[float, MAY_CHANGE]
    channels: Positive
    dtype: str
    mean: list[float]
    std: list[float]
    how_to_make: Annotated[str | None, MAY_CHANGE]
    prepare: Annotated[Built | None, MAY_CHANGE]
    num_samples: int | None
    cache: Annotated[dict[str, Any] | None, MAY_CHANGE]
    val_ratio: float = 0.0
    image: str | None = None
    label_key: str | None = None


@dataclass(frozen=True)
class FromBackbone:
    """The group `model` where the architecture is the backbone's."""

    drop_path_rate: float
    grad_checkpointing: bool


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """What every job has."""

    name: str | int | float
    run_dir: str
    seed: Count
    batch_size: Annotated[Positive, MAY_CHANGE]
    num_workers: Annotated[Count, MAY_CHANGE]
    data: DataSettings
    model: Built
    logger: Annotated[Built | None, MAY_CHANGE]
    recipe: Annotated[dict[str, Any] | None, MAY_CHANGE] = None  # what an experiment says of itself


def changeable(description: type) -> tuple[str, ...]:
    """Return the dotted keys that may differ when a run of a job is continued.

    Args:
        description: The job's dataclass.
    """
    keys: list[str] = []
    for name, annotation in get_type_hints(description, include_extras=True).items():
        marks = [mark for mark in get_args(annotation) if isinstance(mark, MayChange)]
        for mark in marks:
            keys += [f"{name}.{key}" for key in mark.keys] if mark.keys else [name]
        if dataclasses.is_dataclass(annotation):
            assert isinstance(annotation, type)
            keys += [f"{name}.{key}" for key in changeable(annotation)]
    return tuple(keys)

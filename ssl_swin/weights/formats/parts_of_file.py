"""What every import shares: the parts of a file, and what neither it nor the caller tells."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.weights.formats.format import COORDINATES, FileSettings
from ssl_swin.weights.formats.heads import HEAD
from ssl_swin.weights.formats.simmim_head import PARTS
from ssl_swin.weights.formats.tables import is_table

_ASSUMED_NORMALISATION = "nothing tells the normalisation: ImageNet's mean and std are assumed"
_ASSUMED_WINDOWS = (
    "nothing tells the windows that the position biases were trained with: the model's own are "
    "assumed, which is wrong for a Swin V2 whose window was changed after its pretraining"
)


@dataclass(frozen=True)
class Parts:
    """The tensors of a model by what they are for, under our names."""

    encoder: dict[str, Tensor]
    tables: dict[str, Tensor]
    simmim: dict[str, Tensor]
    head: dict[str, Tensor]

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> "Parts":
        """Tell the tensors apart by their names."""
        tables = {name for name in state if is_table(name)}
        simmim = {name for name in state if name in PARTS}
        head = {name for name in state if name.startswith(HEAD)}
        encoder = state.keys() - tables - simmim - head
        return cls(
            *(
                {n: t for n, t in state.items() if n in part}
                for part in (encoder, tables, simmim, head)
            )
        )


@contextmanager
def naming(path: Path, hint: str) -> Iterator[None]:
    """Puts the name of a file before what is wrong with it, and a hint behind."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}{hint}") from error


def with_given(
    settings: FileSettings,
    pretrained_window_sizes: Sequence[int] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> FileSettings:
    """Puts what the caller says before what the file says."""
    if (mean is None) != (std is None):
        raise UserError(f"give mean and std together: got {mean} and {std}")
    if pretrained_window_sizes is not None:
        settings = replace(settings, pretrained_window_sizes=tuple(pretrained_window_sizes))
    if mean is not None and std is not None:
        settings = replace(settings, mean=tuple(mean), std=tuple(std))
    return settings


def assumptions(
    encoder: Encoder, settings: FileSettings, tables: Mapping[str, Tensor]
) -> tuple[str, ...]:
    """Lists what neither the file nor the caller tells."""
    assumed = [] if settings.mean else [_ASSUMED_NORMALISATION]
    tells_windows = settings.pretrained_window_sizes or any(COORDINATES in name for name in tables)
    if encoder.kind == "Swin V2" and not tells_windows:
        assumed.append(_ASSUMED_WINDOWS)
    return tuple(assumed)


def normalisation(
    encoder: Encoder, settings: FileSettings
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the deviation of each channel, those of ImageNet if nothing tells them.

    Raises:
        UserError: If the encoder has other channels.
    """
    known = (settings.mean or (), settings.std or ())
    if encoder.in_chans == 3 and not any(known):
        known = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    if {len(values) for values in known} != {encoder.in_chans}:
        raise UserError(
            f"the model has {encoder.in_chans} channels: give a mean and a std for each, those "
            "that it was trained with"
        )
    return known

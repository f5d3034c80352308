"""What a figure shows, as tensors: columns of images, one row per example.

Objectives and tasks say what to draw in these words; `ssl_swin.reporting` draws it.
"""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class ImageColumn:
    """Images."""

    title: str
    images: Tensor  # normalised float (B, C, H, W)
    masked: Tensor | None = None  # bool (B, rows, columns), True = drawn grey; expanded to pixels


@dataclass(frozen=True)
class Objects:
    """The objects of one image."""

    boxes: Tensor  # float (N, 4) in px of the drawn image: x_min, y_min, x_max, y_max
    labels: Tensor  # int64 (N,): classes
    scores: Tensor | None = None  # float (N,) in [0, 1], of what is told
    masks: Tensor | None = None  # bool (N, h, w), in the drawn image's upper left corner


@dataclass(frozen=True)
class ObjectColumn(ImageColumn):
    """Images with boxes around objects, and the masks of these where there are any."""

    objects: tuple[Objects, ...] = field(kw_only=True)  # B
    classes: tuple[str, ...] = field(kw_only=True)  # names by label


@dataclass(frozen=True)
class ClassColumn(ImageColumn):
    """Images tinted in the colours of the classes of their pixels."""

    labels: Tensor = field(kw_only=True)  # int (B, H, W); negative values are drawn grey
    classes: tuple[str, ...] = field(kw_only=True)  # names by label


@dataclass(frozen=True)
class DifferenceColumn:
    """How far two images are apart, as a colour map: the mean over channels of |a - b|."""

    title: str
    images: Tensor  # normalised float (B, C, H, W)
    reference: Tensor  # of the same shape


@dataclass(frozen=True)
class LabelColumn:
    """Classes per pixel, one colour each."""

    title: str
    labels: Tensor  # int (B, H, W); negative values are drawn grey


@dataclass(frozen=True)
class ColourColumn:
    """Maps of three channels, drawn as red, green and blue, each cell as a square of pixels."""

    title: str
    colours: Tensor  # float (B, 3, h, w) in [0, 1]


@dataclass(frozen=True)
class SimilarityColumn:
    """How alike each cell is to the one that a mark stands on: black, red, yellow to white."""

    title: str
    similarity: Tensor  # float (B, h, w); 1 is drawn white, 0 and below black
    marked: tuple[float, float]  # centre of the mark, as shares of height and width


@dataclass(frozen=True)
class MistakeColumn:
    """Which pixels are told wrongly: red on black."""

    title: str
    mistakes: Tensor  # int (B, H, W): 1 wrong, 0 right; negative values are drawn grey


Column = (
    ImageColumn
    | ObjectColumn
    | ClassColumn
    | DifferenceColumn
    | LabelColumn
    | ColourColumn
    | SimilarityColumn
    | MistakeColumn
)
Figure = tuple[Column, ...]

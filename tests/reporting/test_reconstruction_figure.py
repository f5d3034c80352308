import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ssl_swin.errors import UserError
from ssl_swin.figure import (
    ColourColumn,
    DifferenceColumn,
    ImageColumn,
    LabelColumn,
    MistakeColumn,
    SimilarityColumn,
)
from ssl_swin.masking import expand_mask
from ssl_swin.pixels import normalize
from ssl_swin.reporting.figures import band_groups, draw_figure, shown_bands

HEIGHT, WIDTH = 32, 48
GREY = (118, 118, 118)


def reconstruction_grid(images, mask, predicted, mean, std, **options) -> Image.Image:
    """Draw the columns that SimMIM describes."""
    masked = expand_mask(mask, images.shape[-2:]).unsqueeze(1)
    pasted = torch.where(masked, predicted, images)
    columns = (
        ImageColumn("input", images),
        ImageColumn("masked", images, masked=mask),
        ImageColumn("prediction", pasted),
        DifferenceColumn("error", pasted, images),
    )
    return draw_figure(columns, mean, std, **options)


class Drawing:
    """A grid of random pixels, and the tiles that were drawn."""

    def __init__(self, num_channels: int) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = (2, num_channels, HEIGHT, WIDTH)
        self.true, self.painted = (
            torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for _ in range(2)
        )
        mask = torch.tensor([[[1, 0, 0], [0, 1, 1]], [[0, 1, 0], [1, 0, 0]]]).bool()
        self.hidden = expand_mask(mask, (HEIGHT, WIDTH)).numpy()
        statistics = {"mean": num_channels * [0.4], "std": num_channels * [0.2]}
        self.picture = reconstruction_grid(
            normalize(self.true, **statistics),
            mask,
            normalize(self.painted, **statistics),
            **statistics,
        )

    def column(self, index: int) -> np.ndarray:
        """Tiles of a column, (2, H, W, 3)."""
        left = index * (WIDTH + 2)
        tops = [16 + row * (HEIGHT + 2) for row in range(2)]
        return np.stack([crop(self.picture, left, top) for top in tops])


def crop(picture: Image.Image, left: int, top: int) -> np.ndarray:
    return np.asarray(picture.crop((left, top, left + WIDTH, top + HEIGHT)))


def as_shown(pixels: Tensor) -> np.ndarray:
    if pixels.shape[1] == 1:
        pixels = pixels.repeat(1, 3, 1, 1)
    return pixels[:, :3].permute(0, 2, 3, 1).numpy()


@pytest.fixture(params=[1, 3, 5])
def drawing(request) -> Drawing:
    return Drawing(request.param)


def test_grid__one_row_per_image_and_four_columns(drawing):
    assert drawing.picture.mode == "RGB"
    assert drawing.picture.size == (4 * (WIDTH + 2), 16 + 2 * (HEIGHT + 2))


def test_grid__first_column_is_the_input(drawing):
    assert (drawing.column(0) == as_shown(drawing.true)).all()


def test_grid__masked_pixels_are_grey_and_visible_ones_as_they_are(drawing):
    column, hidden = drawing.column(1), drawing.hidden
    assert (column[hidden] == GREY).all()
    assert (column[~hidden] == as_shown(drawing.true)[~hidden]).all()


def test_grid__prediction_is_pasted_into_the_visible_pixels(drawing):
    column, hidden = drawing.column(2), drawing.hidden
    assert (column[hidden] == as_shown(drawing.painted)[hidden]).all()
    assert (column[~hidden] == as_shown(drawing.true)[~hidden]).all()


def test_grid__error_is_black_where_visible_and_grows_with_the_distance(drawing):
    column, hidden = drawing.column(3), drawing.hidden
    assert (column[~hidden] == 0).all()
    distance = (drawing.true.float() - drawing.painted.float()).abs().mean(dim=1).numpy()
    order = np.argsort(distance[hidden])
    brightness = column[hidden].astype(int).sum(axis=1)[order]
    assert (np.diff(brightness) >= 0).all()
    assert brightness[-1] > brightness[0]


def test_grid__error_colours_by_hand():
    true = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    painted = true.clone()
    levels = torch.tensor([[0, 0, 0], [85, 85, 85], [255, 0, 0], [255, 255, 255]])
    painted[0, :, 0] = levels.T.to(torch.uint8)
    statistics = {"mean": 3 * [0.5], "std": 3 * [0.25]}
    picture = reconstruction_grid(
        normalize(true, **statistics),
        torch.ones(1, 1, 1).bool(),
        normalize(painted, **statistics),
        **statistics,
    )
    colours = np.asarray(picture)[16, 3 * 6 : 3 * 6 + 4].astype(int)
    # White from half of the range on; a mean of 85 is two thirds of the way there: the third stop.
    expected = [(0, 0, 0), (255, 190, 40), (255, 190, 40), (255, 255, 255)]
    assert np.abs(colours - expected).max() <= 1


# Bands, and values beyond 8 bits


@pytest.mark.parametrize(
    ("bands", "channels", "shown"),
    [
        (None, 1, [0]),
        (None, 2, [0]),
        (None, 3, [0, 1, 2]),
        (None, 5, [0, 1, 2]),
        ([4, 2, 0], 5, [4, 2, 0]),
        ([1], 2, [1]),
        ([0, 0, 1], 2, [0, 0, 1]),
    ],
)
def test_shown_bands(bands, channels, shown):
    assert shown_bands(bands, channels) == shown


BAD_BANDS = [
    *[[0, 1, 5], [-1, 0, 1], [0, 1], [], [0, 1, 2, 3]],
    *[[[0], [5]], [[0], 1], [[0, 1, 2], []], [[]], [[0, 1]]],
]


@pytest.mark.parametrize("bands", BAD_BANDS)
def test_shown_bands__refused(bands):
    words = f"one or three from 0 to 4, or a list of such groups as [[0], [1]], got {bands} ("
    with pytest.raises(UserError, match=re.escape(words)):
        shown_bands(bands, 5)


@pytest.mark.parametrize(
    ("bands", "groups"),
    [
        (None, [[0, 1, 2]]),
        ([3], [[3]]),
        ([3, 2, 1], [[3, 2, 1]]),
        ([[3, 2, 1], [4]], [[3, 2, 1], [4]]),
        ([[0]], [[0]]),
    ],
)
def test_band_groups(bands, groups):
    assert band_groups(bands, 5) == groups
    assert shown_bands(bands, 5) == groups[0]


def drawn(values: Tensor, painted: Tensor, **options: object) -> np.ndarray:
    """The four columns (4, H, W, 3) of one image, wholly masked."""
    height, width = values.shape[-2:]
    mask, statistics = torch.ones(1, 1, 1).bool(), {"mean": 5 * [0.3], "std": 5 * [0.1]}
    images = (normalize(pixels, **statistics) for pixels in (values, painted))
    true, predicted = images
    picture = np.asarray(reconstruction_grid(true, mask, predicted, **statistics, **options))
    lefts = [column * (width + 2) for column in range(4)]
    return np.stack([picture[16 : 16 + height, left : left + width] for left in lefts])


def test_grid__bands_are_drawn_as_red_green_blue():
    levels = torch.arange(5, dtype=torch.uint8).mul(50).view(1, 5, 1, 1).repeat(1, 1, 8, 8)
    columns = drawn(levels, 250 - levels, bands=[4, 2, 0])
    assert (columns[0] == [200, 100, 0]).all()
    assert (columns[2] == [50, 150, 250]).all()
    assert (drawn(levels, levels, bands=[3])[0] == [150, 150, 150]).all()


def test_figure__each_group_of_bands_is_a_column():
    levels = torch.arange(5, dtype=torch.uint8).mul(50).view(1, 5, 1, 1).repeat(1, 1, 8, 8)
    statistics = {"mean": 5 * [0.3], "std": 5 * [0.1]}
    images = normalize(levels, **statistics)
    figure = (
        ImageColumn("input", images),
        ImageColumn("masked", images, masked=torch.ones(1, 1, 1).bool()),
        DifferenceColumn("error", images, images),
    )
    picture = np.asarray(draw_figure(figure, **statistics, bands=[[4, 2, 0], [3]]))
    assert picture.shape == (16 + 10, 5 * 10, 3)
    corners = picture[16, ::10].tolist()
    assert corners == [[200, 100, 0], [150] * 3, list(GREY), list(GREY), [0, 0, 0]]


def test_figure__maps_are_drawn_as_squares():
    images = torch.zeros(1, 1, 8, 16)
    colours = torch.tensor([[0.0, 1.0], [0.2, 2.0], [1.0, -1.0]]).reshape(1, 3, 1, 2)
    similarity = torch.tensor([[[1.0, 0.0], [-1.0, 1 / 3]]])
    figure = (
        ImageColumn("input", images),
        ColourColumn("colours", colours),
        SimilarityColumn("alike", similarity, (0.25, 0.25)),
    )
    picture = np.asarray(draw_figure(figure, [0.0], [1.0]))
    _, drawn, alike = (picture[16:24, left : left + 16] for left in (0, 18, 36))
    assert (drawn[:, :8] == [0, 51, 255]).all() and (drawn[:, 8:] == [255, 255, 0]).all()
    assert (alike[:4, 9:] == 0).all() and (alike[4:, :8][3] == 0).all()
    assert (alike[4:, 9:] == [180, 20, 30]).all()
    cross = np.zeros((8, 16), dtype=bool)
    cross[2, 2:7] = cross[0:5, 4] = True
    assert (alike[cross] == 255).all()
    assert (alike[1, 1:4] == 0).all()  # its edge
    assert (alike[:4, 8][0] == 0).all() and (alike[0, 0] == 255).all()


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-4, 0.2), (5000.0, -800.0)])
def test_grid__stretched_from_the_2nd_to_the_98th_percentile_of_the_true_values(scale, shift):
    ramp = torch.arange(101.0).view(1, 1, 1, 101)  # percentiles of themselves
    true = (ramp * scale + shift).repeat(1, 5, 1, 1)
    painted = true.clone()
    painted[..., :3] = torch.tensor([50.0, 26.0, 1000.0]) * scale + shift
    columns = drawn(true, painted, stretch=True).astype(int)
    expected = np.clip((np.arange(101) - 2) / 96 * 255, 0, 255)
    assert np.abs(columns[0, 0] - expected[:, None]).max() <= 1
    assert np.abs(columns[2, 0, :3] - np.array([[127.5], [63.75], [255]])).max() <= 1
    assert (columns[1] == 118).all()
    assert columns[3, 0, 3:].max() == 0 and columns[3, 0, 2].min() == 255


def test_grid__stretch_is_of_each_band():
    generator = torch.Generator().manual_seed(0)
    band = torch.rand(1, 1, 16, 16, generator=generator)
    values = torch.cat([band * 10**power - power for power in range(5)], dim=1)
    tile = drawn(values, values, stretch=True)[0].astype(int)
    assert np.abs(tile - tile[..., :1]).max() <= 1
    assert tile.min() == 0 and tile.max() == 255


def test_grid__a_constant_band_has_nothing_to_stretch():
    values = torch.full((1, 5, 4, 4), 7.0)
    columns = drawn(values, values + 0.2 * 0.1, stretch=True)  # a fifth of a deviation
    assert (columns[0] == 0).all() and (columns[2] == 51).all()


def test_label_column__one_colour_a_class_and_grey_for_none():
    labels = torch.tensor([[[0, 0, 1], [2, -1, 1]]])
    images = torch.zeros(1, 3, 2, 3)
    columns = (ImageColumn("input", images), LabelColumn("labels", labels))
    tile = np.asarray(draw_figure(columns, [0.5] * 3, [0.2] * 3))[16:18, 5:8]
    assert (tile[1, 1] == GREY).all()
    assert (tile[0, 0] == tile[0, 1]).all() and (tile[0, 2] == tile[1, 2]).all()
    assert len({tuple(colour) for colour in tile.reshape(-1, 3).tolist()}) == 4


def test_mistakes__are_red_on_black_and_grey_where_nothing_is_judged():
    images = torch.zeros(1, 3, 2, 3)
    mistakes = torch.tensor([[[0, 1, -1], [1, 0, 0]]])
    columns = (ImageColumn("input", images), MistakeColumn("error", mistakes))
    tile = np.asarray(draw_figure(columns, [0.5] * 3, [0.2] * 3))[16:18, 5:8]
    red = (230, 60, 40)
    assert tile.reshape(-1, 3).tolist() == [
        list(colour) for colour in ((0, 0, 0), red, GREY, red, (0, 0, 0), (0, 0, 0))
    ]


def test_names__head_each_row_and_are_cut_at_their_beginning():
    images = torch.zeros(2, 1, 32, 96)
    drawn = [
        np.asarray(
            draw_figure((ImageColumn("input", images),), [0.5], [0.2], names=[name, "other"])
        )
        for name in ("a" * 50 + "1.png", "b" * 50 + "a" * 50 + "1.png", "a" * 50 + "2.png")
    ]
    assert drawn[0].shape[0] == 16 + 2 * (16 + 32 + 2)
    assert (drawn[0] == drawn[1]).all() and (drawn[0] != drawn[2]).any()

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ssl_swin.masking import expand_mask
from ssl_swin.pixels import normalize
from ssl_swin.simmim import normalize_locally
from ssl_swin.visualize import predicted_images, reconstruction_grid

HEIGHT, WIDTH = 32, 48
GREY = (118, 118, 118)


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


def test_predicted_images__without_local_normalisation_is_the_prediction():
    prediction = torch.randn(2, 3, 16, 16).bfloat16()
    images = predicted_images(prediction, torch.randn(2, 3, 16, 16), None)
    assert images.equal(prediction.float())


@pytest.mark.parametrize("contrast", [60.0, 0.5])  # of grey levels around 250
def test_predicted_images__inverts_the_local_normalisation(contrast):
    levels = 250 + contrast * torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    statistics = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    images = normalize(levels, **statistics)
    perfect = normalize_locally(images, 47)
    found = predicted_images(perfect, images, 47)
    one_level = 1 / 255 / 0.225
    assert (found - images).abs().max() < 0.25 * one_level
    # A prediction of zero is the local mean, not the image.
    assert (predicted_images(0 * perfect, images, 47) - images).abs().max() > 0.5 * one_level

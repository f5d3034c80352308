"""Colours and likeness of feature maps, by hand."""

import pytest
import torch

from ssl_swin.figure import ColourColumn, ImageColumn, SimilarityColumn
from ssl_swin.probing.feature_maps import feature_figure, principal_colours, similarity_to


def test_principal_colours__by_hand():
    """Channels that vary by 4, 2 and 1 are red, green and blue, whatever is added to them."""
    signs = torch.tensor([[-1.0, -1, 1, 1], [-1.0, 1, -1, 1], [1.0, -1, -1, 1]])  # orthogonal
    sizes, mean = torch.tensor([1.0, 4.0, 2.0]), torch.tensor([5.0, -7.0, 100.0])
    features = ((signs * sizes[:, None]) + mean[:, None]).reshape(1, 3, 2, 2)
    colours = principal_colours(features)
    expected = (signs[[1, 2, 0]].reshape(1, 3, 2, 2) + 1) / 2
    torch.testing.assert_close(colours, expected)


@pytest.mark.parametrize("channels", [3, 7, 40])  # fewer and more than there are cells
def test_principal_colours__do_not_depend_on_the_basis(channels):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, channels, 3, 3, generator=generator)
    features *= torch.linspace(1, 3, channels)[:, None, None]
    rotation, _ = torch.linalg.qr(torch.randn(channels, channels, generator=generator))
    turned = torch.einsum("cd,bdhw->bchw", rotation, features)
    one, other = principal_colours(features), principal_colours(turned)
    differences = (one - other).abs(), (one + other - 1).abs()
    same = torch.minimum(*(each.amax((0, 2, 3)) for each in differences))
    assert same.max() < 1e-4  # up to the sign of a component
    assert one.amin() == 0 and one.amax() == 1
    assert one.amax((0, 2, 3)).tolist() == [1, 1, 1]


@pytest.mark.parametrize("value", [0.0, 3.0, 1e30])
def test_principal_colours__of_features_that_are_all_alike_are_grey(value):
    assert principal_colours(torch.full((2, 4, 3, 3), value)).unique().tolist() == [0.5]


def test_principal_colours__of_one_channel_are_one_colour():
    colours = principal_colours(torch.arange(9.0).reshape(1, 1, 3, 3))
    assert colours[0, 0].flatten().diff().min() > 0
    assert colours[0, 1:].unique().tolist() == [0.5]


def test_similarity__by_hand():
    """The mean is (0, 0); the cell at row 0, column 1 is (1, 0)."""
    cells = torch.tensor([[3.0, 1, -3, -1], [3.0, 0, -3, 0]])  # of channels
    features = cells.reshape(1, 2, 2, 2) + torch.tensor([10.0, -10])[:, None, None]
    similarity = similarity_to(features, (0, 1))
    half = 0.5**0.5
    torch.testing.assert_close(similarity, torch.tensor([[[half, 1.0], [-half, -1.0]]]))
    assert similarity_to(torch.ones(1, 2, 2, 2), (1, 1)).unique().tolist() == [0]


def test_feature_figure__columns_and_the_marked_cell():
    images = torch.zeros(2, 3, 16, 32)
    maps = [torch.randn(2, 5, 4, 8), torch.randn(2, 9, 2, 4)]
    first, *others = feature_figure(images, maps, (0.5, 0.99))
    assert isinstance(first, ImageColumn) and first.images is images
    assert [column.title for column in others] == [
        *["stage 1, PCA", "stage 1, like +"],
        *["stage 2, PCA", "stage 2, like +"],
    ]
    for stage, (colours, similarity) in enumerate(zip(others[::2], others[1::2], strict=True)):
        assert isinstance(colours, ColourColumn) and isinstance(similarity, SimilarityColumn)
        height, width = maps[stage].shape[-2:]
        assert colours.colours.shape == (2, 3, height, width)
        row, column = height // 2, width - 1
        assert similarity.marked == ((row + 0.5) / height, (column + 0.5) / width)
        torch.testing.assert_close(similarity.similarity[:, row, column], torch.ones(2))

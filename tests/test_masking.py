import math
from collections import Counter

import numpy as np
import pytest
import torch

from ssl_swin.errors import UserError
from ssl_swin.masking import block_mask, expand_mask, mask_grid, num_masked_patches, random_mask


def draw(seed: int, grid: tuple[int, int] = (6, 6), ratio: float = 0.6, **options) -> torch.Tensor:
    return random_mask(grid, ratio, np.random.default_rng(seed), **({"batch_size": 8} | options))


@pytest.mark.parametrize(
    ("size", "patch", "grid"),
    [((192, 192), 32, (6, 6)), ((224, 160), 32, (7, 5)), ((64, 64), 64, (1, 1))],
)
def test_mask_grid__counts_rows_and_columns(size, patch, grid):
    assert mask_grid(size, patch, patch_size_px=4) == grid


@pytest.mark.parametrize(
    ("size", "patch", "fitting"),
    [
        ((192, 192), 30, "4, 8, 12, 16, 24, 32, 48, 64, 96, 192"),
        ((64, 96), 64, "4, 8, 16, 32"),
        ((96, 64), 64, "4, 8, 16, 32"),
        ((192, 192), 384, "4, 8, 12, 16, 24, 32, 48, 64, 96, 192"),
        ((24, 16), 0, "4, 8"),
        ((7, 5), 4, "none"),
    ],
)
def test_mask_grid__names_the_patches_that_tile(size, patch, fitting):
    message = (
        f"patch of {patch} px does not tile an image of {size[0]}x{size[1]} px "
        f"in patches of 4 px; .*: {fitting} px$"
    )
    with pytest.raises(UserError, match=message):
        mask_grid(size, patch, patch_size_px=4)


@pytest.mark.parametrize(
    ("num_patches", "ratio", "expected"),
    [
        (36, 0.6, 22),
        (49, 0.6, 30),
        (64, 0.6, 39),
        (144, 0.6, 87),
        (9, 0.6, 6),
        (16, 0.6, 10),
        (100, 0.5, 50),
        (100, 0.55, 56),  # 55.00000000000001 in floating point, as in the original
        (4, 0.01, 1),
    ],
)
def test_num_masked_patches__rounds_up(num_patches, ratio, expected):
    assert num_masked_patches(num_patches, ratio) == expected


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.6, 60.0, math.nan])
def test_num_masked_patches__ratio_out_of_range(ratio):
    with pytest.raises(UserError, match=f"strictly between 0 and 1, got {ratio}"):
        num_masked_patches(36, ratio)


def test_num_masked_patches__nothing_visible():
    with pytest.raises(UserError, match=r"0\.98 masks all 36 patches; at most 0\.9722 leaves"):
        num_masked_patches(36, 0.98)


def test_num_masked_patches__the_ratio_it_advises_leaves_one_visible():
    for num_patches in range(2, 300):
        with pytest.raises(UserError) as refusal:
            num_masked_patches(num_patches, 0.9999)
        advised = float(str(refusal.value).partition("at most ")[2].split()[0])
        assert num_masked_patches(num_patches, advised) == num_patches - 1


@pytest.mark.parametrize("grid", [(6, 6), (5, 7), (1, 9)])
@pytest.mark.parametrize("ratio", [0.1, 0.55, 0.6])
def test_random_mask__exact_count_in_every_image(grid, ratio):
    mask = draw(0, grid, ratio, batch_size=50)
    assert mask.dtype == torch.bool
    assert mask.shape == (50, *grid)
    assert mask.sum(dim=(1, 2)).tolist() == 50 * [math.ceil(grid[0] * grid[1] * ratio)]


def test_random_mask__images_are_independent():
    masks = draw(0, batch_size=50)
    assert len({mask.numpy().tobytes() for mask in masks}) == 50


def test_random_mask__shared_is_one_mask_for_the_batch():
    masks = draw(0, shared=True)
    assert masks.shape == (8, 6, 6)
    assert len({mask.numpy().tobytes() for mask in masks}) == 1
    assert masks[0].sum() == 22


def test_random_mask__follows_the_generator_alone():
    assert draw(3).equal(draw(3))
    assert not draw(3).equal(draw(4))
    generator = np.random.default_rng(3)
    first, second = (random_mask((6, 6), 0.6, generator, batch_size=8) for _ in range(2))
    assert first.equal(draw(3))
    assert not first.equal(second)


def test_random_mask__every_unit_equally_often():
    num_draws, num_patches, num_masked = 2000, 12, 5
    counts = draw(0, (3, 4), 0.4, batch_size=num_draws).sum(dim=0).flatten().double()
    share = num_masked / num_patches
    # Variance of a count, and the negative correlation between patches of one mask.
    chi_square = ((counts - num_draws * share) ** 2).sum() / (num_draws * share * (1 - share))
    assert chi_square * (num_patches - 1) / num_patches < 37.4  # 0.9999 quantile of 11 degrees


def test_random_mask__every_choice_equally_often():
    choices = Counter(mask.numpy().tobytes() for mask in draw(0, (2, 2), 0.5, batch_size=2000))
    assert len(choices) == 6  # of 2 patches out of 4
    chi_square = sum((count - 2000 / 6) ** 2 / (2000 / 6) for count in choices.values())
    assert chi_square < 25.7  # 0.9999 quantile, 5 degrees of freedom


def test_random_mask__ratio_out_of_range():
    with pytest.raises(UserError, match=r"got 1\.5"):
        draw(0, ratio=1.5)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
@pytest.mark.parametrize("grid", [(2, 3), (4, 9), (8, 3)])
def test_expand_mask__equals_a_nested_loop(grid, dtype):
    mask = draw(0, (2, 3), 0.5, batch_size=4).to(dtype)
    expanded = expand_mask(mask, grid)
    assert expanded.dtype == dtype
    assert expanded.shape == (4, *grid)
    for image in range(4):
        for y in range(grid[0]):
            for x in range(grid[1]):
                unit = mask[image, y * 2 // grid[0], x * 3 // grid[1]]
                assert expanded[image, y, x] == unit


@pytest.mark.parametrize("grid", [(5, 6), (6, 5), (3, 3)])
def test_expand_mask__patch_would_cover_a_fraction(grid):
    with pytest.raises(UserError, match=f"6x6 patches does not fit a grid of {grid[0]}x{grid[1]}"):
        expand_mask(draw(0), grid)


@pytest.mark.parametrize("grid", [(7, 7), (4, 9), (3, 3), (12, 12)])
@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.6, 0.8])
def test_block_mask__masks_something_and_at_most_the_count(
    grid: tuple[int, int], ratio: float
) -> None:
    generator = np.random.default_rng(0)
    most = math.ceil(grid[0] * grid[1] * ratio)
    counts = [int(block_mask(grid, ratio, generator).sum()) for _ in range(50)]
    assert max(counts) == most and min(counts) > 0
    assert np.mean(counts) > 0.8 * most


def test_block_mask__is_a_function_of_the_generator() -> None:
    first, again, other = (
        block_mask((7, 7), 0.4, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert first.equal(again) and not first.equal(other)
    assert first.dtype == torch.bool and first.shape == (7, 7)


def test_block_mask__refuses_a_ratio_out_of_range() -> None:
    with pytest.raises(UserError, match="mask ratio must lie strictly between 0 and 1"):
        block_mask((4, 4), 1.0, np.random.default_rng(0))

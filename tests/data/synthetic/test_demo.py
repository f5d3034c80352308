import io
import math
import pickle
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import distance_transform_edt

from ssl_swin.data.synthetic import shapes
from ssl_swin.data.synthetic.dataset import SHAPES, SyntheticDataset, arrange_solids, draw_scene
from ssl_swin.data.synthetic.paint import Solid, draw_pattern, paint_solid, pixel_centres, rgb
from ssl_swin.errors import UserError

HEART_RADIUS = 0.5 / (1.5 - math.sqrt(0.5))


def _generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize(
    ("shape", "point", "expected"),
    [
        ("disc", 0, -1),
        ("disc", 1, 0),
        ("disc", 3 + 4j, 4),
        ("ring", 0, 0.44),
        ("ring", 0.72j, -0.28),
        ("ring", -2, 1),
        ("square", 0, -math.sqrt(0.5)),
        ("square", 1 + 1j, math.sqrt(0.5)),  # beside the middle of a side
        ("square", -2j, 1),  # beyond a corner
        ("triangle", 0, -0.5),
        ("triangle", -1, 0.5),
        ("triangle", 2, 1),
        ("star", 2, 1),
        ("star", -0.5, 0),  # a notch
        ("cross", 0, -0.28 * math.sqrt(2)),  # to a notch
        ("cross", 0.8j, -0.16),  # to the end of a bar
        ("cross", 0.58 + 0.68j, 0.3),  # to two sides at once
        ("heart", -1.5, 0.5),
        ("heart", 0.5 / HEART_RADIUS - 1, -math.sqrt(0.125) / HEART_RADIUS),  # the square's middle
        ("crescent", -0.65, -0.35),
        ("crescent", 0.5, 0.8),
        ("crescent", 0.61, math.sqrt(1 - 0.61**2)),  # between the tips
        ("flower", 1, 0),
        ("flower", -0.6, 0),  # between two petals
        ("flower", 0.66, -0.34),
        ("arrow", 1, 0),
        ("arrow", -0.45, -0.3),
        ("arrow", -1.95, 1),
    ],
)
def test_distance__by_hand(shape, point, expected):
    points = np.array([point], np.complex64)
    assert shapes.SHAPES[shape](points)[0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("disc", math.pi),
        ("ring", math.pi * (1 - 0.44**2)),
        ("square", 2),
        ("triangle", 0.75 * math.sqrt(3)),
        ("star", 10 * 0.5 * 0.5 * math.sin(math.pi / 5)),
        ("cross", 2 * 1.92 * 0.56 - 0.56**2),
        ("heart", (0.5 + math.pi / 8) / HEART_RADIUS**2),
        ("arrow", 0.95 * 0.78 + 1.0 * 0.6),
    ],
)
def test_distance__area_by_hand(shape, expected):
    inside = shapes.SHAPES[shape](pixel_centres(400)) < 0
    assert inside.mean() * 4 == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "flower"])
def test_distance__agrees_with_the_nearest_pixel_on_the_other_side(shape):
    distance = shapes.SHAPES[shape](pixel_centres(200) * np.float32(1.25))
    pixel = 2.5 / 200
    inside = distance < 0
    brute_force = np.where(inside, -distance_transform_edt(inside), distance_transform_edt(~inside))
    np.testing.assert_allclose(distance, brute_force * pixel, atol=1.5 * pixel)


@pytest.mark.parametrize("shape", SHAPES)
def test_distance__fills_the_unit_circle(shape):
    grid = pixel_centres(400) * np.float32(1.1)
    reach = abs(grid[shapes.SHAPES[shape](grid) <= 0]).max()
    assert 0.98 < reach <= 1


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((0, 0, 0), (0, 0, 0)),
        ((1, 0, 2), (1, 1, 1)),
        ((0.627955, 0.257683, math.radians(29.2339)), (1, 0, 0)),  # sRGB red, as CSS Color 4 has it
    ],
)
def test_rgb__known_colours(colour, expected):
    np.testing.assert_allclose(rgb(*colour), expected, atol=2e-3)


def test_draw_pattern__share_of_the_second_colour_varies_within_its_range():
    for seed in range(40):  # every kind, with near certainty
        share = draw_pattern(_generator(seed), period=0.3)(pixel_centres(64))
        assert share.min() >= 0
        assert share.max() <= 1
        assert np.ptp(share) > 0.3


def test_paint_solid__is_lit_from_the_light_and_casts_a_shadow_away_from_it():
    grey = rgb(0.6, 0, 0)
    ball = Solid("disc", 0, 0.5, 1, 1, (grey, grey), lambda points: np.zeros(points.shape))
    canvas = np.full((3, 96, 96), 0.5, np.float32)
    paint_solid(canvas, pixel_centres(96), ball, light=-1)
    row = canvas[0, 48]
    assert row[48 - 14] > row[48] > row[48 + 14]  # left, middle, right of the ball
    assert row[48 + 26] < 0.45  # just right of it
    np.testing.assert_array_equal(row[: 48 - 26], 0.5)


def test_draw_scene__pixels():
    pixels = draw_scene(_generator(0), 96, 3)
    assert pixels.shape == (96, 96, 3)
    assert pixels.dtype == np.uint8
    assert pixels.std(axis=(0, 1)).min() > 8


def test_draw_scene__same_generator_state_same_picture():
    first, again, other = (draw_scene(_generator(seed), 64, 3) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert abs(first.astype(int) - other).mean() > 10


def test_draw_scene__looks_the_same_at_any_size():
    small, large = (draw_scene(_generator(2), size_px, 4).astype(float) for size_px in (64, 128))
    shrunk = large.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
    assert abs(shrunk - small).mean() < 2


def test_draw_scene__smallest_size():
    for label in range(len(SHAPES)):
        assert draw_scene(_generator(label), 32, label).shape == (32, 32, 3)


@pytest.mark.parametrize("label", [-1, 10])
def test_draw_scene__unknown_label(label):
    with pytest.raises(UserError, match=f"label is {label}"):
        draw_scene(_generator(0), 96, label)


def test_draw_scene__too_small():
    with pytest.raises(UserError, match="size_px is 31: it must be at least 32"):
        draw_scene(_generator(0), 31, 0)


@pytest.mark.parametrize("size_px", [32, 96])
def test_arrange_solids__main_is_whole_in_the_frame(size_px):
    grid = pixel_centres(size_px)
    border = np.concatenate([grid[0], grid[-1], grid[:, 0], grid[:, -1]])
    half_pixel = 1 / size_px  # at this distance from the outline the coverage falls to 0
    for seed in range(50):
        for label in range(len(SHAPES)):
            main = arrange_solids(_generator(seed), label, hue=0)[0]
            assert main.shape == SHAPES[label]
            assert main.distance(border).min() >= half_pixel
            assert main.distance(grid).min() < -half_pixel


def test_arrange_solids__others_are_smaller_of_other_shapes_and_partly_hidden():
    counts = Counter()
    for seed in range(200):
        main, *others = arrange_solids(_generator(seed), label=seed % 10, hue=0)
        counts[len(others)] += 1
        assert main.shape not in {other.shape for other in others}
        for other in others:
            assert other.radius < main.radius
            assert abs(other.centre - main.centre) < other.radius + main.radius
    assert set(counts) == {1, 2, 3, 4}


def test_arrange_solids__only_the_shapes_depend_on_the_label():
    for seed in range(20):
        first, second = (arrange_solids(_generator(seed), label, hue=1) for label in (0, 7))
        assert len(first) == len(second)
        for one, two in zip(first, second, strict=True):
            assert one.shape != two.shape
            assert (one.centre, one.radius, one.turn) == (two.centre, two.radius, two.turn)
            np.testing.assert_array_equal(one.colours, two.colours)


def test_demo_source__record_holds_the_scene():
    source = SyntheticDataset(20, 48, seed=3)
    record = source[17]
    assert (record.extension, record.label) == ("png", 7)
    assert "17" in record.name
    expected = draw_scene(np.random.default_rng((3, 17)), 48, 7)
    np.testing.assert_array_equal(_decode(record.data), expected)


def test_demo_source__image_is_a_function_of_seed_and_index():
    source = SyntheticDataset(30, 48, seed=0)
    assert source[12] == SyntheticDataset(13, 48, seed=0)[12]
    assert pickle.loads(pickle.dumps(source))[12] == source[12]
    images = {
        SyntheticDataset(30, 48, seed)[index].data for seed in (0, 1) for index in (2, 12, 22)
    }
    assert len(images) == 6


def test_demo_source__labels_are_balanced():
    source = SyntheticDataset(40, 32, seed=0)
    assert len(source.classes) == len(set(source.classes)) == 10
    assert Counter(record.label for record in source) == dict.fromkeys(range(10), 4)


def test_demo_source__fingerprint_changes_with_any_argument():
    arguments = [(40, 96, 0), (41, 96, 0), (40, 97, 0), (40, 96, 1)]
    assert len({SyntheticDataset(*each).fingerprint for each in arguments}) == 4
    assert SyntheticDataset(40, 96, 0).fingerprint == SyntheticDataset(40, 96, 0).fingerprint


@pytest.mark.parametrize("index", [-1, 5])
def test_demo_source__index_outside(index):
    with pytest.raises(IndexError, match=f"no image {index} among 5"):
        SyntheticDataset(5, 32, seed=0)[index]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 96, 0), "num_images is 0: it must be at least 1"),
        ((10, 16, 0), "size_px is 16: it must be at least 32"),
        ((10, 96, -1), "seed is -1: it must be at least 0"),
    ],
)
def test_demo_source__arguments_out_of_range(arguments, message):
    with pytest.raises(UserError, match=message):
        SyntheticDataset(*arguments)

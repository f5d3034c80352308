"""Views that record how they came about: matrices against where pixels go, draws, refusals."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_swin.data import affine
from ssl_swin.data.affine import View, move_boxes
from ssl_swin.data.encoded import EncodedSample, Member
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.rng import keyed_generator
from ssl_swin.data.semi_samples import SemiBatch, UnlabelledTransform, collate_unlabelled
from ssl_swin.data.semi_views import StrongView, WeakView
from ssl_swin.errors import UserError

WEAK = WeakView(short_px=(40, 90), long_px=120, flip_probability=0.5)
STRONG = {
    "weak": WEAK,
    "colours": False,
    "factor": (0.1, 1.9),
    "posterize_bits": 4,
    "translate_ratio": 0.1,
    "rotate_degrees": 30.0,
    "shear_degrees": 30.0,
    "num_erased": (0, 0),
    "erase_ratio": 0.2,
}


def spot(height=60, width=80, x=50, y=24):
    """A bright spot on a dark image, whose centre is at (x, y)."""
    rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    distance = (rows[:, None] - y).square() + (columns - x).square()
    return (4 + 200 * torch.exp(-distance / 18)).to(torch.uint8)[None].repeat(3, 1, 1)


def centre(pixels):
    values = pixels[0].double()
    values = (values - values.median()).clamp(min=10) - 10
    rows, columns = (torch.arange(side) + 0.5 for side in values.shape)
    total = values.sum()
    return (values.sum(0) * columns).sum() / total, (values.sum(1) * rows).sum() / total


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("strong", [False, True])
def test_views__record_where_places_go(seed, strong):
    view = StrongView(**STRONG) if strong else WEAK
    seen = view(spot(), keyed_generator(seed, "test"))
    x, y, one = seen.matrix @ np.array([50, 24, 1])
    found = centre(seen.pixels)
    assert one == 1 and seen.pixels.dtype == torch.uint8
    assert min(seen.size_px) <= 90 and max(seen.size_px) <= 120
    assert (found[0] - x).abs() < 0.6 and (found[1] - y).abs() < 0.6


def test_matrices__by_hand():
    size = (20, 40)
    view = affine.mirrored(affine.resized(affine.untouched(torch.zeros(1, 10, 10)), size))
    assert (view.matrix @ [1, 2, 1]).tolist() == [36, 4, 1]
    turned = affine.rotation(90, size) @ [20, 10, 1]
    np.testing.assert_allclose(turned, [20, 10, 1], atol=1e-12)  # the centre
    np.testing.assert_allclose(affine.rotation(90, size) @ [25, 10, 1], [20, 15, 1], atol=1e-12)
    slanted = affine.shear(45, 0, size) @ [20, 13, 1]
    np.testing.assert_allclose(slanted, [23, 13, 1], atol=1e-12)
    np.testing.assert_allclose(affine.shear(0, 45, size) @ [23, 10, 1], [23, 13, 1], atol=1e-12)


def test_warped__shifts_pixels_and_fills_with_the_mean():
    pixels = torch.arange(24, dtype=torch.float32).view(2, 3, 4)
    moved = affine.warped(affine.untouched(pixels), affine.translation(1, 0))
    torch.testing.assert_close(moved.pixels[:, :, 1:], pixels[:, :, :-1])
    mean = pixels.mean(dim=(1, 2))[:, None].expand(2, 3)
    torch.testing.assert_close(moved.pixels[:, :, 0], mean)


def test_move_boxes__encloses_corners_and_cuts():
    boxes = torch.tensor([[10.0, 4, 20, 8], [30, 0, 45, 9]])
    mirrored = affine.mirrored(View(torch.zeros(1, 20, 40), np.eye(3))).matrix
    moved = move_boxes(boxes, torch.from_numpy(mirrored), (20, 40))
    assert moved.tolist() == [[20, 4, 30, 8], [0, 0, 10, 9]]
    turned = torch.from_numpy(affine.rotation(45, (20, 40)))
    square = torch.tensor([[18.0, 8, 22, 12]])
    half = 2 * math.sqrt(2)
    expected = torch.tensor([[20 - half, 10 - half, 20 + half, 10 + half]])
    torch.testing.assert_close(move_boxes(square, turned, (20, 40)), expected)
    away = move_boxes(boxes, torch.from_numpy(affine.translation(100, 0)), (20, 40))
    assert (away[:, 2] == away[:, 0]).all()
    assert move_boxes(boxes[:0], turned, (20, 40)).shape == (0, 4)


@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, torch.uint16), (5, torch.uint8), (2, torch.float32)]
)
def test_strong_view__keeps_channels_and_type(channels, dtype):
    view = StrongView(**STRONG | {"num_erased": (1, 5)})
    pixels = (torch.rand(channels, 50, 70) * 200).to(dtype)
    for seed in range(6):
        seen = view(pixels, keyed_generator(seed, "test")).pixels
        assert seen.dtype == dtype and seen.shape[0] == channels
        assert seen.float().min() >= 0 and seen.float().max() <= 200


def test_strong_view__changes_colours_of_photographs_alone():
    view = StrongView(**STRONG | {"colours": True})
    view.check_samples(channels=3, dtype="uint8")
    for channels, dtype in ((4, "uint8"), (3, "uint16")):
        with pytest.raises(UserError, match=f"not {channels} of {dtype}: set semi.strong.colours"):
            view.check_samples(channels=channels, dtype=dtype)
    StrongView(**STRONG).check_samples(channels=4, dtype="float32")
    pixels = (torch.rand(3, 40, 40) * 255).to(torch.uint8)
    plain = View(pixels, np.eye(3))
    changed = [view._recoloured(plain, keyed_generator(seed, "x")).pixels for seed in range(60)]

    class Largest(np.random.Generator):
        """Draws the last of the changes in turn, each as strong as may be."""

        number = 0

        def uniform(self, low, high):
            return float(np.nextafter(high, low))

        def integers(self, low, high=None):
            return self.number if high is None else high - 1

    for number in range(9):
        Largest.number = number
        assert view._recoloured(plain, Largest(np.random.PCG64())).pixels.dtype == torch.uint8
    assert {(each.dtype, each.shape) for each in changed} == {(torch.uint8, pixels.shape)}
    same = sum(each.equal(pixels) for each in changed)
    assert 1 <= same <= 25  # one of nine leaves colours alone, and few others may
    assert len({each.numpy().tobytes() for each in changed}) > 20


def test_strong_view__erases_squares():
    view = StrongView(**STRONG | {"num_erased": (3, 3), "erase_ratio": 0.5})
    plain = View(torch.full((1, 64, 96), 100, dtype=torch.uint8), np.eye(3))
    plain.pixels[:, ::2] = 101
    sides = []
    for seed in range(30):
        erased = view._erased(plain, keyed_generator(seed, "x")).pixels
        number = int((erased != plain.pixels).sum())
        assert number <= 3 * 32 * 32
        sides.append(number)
    assert max(sides) > 500 and plain.pixels[0, 0, 0] == 101  # the image itself stays


def encoded(name="x", size=(60, 80)):
    file = io.BytesIO()
    generator = np.random.default_rng(0)
    values = generator.integers(0, 255, (*size, 3)).astype(np.uint8)
    Image.fromarray(values).save(file, "png")
    return EncodedSample(name, None, {"image": Member(file.getvalue(), "png")})


def test_transform__draws_by_seed_epoch_and_name_and_knows_the_way_between_views():
    transform = UnlabelledTransform(WEAK, StrongView(**STRONG), PixelFormat(3, "uint8"), seed=1)
    first, again = transform(encoded(), 0), transform(encoded(), 0)
    assert first.weak.equal(again.weak) and first.strong.equal(again.strong)
    for other in (transform(encoded(), 1), transform(encoded("y"), 0)):
        assert first.weak.shape != other.weak.shape or not first.weak.equal(other.weak)
        assert first.strong.shape != other.strong.shape or not first.strong.equal(other.strong)
    torch.testing.assert_close(first.to_strong @ first.to_weak, torch.eye(3), rtol=0, atol=1e-4)
    weak = WEAK(torch.zeros(3, 60, 80), keyed_generator(1, 0, "x", "weak view")).matrix
    strong = StrongView(**STRONG)(
        torch.zeros(3, 60, 80), keyed_generator(1, 0, "x", "strong view")
    ).matrix
    place = np.array([31.0, 17.0, 1.0])
    np.testing.assert_allclose(
        first.to_strong.double().numpy() @ (weak @ place), strong @ place, atol=1e-4
    )


def test_collate__fills_each_kind_of_view_up():
    transform = UnlabelledTransform(WEAK, StrongView(**STRONG), PixelFormat(3, "uint8"), seed=1)
    samples = [transform(encoded(name), 0) for name in "abc"]
    batch = collate_unlabelled(samples)
    for filled, sizes, kind in (
        (batch.weak, batch.weak_sizes_px, "weak"),
        (batch.strong, batch.strong_sizes_px, "strong"),
    ):
        assert filled.shape[2] % 32 == filled.shape[3] % 32 == 0
        for image, (height, width), sample in zip(filled, sizes.tolist(), samples, strict=True):
            assert image[:, :height, :width].equal(getattr(sample, kind))
            assert image[:, height:].eq(0).all() and image[:, :, width:].eq(0).all()
    together = SemiBatch(batch, batch)
    assert together.names == [*"abcabc"] and batch.to_strong.shape == (3, 3, 3)


def test_views__refuse_what_cannot_be():
    with pytest.raises(UserError, match=r"num_erased must be .* the smaller first, got"):
        StrongView(**STRONG | {"num_erased": (5, 1)})
    with pytest.raises(UserError, match="rotate_degrees must be"):
        StrongView(**STRONG | {"rotate_degrees": 90})
    with pytest.raises(UserError, match="short_px must be"):
        WeakView(short_px=(90, 40), long_px=100, flip_probability=0.5)

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_swin.data.batch import UNLABELLED
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.samples import LabeledTransform, PixelFormat
from ssl_swin.data.transforms import RandomCrop
from ssl_swin.objectives.masked_images import MaskedTransform


def record(name: str = "n01/x.jpg", label: int | None = 3) -> EncodedSample:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG")
    return EncodedSample.of_image(file.getvalue(), "jpg", label, name)


def masked_samples(seed: int = 0) -> MaskedTransform:
    view = RandomCrop((32, 24), crop_scale=(0.3, 1), crop_aspect=(0.7, 1.4), flip_probability=0.5)
    return MaskedTransform(
        view, PixelFormat(3, "uint8"), mask_grid=(8, 6), mask_ratio=0.6, seed=seed
    )


def labeled_samples(seed: int = 0) -> LabeledTransform:
    return LabeledTransform(masked_samples().augmentation, PixelFormat(3, "uint8"), seed=seed)


def test_masked_samples__shapes_and_mask_count():
    sample = masked_samples()(record(), epoch=0)
    assert (sample.pixels.dtype, sample.pixels.shape) == (torch.uint8, (3, 32, 24))
    assert (sample.mask.dtype, sample.mask.shape) == (torch.bool, (8, 6))
    assert sample.mask.sum() == 29  # 48 * 0.6 = 28.8, rounded up


@pytest.mark.parametrize("make", [masked_samples, labeled_samples])
def test_samples__follow_seed_epoch_and_name_alone(make):
    def tensors(seed: int, epoch: int, name: str) -> list[torch.Tensor]:
        torch.manual_seed(torch.seed())  # global state must not matter
        sample = make(seed)(record(name), epoch)
        return [field for field in sample if isinstance(field, torch.Tensor)]

    first = tensors(0, 5, "x")
    assert all(one.equal(other) for one, other in zip(first, tensors(0, 5, "x"), strict=True))
    for key in [(1, 5, "x"), (0, 6, "x"), (0, 5, "y")]:
        assert not any(one.equal(other) for one, other in zip(first, tensors(*key), strict=True))


def test_samples__drawing_others_in_between_changes_nothing():
    make = masked_samples()
    alone = make(record("x"), 2)
    for i in range(3):
        make(record(f"other {i}"), 2)
    again = make(record("x"), 2)
    assert again.pixels.equal(alone.pixels) and again.mask.equal(alone.mask)


@pytest.mark.parametrize("make", [masked_samples, labeled_samples])
@pytest.mark.parametrize(("label", "expected"), [(3, 3), (0, 0), (None, UNLABELLED)])
def test_samples__label(make, label, expected):
    assert make()(record(label=label), 0).label == expected
    assert UNLABELLED == -1


@pytest.mark.parametrize("make", [masked_samples, labeled_samples])
def test_samples__name_is_the_records(make):
    assert make()(record("n01/y.jpg"), 0).name == "n01/y.jpg"


def test_samples__channels_and_type_as_asked_for():
    file = io.BytesIO()
    np.save(file, np.arange(5 * 40 * 50, dtype=np.uint16).reshape(5, 40, 50))
    five_bands = EncodedSample.of_image(file.getvalue(), "npy", 1, "x.npy")
    masked, labeled = masked_samples(), labeled_samples()
    for make in (masked, labeled):
        make.pixels = PixelFormat(5, "uint16")
    samples = masked(five_bands, 0), labeled(five_bands, 0)
    assert {(s.pixels.dtype, s.pixels.shape) for s in samples} == {(torch.uint16, (5, 32, 24))}
    assert samples[0].pixels.equal(samples[1].pixels)


def test_labeled_samples__same_view_as_masked_ones():
    pixels = labeled_samples()(record(), 4).pixels
    assert pixels.equal(masked_samples()(record(), 4).pixels)

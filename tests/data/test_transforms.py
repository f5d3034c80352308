import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as TF

from ssl_swin.data.geometry import crop, flip, resize
from ssl_swin.data.rng import keyed_generator
from ssl_swin.data.sample import Sample
from ssl_swin.data.transforms import CentreCrop, FinetuneAugmentation, RandomCrop
from ssl_swin.errors import UserError

NOISE = np.random.default_rng(0).integers(0, 256, (11, 15, 3), dtype=np.uint8)
PHOTO = Image.fromarray(NOISE).resize((150, 110), Image.Resampling.BICUBIC)
PIXELS = TF.pil_to_tensor(PHOTO)
WHOLE = {"crop_scale": (1.0, 1.0), "crop_aspect": (1.0, 1.0)}
SIMMIM = {"crop_scale": (0.67, 1.0), "crop_aspect": (3 / 4, 4 / 3)}


def largest_difference(one: Tensor, other: Tensor) -> int:
    assert one.shape == other.shape
    return int((one.int() - other.int()).abs().max())


# RandomCrop


def boxes(height_px: int, width_px: int, **ranges: tuple[float, float]) -> np.ndarray:
    augmentation = RandomCrop((8, 8), flip_probability=0.0, **ranges)
    return np.array(
        [augmentation.random_box(height_px, width_px, keyed_generator(i)) for i in range(2000)]
    )


def torchvision_boxes(height_px: int, width_px: int, **ranges: tuple[float, float]) -> np.ndarray:
    torch.manual_seed(0)
    image = torch.empty(1, height_px, width_px)
    scale, ratio = list(ranges["crop_scale"]), list(ranges["crop_aspect"])
    draw = v2.RandomResizedCrop(8, scale=scale, ratio=ratio).make_params
    drawn = (draw([image]) for _ in range(2000))
    return np.array([[box[k] for k in ("top", "left", "height", "width")] for box in drawn])


@pytest.mark.parametrize("size", [(300, 400), (400, 400), (340, 300)])
@pytest.mark.parametrize(
    ("crop_scale", "crop_aspect"), [((0.67, 1.0), (3 / 4, 4 / 3)), ((0.08, 0.3), (0.3, 3.0))]
)
def test_random_box__distributed_as_torchvisions(size, crop_scale, crop_aspect):
    ranges = {"crop_scale": crop_scale, "crop_aspect": crop_aspect}
    ours, theirs = boxes(*size, **ranges), torchvision_boxes(*size, **ranges)
    for column in range(4):
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3
    areas = ours[:, 2] * ours[:, 3] / (size[0] * size[1])
    aspects = ours[:, 3] / ours[:, 2]
    assert crop_scale[0] * 0.99 <= areas.min() < areas.max() <= crop_scale[1] * 1.01
    assert crop_aspect[0] * 0.98 <= aspects.min() < 1 < aspects.max() <= crop_aspect[1] * 1.02
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= size[0]).all() and (ours[:, 1] + ours[:, 3] <= size[1]).all()


@pytest.mark.parametrize(
    ("size", "box"),
    [((10, 1000), (0, 493, 10, 13)), ((1000, 10), (493, 0, 13, 10))],
)
def test_random_box__largest_central_one_where_none_fits(size, box):
    ranges = {"crop_scale": (0.9, 1.0), "crop_aspect": (3 / 4, 4 / 3)}
    assert (boxes(*size, **ranges) == box).all()
    assert (torchvision_boxes(*size, **ranges) == box).all()


@pytest.mark.parametrize("size_px", [(32, 32), (48, 24), (150, 200)])
def test_random_crop__resizes_its_box_as_pil_does(size_px, monkeypatch):
    augmentation = RandomCrop(size_px, flip_probability=0.0, **SIMMIM)
    monkeypatch.setattr(augmentation, "random_box", lambda *args: (7, 11, 90, 101))
    crop = PHOTO.crop((11, 7, 11 + 101, 7 + 90))
    expected = crop.resize(size_px[::-1], Image.Resampling.BILINEAR)
    pixels = augmentation.on_pixels(PIXELS, keyed_generator(0))
    assert pixels.dtype == torch.uint8 and pixels.is_contiguous()
    assert largest_difference(pixels, TF.pil_to_tensor(expected)) <= 1


def test_random_crop__flips_with_its_probability():
    never, always, half = (
        RandomCrop((16, 24), flip_probability=probability, **SIMMIM)
        for probability in (0.0, 1.0, 0.5)
    )
    num_flipped = 0
    for i in range(200):
        plain = never.on_pixels(PIXELS, keyed_generator(i))
        flipped = always.on_pixels(PIXELS, keyed_generator(i))
        assert flipped.equal(plain.flip(-1)) and not flipped.equal(plain)
        drawn = half.on_pixels(PIXELS, keyed_generator(i))
        assert drawn.equal(plain) or drawn.equal(flipped)
        num_flipped += drawn.equal(flipped)
    assert 72 <= num_flipped <= 128  # four standard deviations


def test_random_crop__whole_image_at_its_size_is_itself():
    augmentation = RandomCrop((110, 110), flip_probability=0.0, **WHOLE)
    assert augmentation.on_pixels(PIXELS[:, :, :110], keyed_generator(0)).equal(PIXELS[:, :, :110])


# CentreCrop


@pytest.mark.parametrize(("size_px", "shorter_px"), [(224, 256), (192, 219), (96, 109)])
@pytest.mark.parametrize("image_px", [(110, 150), (150, 110), (100, 100), (300, 123)])
def test_centre_crop__is_the_official_recipe(size_px, shorter_px, image_px):
    assert shorter_px == int(256 / 224 * size_px)
    photo = PHOTO.resize(image_px[::-1], Image.Resampling.BICUBIC)
    resized = TF.resize(photo, [shorter_px], InterpolationMode.BICUBIC)
    expected = TF.pil_to_tensor(TF.center_crop(resized, [size_px, size_px]))
    pixels = CentreCrop((size_px, size_px)).on_pixels(TF.pil_to_tensor(photo), keyed_generator(0))
    difference = (pixels.int() - expected.int()).abs()  # torch and PIL round between two passes
    assert difference.max() <= 2 and difference.float().mean() < 0.05


@pytest.mark.parametrize(
    ("size_px", "crop_ratio", "rows", "columns"),
    [
        ((110, 150), 1.0, slice(None), slice(None)),
        ((55, 75), 0.5, slice(28, 83), slice(38, 113)),  # half of an odd margin rounds to even
        ((110, 80), 1.0, slice(None), slice(35, 115)),
        ((55, 150), 1.0, slice(28, 83), slice(None)),
    ],
)
def test_centre_crop__only_crops_where_the_size_fits(size_px, crop_ratio, rows, columns):
    augmentation = CentreCrop(size_px, crop_ratio=crop_ratio)
    assert augmentation.on_pixels(PIXELS, keyed_generator(0)).equal(PIXELS[:, rows, columns])


@pytest.mark.parametrize("crop_ratio", [1.0, 224 / 256])
def test_centre_crop__never_pads(crop_ratio):
    augmentation = CentreCrop((64, 64), crop_ratio=crop_ratio)
    for height_px in range(1, 240):  # at 49 px, 49 * (64 / 49) is below 64
        for width_px in (height_px, height_px + 9):
            white = torch.full((1, height_px, width_px), 255, dtype=torch.uint8)
            assert augmentation.on_pixels(white, keyed_generator(0)).min() == 255


# Other channels, other types


def all_augmentations() -> dict[str, RandomCrop | CentreCrop | FinetuneAugmentation]:
    return {
        "random": RandomCrop((32, 48), flip_probability=0.5, **SIMMIM),
        "centre": CentreCrop((32, 48)),
        "augmented": finetune_augmentation(None, mean=5 * (0.5,)),
    }


@pytest.mark.parametrize("kind", ["random", "centre", "augmented"])
@pytest.mark.parametrize(("dtype", "scale"), [("uint8", 1), ("uint16", 257), ("float32", 1)])
def test_augmentations__every_band_of_every_type_as_8_bit_colours(kind, dtype, scale):
    """A band is changed like a colour; 16 bits and floats are 8 bits but for rounding."""
    augmentation = all_augmentations()[kind]
    bands = [0, 1, 2, 1, 0]
    pixels = (PIXELS[bands].int() * scale).to(getattr(torch, dtype))
    for i in range(8):
        changed = augmentation.on_pixels(pixels, keyed_generator(i))
        assert changed.dtype == pixels.dtype and changed.is_contiguous()
        expected = augmentation.on_pixels(PIXELS, keyed_generator(i))[bands].double() * scale
        if dtype == "float32":  # bicubic may overshoot; 8 bits are clipped
            changed = changed.clamp(0, 255)
        assert (changed.double() - expected).abs().max() <= 2 * scale  # 8 bits round twice


def test_augmentations__16_bits_keep_their_precision_and_their_range():
    levels = torch.tensor([0, 65535]).repeat_interleave(40).to(torch.uint16)
    edges = levels.view(1, 1, 80).repeat(5, 60, 1)
    for augmentation in all_augmentations().values():
        changed = augmentation.on_pixels(edges, keyed_generator(3)).int()
        assert changed.min() == 0 and changed.max() == 65535  # no overshoot wraps round
        assert (changed % 257).any()  # finer than 8 bits


# FinetuneAugmentation


def finetune_augmentation(auto_augment: str | None, **options) -> FinetuneAugmentation:
    recipe = {"mean": (0.485, 0.456, 0.406), "flip_probability": 0.5, **SIMMIM, **options}
    return FinetuneAugmentation((32, 48), auto_augment=auto_augment, **recipe)


@pytest.mark.parametrize("auto_augment", ["rand-m9-mstd0.5-inc1", None])
def test_finetune_augmentation__follows_its_generator_alone(auto_augment):
    augmentation = finetune_augmentation(auto_augment)

    def views(global_seed: int) -> list[Tensor]:
        random.seed(global_seed)
        np.random.seed(global_seed)
        torch.manual_seed(global_seed)
        return [augmentation.on_pixels(PIXELS, keyed_generator(i)) for i in range(8)]

    first = views(global_seed=1)
    assert all(one.equal(other) for one, other in zip(first, views(global_seed=2), strict=True))
    assert len({tuple(pixels.flatten().tolist()) for pixels in first}) == 8
    assert {(pixels.dtype, pixels.shape) for pixels in first} == {(torch.uint8, (3, 32, 48))}


def test_finetune_augmentation__without_augmentation_crops_and_resizes():
    augmentation = finetune_augmentation(
        None, flip_probability=0.0, crop_scale=(1, 1), crop_aspect=(15 / 11,) * 2
    )
    expected = PHOTO.resize((48, 32), Image.Resampling.BICUBIC)
    assert (
        largest_difference(
            augmentation.on_pixels(PIXELS, keyed_generator(0)), TF.pil_to_tensor(expected)
        )
        <= 1
    )


@pytest.mark.parametrize(
    ("pixels", "found"),
    [
        (PIXELS.to(torch.uint16), "3 of uint16"),
        (PIXELS.float(), "3 of float32"),
        (PIXELS[[0, 1, 2, 0, 1]], "5 of uint8"),
    ],
)
def test_finetune_augmentation__refuses_what_it_cannot_change(pixels, found):
    augmentation = finetune_augmentation("rand-m9-mstd0.5-inc1")
    with pytest.raises(UserError, match=rf"not {found}: set augment\.auto_augment=null"):
        augmentation.on_pixels(pixels, keyed_generator(0))


def test_finetune_augmentation__augmentation_changes_the_pixels():
    plain, augmented = finetune_augmentation(None), finetune_augmentation("rand-m9-mstd0.5-inc1")
    num_changed = sum(
        not plain.on_pixels(PIXELS, keyed_generator(i)).equal(
            augmented.on_pixels(PIXELS, keyed_generator(i))
        )
        for i in range(40)
    )
    assert num_changed >= 20


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("auto_augment", ["rand-m10-inc1", "original-mstd3"])
def test_finetune_augmentation__full_strength_fails_on_no_image(auto_augment, channels):
    augmentation = finetune_augmentation(auto_augment, mean=(0.5,) * channels)
    views = [augmentation.on_pixels(PIXELS[:channels], keyed_generator(i)) for i in range(120)]
    assert {pixels.shape for pixels in views} == {(channels, 32, 48)}


def test_finetune_augmentation__posterising_to_no_bits_is_black():
    augmentation = finetune_augmentation("rand-m10-inc1", flip_probability=0.0, **WHOLE)
    (randaugment,) = (step for step in augmentation.transform.transforms if hasattr(step, "ops"))
    randaugment.ops = [op for op in randaugment.ops if op.name == "PosterizeIncreasing"]
    (operation,) = randaugment.ops
    operation.prob = 1.0
    assert augmentation.on_pixels(PIXELS, keyed_generator(0)).max() == 0
    operation.magnitude = 9  # leaves one bit
    assert augmentation.on_pixels(PIXELS, keyed_generator(0)).unique().tolist() == [0, 128]


@pytest.mark.parametrize("mean", [(0.2, 0.5, 0.8), (0.9, 0.1, 0.4)])
@pytest.mark.parametrize("operation", ["TranslateXRel", "Rotate", "ShearY"])
def test_finetune_augmentation__uncovered_pixels_get_the_mean_of_the_data(operation, mean):
    augmentation = finetune_augmentation(
        "rand-m10-inc1", mean=mean, flip_probability=0.0, crop_scale=(1, 1), crop_aspect=(1.5, 1.5)
    )
    (randaugment,) = (step for step in augmentation.transform.transforms if hasattr(step, "ops"))
    randaugment.ops = [op for op in randaugment.ops if op.name == operation]
    (only,) = randaugment.ops
    only.prob = 1.0
    white = torch.full((3, 32, 48), 255, dtype=torch.uint8)
    corners = augmentation.on_pixels(white, keyed_generator(0))[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    fill = [round(255 * level) for level in mean]
    colours = [colour for colour in corners.T.tolist() if colour != [255, 255, 255]]
    assert colours and all(colour == fill for colour in colours)


# Masks and boxes


def numbered(height_px: int, width_px: int) -> Sample:
    """Every pixel has its own class, and its own box of one pixel."""
    mask = torch.arange(height_px * width_px).view(height_px, width_px)
    rows, columns = mask.flatten() // width_px, mask.flatten() % width_px
    boxes = torch.stack([columns, rows, columns + 1, rows + 1], dim=1).float()
    return Sample(mask[None].float(), mask, boxes, mask.flatten(), label=2, name="n")


@pytest.mark.parametrize("flip_probability", [0.0, 1.0])
def test_random_crop__mask_and_boxes_follow_the_pixels(flip_probability):
    """Crops at their own size: nothing is interpolated, so every pixel can be found again."""
    sample = numbered(12, 10)
    options = {"crop_scale": (0.3, 0.3), "crop_aspect": (1.0, 1.0)}
    for i in range(20):
        augmentation = RandomCrop((6, 6), flip_probability=flip_probability, **options)
        top, left, height, width = augmentation.random_box(12, 10, keyed_generator(i))
        assert (height, width) == (6, 6)
        result = augmentation(sample, keyed_generator(i))
        assert result.pixels.equal(augmentation.on_pixels(sample.pixels, keyed_generator(i)))
        assert result.pixels[0].long().equal(result.mask)
        assert result.mask.min() == top * 10 + left
        assert sorted(result.box_labels.tolist()) == sorted(result.mask.flatten().tolist())
        for box, label in zip(result.boxes.int().tolist(), result.box_labels, strict=True):
            assert box[2:] == [box[0] + 1, box[1] + 1]
            assert result.mask[box[1], box[0]] == label
        assert (result.label, result.name) == (2, "n")


def test_centre_crop__mask_and_boxes_by_hand():
    """8 x 12 px to 4 x 6 px, of which the inner 2 x 2 px remain."""
    mask = torch.arange(96).view(8, 12).to(torch.uint8)
    boxes = torch.tensor([[4.0, 2.0, 8.0, 6.0], [0.0, 0.0, 5.0, 8.0], [8.0, 2.0, 12.0, 6.0]])
    sample = Sample(torch.zeros(3, 8, 12), mask, boxes, torch.tensor([7, 8, 9]))
    result = CentreCrop((2, 2), crop_ratio=0.5)(sample, keyed_generator(0))
    # The centre of the new pixel (1, 2) is the corner of four old ones: that below it on the right.
    assert result.mask.tolist() == [[41, 43], [65, 67]]
    assert result.mask.dtype == torch.uint8 and result.mask.is_contiguous()
    assert result.boxes.tolist() == [[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 0.5, 2.0]]
    assert result.box_labels.tolist() == [7, 8]  # the third lies outside


def test_resize__a_mask_of_blocks_stays_what_the_pixels_show():
    blocks = torch.tensor([[0, 1], [2, 3]]).repeat_interleave(30, 0).repeat_interleave(30, 1)
    sample = Sample(blocks[None].to(torch.uint8), blocks, torch.tensor([[30.0, 0.0, 60.0, 30.0]]))
    for size_px in ((20, 20), (90, 40), (14, 62)):
        result = resize(sample, size_px, InterpolationMode.BILINEAR)
        rows, columns = (size // 2 for size in size_px)
        assert result.mask[:rows, :columns].eq(0).all() and result.mask[rows:, columns:].eq(3).all()
        assert result.mask[:rows, columns:].eq(1).all() and result.mask.unique().tolist() == [
            0,
            1,
            2,
            3,
        ]
        assert result.boxes.tolist() == [[size_px[1] / 2, 0.0, size_px[1], size_px[0] / 2]]


def test_crop__boxes_that_vanish_are_dropped_with_their_labels():
    boxes = torch.tensor(
        [[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 3.0, 9.0], [5.0, 5.0, 20.0, 20.0], [8.0, 0.0, 9.0, 9.0]]
    )
    sample = Sample(torch.zeros(1, 10, 10), None, boxes, torch.tensor([1, 2, 3, 4]))
    result = crop(sample, 2, 2, 6, 6)
    assert result.boxes.tolist() == [[0.0, 0.0, 1.0, 6.0], [3.0, 3.0, 6.0, 6.0]]
    assert result.box_labels.tolist() == [2, 3]
    none = crop(sample, 0, 9, 1, 1)
    assert none.boxes.shape == (0, 4) and none.box_labels.shape == (0,)
    unlabelled = crop(replace(sample, box_labels=None), 2, 2, 6, 6)
    assert unlabelled.boxes.equal(result.boxes) and unlabelled.box_labels is None


def test_flip__twice_is_nothing():
    sample = numbered(5, 7)
    once, twice = flip(sample), flip(flip(sample))
    assert once.mask.equal(sample.mask.flip(1))
    assert once.boxes[0].tolist() == [6.0, 0.0, 7.0, 1.0]
    for name in ("pixels", "mask", "boxes", "box_labels"):
        assert getattr(twice, name).equal(getattr(sample, name))


def objects(height_px: int, width_px: int) -> Sample:
    """As `numbered`, where every box has a mask of its pixel, an area and a flag of a crowd."""
    sample = numbered(height_px, width_px)
    number = height_px * width_px
    masks = torch.eye(number).view(number, height_px, width_px).to(torch.uint8)
    crowd = torch.arange(number) % 3 == 0
    return replace(sample, box_masks=masks, box_crowd=crowd, box_areas=torch.ones(number))


def test_geometry__masks_crowds_and_areas_of_boxes_follow():
    sample = objects(5, 7)
    changed = flip(crop(sample, 1, 2, 3, 4))
    twice = resize(changed, (6, 8), InterpolationMode.BILINEAR)
    for result, scale in ((changed, 1), (twice, 2)):
        assert len(result.boxes) == 12 and result.box_masks.shape == (12, 3 * scale, 4 * scale)
        assert result.box_crowd.tolist() == (result.box_labels % 3 == 0).tolist()
        assert result.box_areas.tolist() == [scale**2] * 12
        for (x_min, y_min, x_max, y_max), mask in zip(
            result.boxes.int().tolist(), result.box_masks, strict=True
        ):
            assert mask.sum() == scale**2 and mask[y_min:y_max, x_min:x_max].all()
    assert changed.box_labels[changed.box_masks.argmax(dim=0)].equal(changed.mask)


def test_crop__areas_shrink_with_the_mask_or_else_with_the_box():
    masks = torch.zeros(2, 10, 10, dtype=torch.uint8)
    masks[0, 2:4, :8] = 1  # 16 px, of which 6 are left of column 3
    masks[1, 5, 5] = 1
    boxes = torch.tensor([[0.0, 2.0, 8.0, 4.0], [4.0, 4.0, 6.0, 6.0]])
    sample = Sample(torch.zeros(1, 10, 10), None, boxes, torch.tensor([1, 2]))
    sample = replace(sample, box_masks=masks, box_areas=torch.tensor([32.0, 1.0]))
    cut = crop(sample, 0, 3, 10, 7)
    assert cut.box_areas.tolist() == [20.0, 1.0] and cut.box_masks.sum(dim=(1, 2)).tolist() == [
        10,
        1,
    ]
    without = crop(replace(sample, box_masks=None), 3, 4, 7, 6)  # half the height, half the width
    assert without.box_areas.tolist() == [8.0, 1.0]
    unseen = crop(sample, 0, 0, 5, 5)  # of the second object's box, but not of itself
    assert unseen.box_areas.tolist() == [20.0, 0.0] and unseen.box_masks[1].sum() == 0


def test_finetune_augmentation__masks_and_boxes_follow_only_without_auto_augment():
    sample = Sample(PIXELS, torch.zeros(PIXELS.shape[1:], dtype=torch.uint8))
    assert finetune_augmentation(None)(sample, keyed_generator(0)).mask.shape == (32, 48)
    boxes = Sample(PIXELS, boxes=torch.zeros(0, 4))
    for annotated in (sample, boxes):
        with pytest.raises(UserError, match=r"rotates and shears .*augment\.auto_augment=null"):
            finetune_augmentation("rand-m9-mstd0.5-inc1")(annotated, keyed_generator(0))


@pytest.mark.parametrize(
    ("channels", "dtype", "is_annotated", "message"),
    [
        (4, "uint8", False, "not 4 of uint8"),
        (3, "uint16", False, "not 3 of uint16"),
        (3, "uint8", True, "masks and boxes cannot follow"),
    ],
)
def test_check_samples__tells_before_any_is_read(channels, dtype, is_annotated, message):
    samples = {"channels": channels, "dtype": dtype, "is_annotated": is_annotated}
    with pytest.raises(UserError, match=rf"{message}.*set augment\.auto_augment=null"):
        finetune_augmentation("rand-m9-mstd0.5-inc1").check_samples(**samples)
    finetune_augmentation(None).check_samples(**samples)
    gray = augmentation(mean=[0.5])
    gray.check_samples(channels=1, dtype="uint8", is_annotated=False)


def test_finetune_augmentation__keeps_label_and_members():
    sample = Sample(PIXELS, label=3, name="x", members={"json": {"a": 1}})
    for auto_augment in ("rand-m9-mstd0.5-inc1", None):
        result = finetune_augmentation(auto_augment)(sample, keyed_generator(0))
        assert (result.label, result.name, result.members) == (3, "x", {"json": {"a": 1}})


def augmentation(**changes: Any) -> FinetuneAugmentation:
    settings = {"mean": [0.5] * 3, "crop_scale": (0.5, 1), "crop_aspect": (1, 1)}
    settings |= {"flip_probability": 0.5, "auto_augment": "rand-m9-mstd0.5-inc1"}
    return FinetuneAugmentation((16, 16), **(settings | changes))


@pytest.mark.parametrize("notation", ["foo", "rand-q9"])
def test_finetune_augmentation__a_notation_that_timm_does_not_know(notation: str) -> None:
    with pytest.raises(UserError, match=f"augment.auto_augment={notation} is no notation of timm"):
        augmentation(auto_augment=notation)


def test_finetune_augmentation__a_mean_for_each_channel() -> None:
    augmentation().check_samples(channels=3, dtype="uint8", is_annotated=False)
    with pytest.raises(UserError, match=r"each of the 3 channels, got \[0\.5\]"):
        augmentation(mean=[0.5]).check_samples(channels=3, dtype="uint8", is_annotated=False)


@pytest.mark.parametrize("mode", [InterpolationMode.BILINEAR, InterpolationMode.BICUBIC])
@pytest.mark.parametrize("channels", [1, 3, 4, 7])
def test_resize__of_8_bits_is_torchvisions_to_the_bit(mode: InterpolationMode, channels: int):
    stored = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (41, 37, channels), dtype=np.uint8)
    )
    for pixels in (stored.permute(2, 0, 1), stored.permute(2, 0, 1).contiguous()):
        cropped = crop(Sample(pixels), 3, 2, 33, 30)
        for size_px in ((32, 32), (80, 16), (33, 30)):
            expected = TF.resize(TF.crop(pixels, 3, 2, 33, 30), list(size_px), mode, antialias=True)
            assert resize(cropped, size_px, mode).pixels.equal(expected)

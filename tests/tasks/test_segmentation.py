"""Segmentation as a task: its loss, its metrics, its figure, and what it hands on."""

import io
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from ssl_swin.data.encoded import EncodedSample, Member
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.mask_classes import IGNORED, MaskClasses
from ssl_swin.data.segment_samples import SegmentSample, collate_segments
from ssl_swin.data.segment_views import SegmentAugmentation, WholeImage
from ssl_swin.errors import UserError
from ssl_swin.figure import ImageColumn, LabelColumn, MistakeColumn
from ssl_swin.pixels import normalize
from ssl_swin.tasks.segmentation import Segmentation
from ssl_swin.tasks.segmenter import Segmenter, segmenter_state
from ssl_swin.tasks.segmenting import Inference

SETTINGS = {
    "crop_px": 48,
    "head_channels": 8,
    "auxiliary_channels": 4,
    "auxiliary_weight": 0.4,
    "dropout": 0.0,
    "loss_mean": "all",
    "masks": MaskClasses(),
    "inference": Inference(short_px=None),
}
NORMALIZE = partial(normalize, mean=[0.5] * 3, std=[0.25] * 3)


@pytest.fixture
def task(tiny_encoder):
    def build(classes=("a", "b", "c"), version=1, **changes):
        encoder = tiny_encoder(version=version, img_size_px=128)
        return Segmentation(encoder, list(classes), **(SETTINGS | changes)).eval()

    return build


def encoded_sample(pixels, mask):
    members = {}
    for name, values in (("image", pixels), ("mask", mask)):
        file = io.BytesIO()
        Image.fromarray(values.astype(np.uint8)).save(file, "png")
        members[name] = Member(file.getvalue(), "png")
    return EncodedSample("x", None, members)


def batch(sizes=((40, 32), (32, 48)), least_px=(0, 0), num_classes=3):
    generator = torch.Generator().manual_seed(0)
    samples = []
    for number, size in enumerate(sizes):
        pixels = torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
        classes = torch.randint(-1, num_classes, size, generator=generator, dtype=torch.int16)
        samples.append(SegmentSample(pixels, classes, f"{number}", least_px))
    return collate_segments(samples)


@pytest.mark.parametrize("version", [1, 2])
def test_forward__is_the_loss_of_both_heads_on_images_with_zeros_around(task, version):
    model, given = task(version=version), batch(least_px=(48, 48))
    with torch.no_grad():
        output = model(given, NORMALIZE)
        images = NORMALIZE(given.pixels)
        images[0, :, 40:], images[0, :, :, 32:] = 0, 0
        images[1, :, 32:] = 0
        maps = model.norms(model.encoder.maps_any_size(images))
        losses = []
        for scores in (model.decode_head(maps), model.auxiliary_head(maps[2])):
            scores = F.interpolate(scores, (48, 48), mode="bilinear")
            pixels = F.cross_entropy(
                scores, given.classes.long(), ignore_index=IGNORED, reduction="none"
            )
            losses.append(pixels.mean())
    assert output.loss.item() == pytest.approx((losses[0] + 0.4 * losses[1]).item(), rel=1e-5)
    assert output.logs["loss_decode"].item() == pytest.approx(losses[0].item(), rel=1e-5)
    assert output.logs["loss_auxiliary"].item() == pytest.approx(losses[1].item(), rel=1e-5)


def test_forward__gives_every_trained_parameter_a_gradient(task):
    model = task().train()
    model(batch(least_px=(48, 48)), NORMALIZE).loss.backward()
    without = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert without == set()  # or several devices would wait for each other


def test_evaluate__of_a_batch_is_that_of_its_images_one_by_one(task):
    model = task(inference=Inference(short_px=24, long_px=60, ratios=(1.0, 1.5), flip=True))
    given = batch()
    together, alone = model.new_metrics(), model.new_metrics()
    with torch.no_grad():
        model.evaluate(together, given, NORMALIZE)
        for number, (height, width) in enumerate(given.sizes_px.tolist()):
            one = collate_segments(
                [
                    SegmentSample(
                        given.pixels[number, :, :height, :width],
                        given.classes[number, :height, :width],
                        "x",
                    )
                ]
            )
            model.evaluate(alone, one, NORMALIZE)
    values = {name: metric.compute().item() for name, metric in together.items()}
    assert values == pytest.approx({n: m.compute().item() for n, m in alone.items()}, rel=1e-6)
    assert values["loss"] > 0 and 0 < values["miou"] < 1
    labelled = (given.classes != IGNORED).sum().item()
    assert together["miou"].true.sum().item() == labelled


def test_evaluate__loss_is_the_mean_over_labelled_pixels(task):
    model, given = task(), batch(sizes=((32, 32),))
    metrics = model.new_metrics()
    with torch.no_grad():
        model.evaluate(metrics, given, NORMALIZE)
        scores = F.interpolate(model.scores(NORMALIZE(given.pixels)), (32, 32), mode="bilinear")
        expected = F.cross_entropy(scores, given.classes.long(), ignore_index=IGNORED)
    assert metrics["loss"].compute().item() == pytest.approx(expected.item(), rel=1e-5)


def test_figure__shows_input_truth_prediction_and_error(task):
    model, given = task(), batch()
    with torch.no_grad():
        image, truth, told, error = model.figure(given, NORMALIZE)
        expected = F.interpolate(
            model.scores(NORMALIZE(given.pixels[:1, :, :40, :32])), (40, 32), mode="bilinear"
        ).argmax(1)[0]
    assert isinstance(image, ImageColumn) and image.images.shape == (2, 3, 40, 48)
    assert isinstance(truth, LabelColumn) and truth.labels.equal(given.classes)
    assert isinstance(told, LabelColumn) and told.labels[0, :, :32].equal(expected)
    assert told.labels[0, :, 32:].eq(IGNORED).all()
    assert isinstance(error, MistakeColumn)
    judged = given.classes != IGNORED
    assert error.mistakes[~judged].eq(-1).all()
    assert error.mistakes[judged].equal((told.labels != given.classes).int()[judged])
    assert [column.title for column in model.preview(given, NORMALIZE)] == ["input", "classes"]


def test_figure__scales_large_images_down(task):
    large = batch(sizes=((300, 700), (20, 20)))
    image, truth, _, _ = task().figure(large, NORMALIZE)
    assert image.images.shape == (2, 3, 219, 512) and truth.labels.shape == (2, 219, 512)
    assert set(truth.labels.unique().tolist()) <= {-1, 0, 1, 2}


def test_transform__fills_crops_up_and_leaves_held_out_images_alone(task):
    model = task(masks=MaskClasses(reduce_zero_label=True))
    pixels = PixelFormat(3, "uint8")
    augmentation = SegmentAugmentation(
        model.view_size_px,
        short_px=32,
        long_px=64,
        ratio=(1.0, 1.0),
        max_class_share=1.0,
        flip_probability=0.0,
        brightness=0,
        contrast=None,
        saturation=None,
        hue_degrees=None,
    )
    encoded = encoded_sample(np.zeros((20, 30, 3)), np.full((20, 30), 2))
    training = model.make_transform(augmentation, pixels, seed=0)(encoded, 0)
    assert training.classes.shape == (32, 48) and training.classes.eq(1).all()
    assert collate_segments([training]).pixels.shape == (1, 3, 48, 48)
    assert isinstance(model.make_evaluation(1.0), WholeImage)
    held_out = model.make_transform(model.make_evaluation(1.0), pixels, seed=0)(encoded, 0)
    assert collate_segments([held_out]).pixels.shape == (1, 3, 20, 30)


def test_export__is_what_a_segmenter_loads(task):
    model = task()
    export = model.export()
    assert export.num_classes == 3 and export.settings["label_names"] == ["a", "b", "c"]
    assert not any("auxiliary" in name for name in export.state)
    other = Segmenter(task().encoder, channels=8, num_classes=3).eval()
    own = segmenter_state(other.encoder, other.norms, other.decode_head)
    assert own.keys() == export.state.keys()
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(export.state[name])
        images = torch.randn(1, 3, 33, 41)
        torch.testing.assert_close(other(images), model.scores(images))


def test_segmentation__refuses_what_cannot_be(task, tiny_encoder):
    with pytest.raises(UserError, match="needs two classes or more, got 1"):
        task(classes=["a"])
    with pytest.raises(UserError, match="class_of names class 3, and there are 3 classes"):
        task(masks=MaskClasses(class_of={0: 3}))
    with pytest.raises(UserError, match=r"batch_size=1 leaves one value"):
        task().check_batch_size(1, 8)
    with pytest.raises(UserError, match=r"joins maps of two stages or more, and .* has 1"):
        encoder = tiny_encoder(depths=(1,), num_heads=(1,))
        Segmentation(encoder, ["a", "b"], **SETTINGS)
    with pytest.raises(UserError, match="segmentation takes images of any size, got 96"):
        task().resized(96)

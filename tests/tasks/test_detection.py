"""Detection as a task: its losses, what it detects, its metrics, and what it hands on."""

import io
from functools import partial

import pytest
import torch
from PIL import Image

from ssl_swin.data.detect_samples import DetectSample, collate_detections
from ssl_swin.data.encoded import EncodedSample, Member
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.segment_views import WholeImage
from ssl_swin.errors import UserError
from ssl_swin.pixels import normalize
from ssl_swin.tasks.detecting import DetectInference
from ssl_swin.tasks.detection import Detection
from ssl_swin.tasks.detector import Detector, detector_state

HEAD = {
    "with_masks": True,
    "channels": 8,
    "head_channels": 16,
    "anchor_scale": 4,
    "anchor_ratios": [0.5, 1.0, 2.0],
    "num_proposals": 40,
}
MASK_RCNN = {
    "cascade": False,
    "anchors_inside": False,
    "proposal_loss": "l1",
    "box_loss": "l1",
}
CASCADE = {
    "cascade": True,
    "anchors_inside": True,
    "proposal_loss": "smooth_l1",
    "box_loss": "giou",
}
KINDS = {"mask_rcnn": MASK_RCNN, "cascade": CASCADE}
INFERENCE = DetectInference(short_px=None, least_score=0.0, most_objects=20)
NORMALIZE = partial(normalize, mean=[0.5] * 3, std=[0.25] * 3)


@pytest.fixture
def task(tiny_encoder):
    def build(kind="mask_rcnn", classes=("a", "b"), version=1, in_chans=3, **changes):
        encoder = tiny_encoder(version=version, img_size_px=128, in_chans=in_chans)
        settings = HEAD | KINDS[kind] | {"inference": INFERENCE} | changes
        return Detection(encoder, list(classes), **settings).eval()

    return build


def sample(size=(64, 96), boxes=((8, 8, 40, 30), (50, 20, 90, 60)), labels=(0, 1), channels=3):
    generator = torch.Generator().manual_seed(size[0])
    pixels = torch.randint(0, 256, (channels, *size), generator=generator, dtype=torch.uint8)
    masks = torch.zeros((len(boxes), *size), dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = 1
    return DetectSample(
        pixels,
        torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        torch.tensor(labels[: len(boxes)], dtype=torch.int64),
        masks,
        torch.zeros(len(boxes), dtype=torch.bool),
        masks.sum(dim=(1, 2)).float(),
        "x",
    )


EMPTY = sample(size=(40, 64), boxes=())


@pytest.mark.parametrize("kind", KINDS)
def test_forward__is_the_sum_of_its_parts_and_reaches_every_parameter(task, kind):
    model = task(kind).train()
    torch.manual_seed(0)
    output = model(collate_detections([sample(), EMPTY]), NORMALIZE)
    assert output.loss.item() == pytest.approx(sum(v.item() for v in output.logs.values()))
    stages = ("_1", "_2", "_3") if kind == "cascade" else ("",)
    heads = {f"loss_{part}{stage}" for part in ("class", "box", "mask") for stage in stages}
    assert output.logs.keys() == heads | {"loss_rpn_class", "loss_rpn_box"}
    output.loss.backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert {n for n, p in trained.items() if p.grad is None} == set()
    assert {n for n, p in trained.items() if not p.grad.isfinite().all()} == set()
    still = {n for n, p in trained.items() if p.grad.eq(0).all()}
    assert {n for n in still if n.startswith(("encoder", "rcnn.norms", "rcnn.proposals"))} == set()


@pytest.mark.parametrize("kind", KINDS)
def test_forward__of_images_without_objects_has_box_and_mask_losses_of_exactly_0(task, kind):
    model = task(kind).train()
    output = model(collate_detections([EMPTY, EMPTY]), NORMALIZE)
    zero = {name for name, value in output.logs.items() if value == 0}
    assert zero == {name for name in output.logs if "box" in name or "mask" in name}
    output.loss.backward()
    without = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert without == set()  # or several devices would wait for each other
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("classes", "channels", "version"), [(("tree",), 3, 1), (("a", "b"), 5, 1), (("a", "b"), 1, 2)]
)
def test_task__takes_one_class_other_channels_and_boxes_alone(
    task, kind, classes, channels, version
):
    model = task(kind, classes, version, in_chans=channels, with_masks=False).train()
    normalize_all = partial(normalize, mean=[0.5] * channels, std=[0.25] * channels)
    given = sample(labels=(0, len(classes) - 1), channels=channels)
    batch = collate_detections([given._replace(masks=None)])
    output = model(batch, normalize_all)
    output.loss.backward()
    assert not any("mask" in name for name in output.logs)
    model.eval()
    metrics = model.new_metrics()
    model.evaluate(metrics, batch, normalize_all)
    assert 0 <= metrics["map"].compute() <= 1
    (found,) = model.detections(batch, normalize_all)
    assert found.masks is None and len(found.boxes) == 20
    assert set(found.labels.tolist()) <= set(range(len(classes)))


@pytest.mark.parametrize("kind", KINDS)
def test_forward__computes_boxes_and_losses_in_float32_under_autocast(task, kind):
    model, batch = task(kind).train(), collate_detections([sample(), EMPTY])
    torch.manual_seed(0)
    exact = model(batch, NORMALIZE)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(batch, NORMALIZE)
    assert {value.dtype for value in output.logs.values()} == {torch.float32}
    assert output.loss.item() == pytest.approx(exact.loss.item(), rel=0.1)
    model.eval()
    with torch.autocast("cpu", torch.bfloat16):
        found = model.detections(batch, NORMALIZE)
    assert {each.boxes.dtype for each in found} == {torch.float32}
    assert {each.scores.dtype for each in found} == {torch.float32}


def test_forward__draws_from_the_global_generator_alone(task):
    model, batch = task().train(), collate_detections([sample(), EMPTY])
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(model(batch, NORMALIZE).loss.item())
    assert losses[0] == losses[1] != losses[2]


def test_detections__do_not_depend_on_the_batch(task):
    model = task(inference=DetectInference(short_px=48, long_px=80, least_score=0.0))
    samples = [sample(), EMPTY, sample((33, 57), boxes=((3, 3, 30, 30),))]
    together = model.detections(collate_detections(samples), NORMALIZE)
    for found, each in zip(together, samples, strict=True):
        (alone,) = model.detections(collate_detections([each]), NORMALIZE)
        assert all(torch.equal(a, b) for a, b in zip(found, alone, strict=True))
        height, width = each.pixels.shape[1:]
        assert found.masks.shape == (len(found.boxes), height, width)
        assert (found.boxes >= 0).all()
        assert (found.boxes <= torch.tensor([width, height] * 2) + 1e-4).all()
        assert found.scores.equal(found.scores.sort(descending=True).values)


def test_evaluate__of_what_is_detected_itself_is_perfect(task):
    model = task()
    batch = collate_detections([sample()])
    (found,) = model.detections(batch, NORMALIZE)
    objects = found.masks.flatten(1).any(dim=1) & (found.scores >= found.scores[4])
    truth = batch._replace(
        boxes=[found.boxes[objects]],
        labels=[found.labels[objects]],
        masks=[found.masks[objects].to(torch.uint8)],
        crowd=[torch.zeros(int(objects.sum()), dtype=torch.bool)],
        areas=[found.masks[objects].sum(dim=(1, 2)).float()],
    )
    metrics = model.new_metrics()
    model.evaluate(metrics, truth, NORMALIZE)
    assert metrics["map"].compute().item() == pytest.approx(1.0)


def test_transform__keeps_crowds_only_where_nothing_is_trained(task):
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "png")
    boxes = b'{"boxes": [[1, 2, 9, 9], [3, 3, 30, 20]], "labels": [1, 0], "crowd": [false, true]}'
    members = {"image": Member(file.getvalue(), "png"), "boxes": Member(boxes, "boxes.json")}
    encoded = EncodedSample("x", None, members)
    model, pixels = task(with_masks=False), PixelFormat(3, "uint8")
    held_out = model.make_transform(model.make_evaluation(1.0), pixels, seed=0)(encoded, 0)
    assert isinstance(model.make_evaluation(1.0), WholeImage)
    assert held_out.labels.tolist() == [1, 0] and held_out.crowd.tolist() == [False, True]

    class Unchanged(WholeImage.__base__):
        def __call__(self, sample, generator):
            return sample

    trained_on = model.make_transform(Unchanged(), pixels, seed=0)(encoded, 0)
    assert trained_on.labels.tolist() == [1]
    with pytest.raises(UserError, match="label 1, and there are 1 classes"):
        other = task(classes=["a"], with_masks=False)
        other.make_transform(Unchanged(), pixels, seed=0)(encoded, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_export__is_what_a_detector_loads(task, kind):
    model = task(kind)
    export = model.export()
    assert export.num_classes == 2 and export.settings["label_names"] == ["a", "b"]
    other = Detector(task(kind).encoder, num_classes=2, **export.settings["head"]).eval()
    own = detector_state(other.encoder, other.rcnn)
    assert own.keys() == export.state.keys()
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(export.state[name])
        (ours,) = model.detections(collate_detections([sample()]), NORMALIZE)
        image = NORMALIZE(sample().pixels)
        theirs = DetectInference(**export.settings["inference"]).detections(other, image)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_describe__names_the_network(task):
    named = {
        (kind, with_masks): task(kind, with_masks=with_masks).describe().split(", ")[1]
        for kind in KINDS
        for with_masks in (True, False)
    }
    assert named == {
        ("mask_rcnn", True): "Mask R-CNN",
        ("mask_rcnn", False): "Faster R-CNN",
        ("cascade", True): "Cascade Mask R-CNN",
        ("cascade", False): "Cascade R-CNN",
    }


def test_detection__refuses_what_cannot_be(task, tiny_encoder):
    with pytest.raises(UserError, match="detection needs a class"):
        task(classes=[])
    with pytest.raises(UserError, match="with_masks=null is told by the data"):
        task(with_masks=None)
    with pytest.raises(UserError, match=r"anchor_ratios must be a list of numbers .*not empty"):
        task(anchor_ratios=[])
    with pytest.raises(UserError, match="box_loss must be l1 or smooth_l1 or giou, got 'l2'"):
        task(box_loss="l2")
    with pytest.raises(UserError, match="a pyramid joins maps of two stages or more"):
        encoder = tiny_encoder(depths=(1,), num_heads=(1,))
        Detection(encoder, ["a"], **HEAD, **MASK_RCNN, inference=INFERENCE)
    with pytest.raises(UserError, match="detection takes images of any size, got 96"):
        task().resized(96)

"""Soft Teacher: how the teacher follows, what it marks, and what the student learns from it."""

import math
from functools import partial

import pytest
import torch

from ssl_swin.data.detect_samples import DetectSample, collate_detections
from ssl_swin.data.semi_samples import SemiBatch, UnlabelledSample, collate_unlabelled
from ssl_swin.data.semi_views import StrongView, WeakView
from ssl_swin.errors import UserError
from ssl_swin.objectives.base import Progress
from ssl_swin.pixels import normalize
from ssl_swin.tasks.detecting import DetectInference
from ssl_swin.tasks.detection import Detection
from ssl_swin.tasks.rcnn.objects import Found
from ssl_swin.tasks.soft_teacher import SoftTeacher

NORMALIZE = partial(normalize, mean=[0.5] * 3, std=[0.25] * 3)
WEAK = WeakView(short_px=(32, 64), long_px=96, flip_probability=0.5)
STRONG = StrongView(
    weak=WEAK,
    colours=False,
    factor=(0.1, 1.9),
    posterize_bits=4,
    translate_ratio=0.1,
    rotate_degrees=30,
    shear_degrees=30,
    num_erased=(1, 5),
    erase_ratio=0.2,
)
SETTINGS = {
    "num_unlabelled": 2,
    "unlabelled_root": None,
    "weight": 4.0,
    "warmup_steps": 0,
    "momentum": 0.999,
    "least_score": 0.5,
    "sure_score": 0.9,
    "jitter_copies": 3,
    "jitter_ratio": 0.06,
    "most_deviation": 0.02,
    "evaluated": "student",
    "weak": WEAK,
    "strong": STRONG,
}


@pytest.fixture
def detection(tiny_encoder):
    def build(cascade=False, **changes):
        torch.manual_seed(0)
        task = Detection(
            tiny_encoder(img_size_px=128),
            ["a", "b"],
            cascade=cascade,
            with_masks=True,
            channels=8,
            head_channels=16,
            anchor_scale=4,
            anchor_ratios=[0.5, 1.0, 2.0],
            anchors_inside=False,
            num_proposals=40,
            proposal_loss="l1",
            box_loss="giou" if cascade else "l1",
            inference=DetectInference(short_px=None, least_score=0.0, most_objects=5),
        )
        task.semi = SoftTeacher(task, **SETTINGS | changes)
        return task.train()

    return build


def labelled(size=(64, 96)):
    generator = torch.Generator().manual_seed(size[0])
    pixels = torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
    masks = torch.zeros((1, *size), dtype=torch.uint8)
    masks[:, 8:30, 8:40] = 1
    return DetectSample(
        pixels,
        torch.tensor([[8.0, 8, 40, 30]]),
        torch.tensor([1]),
        masks,
        torch.zeros(1, dtype=torch.bool),
        torch.tensor([704.0]),
        "x",
    )


def moved_by(x, y):
    return torch.tensor([[1.0, 0, x], [0, 1, y], [0, 0, 1]])


def batch(shift=(10.0, 4.0), strong_size=(64, 64)):
    generator = torch.Generator().manual_seed(7)
    samples = []
    for name in "uv":
        weak, strong = (
            torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
            for size in ((48, 64), strong_size)
        )
        back = moved_by(-shift[0], -shift[1])
        samples.append(UnlabelledSample(weak, strong, moved_by(*shift), back, name))
    return SemiBatch(collate_detections([labelled()]), collate_unlabelled(samples))


def at(step):
    return Progress(step=step, num_steps=100, steps_per_epoch=10)


def test_teacher__is_a_copy_first_and_then_follows_after_each_step(detection):
    task = detection(cascade=True, momentum=0.7)
    student = [*task.encoder.parameters(), *task.rcnn.parameters()]
    semi = task.semi
    teacher = [*semi.teacher.encoder.parameters(), *semi.teacher.rcnn.parameters()]
    assert len(teacher) == len(student) and not any(p.requires_grad for p in teacher)
    momenta = []
    for step in range(5):
        with torch.no_grad():
            for parameter in student:
                parameter.add_(1.0)
            for buffer in task.rcnn.buffers():
                buffer.add_(1)
        before = [each.clone() for each in teacher]
        task.after_step(step)
        rests = [
            ((now - theirs) / (then - theirs)).mean().item()
            for now, then, theirs in zip(teacher, before, student, strict=True)
        ]
        assert max(rests) - min(rests) < 1e-3
        momenta.append(rests[0])
        buffers = zip(semi.teacher.rcnn.buffers(), task.rcnn.buffers(), strict=True)
        assert all(own.equal(other) for own, other in buffers)
        if step == 0:
            assert all(own.equal(other) for own, other in zip(teacher, student, strict=True))
    assert momenta == pytest.approx([0, 1 / 2, 2 / 3, 0.7, 0.7], abs=1e-3)


def test_teacher__is_in_the_state_and_never_in_training_mode(detection):
    task, other = detection(), detection()
    with torch.no_grad():
        for parameter in task.semi.teacher.parameters():
            parameter.add_(torch.randn_like(parameter))
    other.load_state_dict(task.state_dict())
    pairs = zip(task.semi.teacher.parameters(), other.semi.teacher.parameters(), strict=True)
    assert all(a.equal(b) for a, b in pairs)
    assert task.training and not any(m.training for m in task.semi.teacher.modules())
    trained = {name for name, p in task.named_parameters() if p.requires_grad}
    assert not any(name.startswith("semi") for name in trained)


@pytest.mark.parametrize("cascade", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_forward__adds_weighted_losses_of_images_without_boxes(detection, cascade):
    task = detection(cascade=cascade)
    task.before_step(at(0))
    torch.manual_seed(1)
    output = task(batch(), NORMALIZE)
    losses = {name: value for name, value in output.logs.items() if "loss" in name}
    assert output.loss.item() == pytest.approx(sum(v.item() for v in losses.values()), rel=1e-5)
    stages = ("_1", "_2", "_3") if cascade else ("",)
    unlabelled = {name for name in losses if name.startswith("unsup_")}
    assert unlabelled == {
        "unsup_loss_rpn_class",
        "unsup_loss_rpn_box",
        *(f"unsup_loss_{part}{stage}" for part in ("class", "box") for stage in stages),
    }
    assert "pseudo_boxes" in output.logs and "pseudo_boxes_firm" in output.logs
    output.loss.backward()
    without = {n for n, p in task.named_parameters() if p.requires_grad and p.grad is None}
    assert without == set()
    assert all(p.grad is None for p in task.semi.teacher.parameters())
    torch.manual_seed(1)
    heavier = detection(cascade=cascade, weight=8.0)
    heavier.before_step(at(0))
    torch.manual_seed(1)
    logs = heavier(batch(), NORMALIZE).logs
    assert all(
        logs[name].item() == pytest.approx(losses[name].item() * (1 + (name in unlabelled)))
        for name in losses
    )


def test_forward__learns_from_labels_alone_at_first(detection):
    task = detection(warmup_steps=3)
    for step, has_more in ((0, False), (2, False), (3, True)):
        task.before_step(at(step))
        logs = task(batch(), NORMALIZE).logs
        assert any(name.startswith("unsup") for name in logs) == has_more
    alone = task(batch().labelled, NORMALIZE).logs
    assert not any(name.startswith("unsup") for name in alone)


def test_forward__is_the_same_by_the_same_draws(detection):
    task = detection()
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(task(batch(), NORMALIZE).loss.item())
    assert losses[0] == losses[1] != losses[2]


def test_forward__is_finite_in_bf16_and_where_nothing_is_marked(detection):
    task = detection(least_score=0.999)
    with torch.autocast("cpu", torch.bfloat16):
        output = task(batch(), NORMALIZE)
    assert output.logs["pseudo_boxes"] == output.logs["pseudo_boxes_firm"] == 0
    assert output.logs["unsup_loss_box"] == output.logs["unsup_loss_rpn_box"] == 0
    assert output.logs["unsup_loss_class"] > 0  # of the background
    output.loss.backward()
    assert all(p.grad.isfinite().all() for p in task.parameters() if p.grad is not None)


FOUND = Found(
    torch.tensor([[4.0, 4, 24, 20], [30, 8, 60, 40], [0, 30, 8, 46], [62, 0, 64, 2]]),
    torch.tensor([0.95, 0.8, 0.92, 0.99]),
    torch.tensor([1, 0, 0, 1]),
    None,
)
DEVIATIONS = torch.tensor([0.01, 0.015, 0.5, 0.001])


def taught(task, monkeypatch):
    """Makes the teacher find what is given, and keeps what the student is to learn from."""
    rcnn = task.semi.teacher.rcnn
    monkeypatch.setattr(rcnn, "detect", lambda levels, sizes, **_: [FOUND] * len(sizes))
    monkeypatch.setattr(
        task.semi, "deviations", lambda levels, sizes, boxes, labels: [DEVIATIONS] * 2
    )
    seen = {}
    proposals, losses = task.rcnn.proposals.forward, task.rcnn.heads.losses

    def recorded_proposals(levels, sizes, truth=None):
        if sizes == [(64, 64), (64, 64)]:
            seen["proposals"] = truth
        return proposals(levels, sizes, truth)

    def recorded_losses(levels, sizes, given, truth, **settings):
        if "parts" in settings:
            seen[settings["parts"][0]] = truth
            seen["background"] = settings["background"] or seen.get("background")
        return losses(levels, sizes, given, truth, **settings)

    monkeypatch.setattr(task.rcnn.proposals, "forward", recorded_proposals)
    monkeypatch.setattr(task.rcnn.heads, "losses", recorded_losses)
    return seen


def test_student__learns_classes_of_sure_objects_and_boxes_of_firm_ones(detection, monkeypatch):
    task = detection()
    seen = taught(task, monkeypatch)
    logs = task(batch(), NORMALIZE).logs
    # Moved by (10, 4); the last one is out of the student's sight.
    moved = FOUND.boxes + torch.tensor([10.0, 4, 10, 4])
    moved[1, 2] = 64
    for image in range(2):
        assert seen["proposals"][image].equal(moved[[0, 2]])
        assert seen["class"][image].boxes.equal(moved[[0, 2]])
        assert seen["class"][image].labels.tolist() == [1, 0]
        assert seen["box"][image].boxes.equal(moved[[0, 1]])
        assert seen["box"][image].labels.tolist() == [1, 0]
    assert logs["pseudo_boxes"] == 2 and logs["pseudo_boxes_firm"] == 2


def test_background__is_what_the_teacher_thinks_of_the_same_place(detection, monkeypatch):
    task = detection()
    seen = taught(task, monkeypatch)
    given = batch()
    task(given, NORMALIZE)
    boxes = [torch.tensor([[20.0, 10, 40, 30]]), torch.tensor([[12.0, 6, 30, 50], [0, 0, 9, 9]])]
    weights = seen["background"](boxes)
    with torch.no_grad():
        images = NORMALIZE(given.unlabelled.weak)
        images[:, :, 48:] = 0
        teacher = task.semi.teacher
        levels = teacher.rcnn.levels(teacher.encoder.maps_any_size(images))
        there = [each - torch.tensor([10.0, 4, 10, 4]) for each in boxes]
        there[1][1] = torch.tensor([0.0, 0, 0, 5])
        shares, _ = teacher.rcnn.heads.judge(levels, [(48, 64)] * 2, there)
    torch.testing.assert_close(weights, shares[:, -1])


def test_class_loss__counts_background_by_weight(detection):
    heads = detection().rcnn.heads
    scores = torch.tensor([[2.0, 0, 1], [0, 1, 3], [1, 1, 1]])
    labels = torch.tensor([0, 2, 2])
    samples = [type("S", (), {"boxes": torch.zeros(3, 4)})()]
    loss = heads._class_loss(scores, labels, samples, lambda boxes: torch.tensor([0.3, 0.5, 0.0]))
    logs = scores.log_softmax(1)
    assert loss.item() == pytest.approx(-(logs[0, 0] + 0.5 * logs[1, 2]).item() / 1.5)
    none = heads._class_loss(scores[1:], labels[1:], samples, lambda boxes: torch.zeros(2))
    assert none == 0


def test_deviations__are_of_disturbed_boxes_over_their_size(detection, monkeypatch):
    task = detection(jitter_copies=4, jitter_ratio=0.1)
    semi = task.semi
    boxes = [torch.tensor([[10.0, 10, 30, 50], [0, 0, 0.5, 8]]), torch.zeros(0, 4)]
    labels = [torch.tensor([1, 0]), torch.zeros(0, dtype=torch.int64)]
    given = []

    def judge(levels, sizes, disturbed):
        given.append(disturbed)
        told = torch.cat([*disturbed])
        return None, torch.stack([told * 0 + 7, told], dim=1)  # class 0: always the same box

    monkeypatch.setattr(semi.teacher.rcnn.heads, "judge", judge)
    torch.manual_seed(5)
    first, second = semi.deviations([], [(64, 64)] * 2, boxes, labels)
    torch.manual_seed(5)
    noise = torch.randn(4, 2, 4)
    copies = boxes[0][0] + noise[:, 0] * 0.1 * torch.tensor([20.0, 40, 20, 40])
    torch.testing.assert_close(given[0][0][::2], copies)
    mean = copies.mean(0)
    sides = torch.stack([mean[2] - mean[0], mean[3] - mean[1]]).repeat(2)
    expected = (copies.std(0) / sides).mean()
    assert first[0].item() == pytest.approx(expected.item(), rel=1e-5)
    assert first[1] == 0 and second.shape == (0,) and len(given[0][1]) == 0
    thin = given[0][0][1::2] - boxes[0][1]
    torch.testing.assert_close(thin, noise[:, 1] * 0.1 * torch.tensor([1.0, 8, 1, 8]))


def test_evaluated__is_the_student_or_the_teacher(detection):
    pixels = torch.randint(0, 256, (3, 50, 60), dtype=torch.uint8)
    found, exported = {}, {}
    for which in ("student", "teacher"):
        task = detection(evaluated=which).eval()
        with torch.no_grad():
            for parameter in task.semi.teacher.rcnn.heads.box_heads.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        found[which] = task.inference.detections(task.detect, NORMALIZE(pixels))
        exported[which] = task.export().state
        name = "heads.box_heads.0.classes.weight"
        owner = task if which == "student" else task.semi.teacher
        assert exported[which][f"rcnn.{name}"].equal(owner.rcnn.state_dict()[name])
    assert not found["student"].scores.equal(found["teacher"].scores)
    assert exported["student"].keys() == exported["teacher"].keys()


def test_soft_teacher__refuses_what_cannot_be(detection):
    for name, value in (("momentum", 1.0), ("jitter_copies", 1), ("sure_score", math.nan)):
        with pytest.raises(UserError, match=f"{name} must be"):
            detection(**{name: value})
    with pytest.raises(UserError, match="evaluated must be student or teacher, got 'both'"):
        detection(evaluated="both")

"""Proposals and heads against torchvision's, where settings coincide; the Cascade against loops."""

import pytest
import torch
from torch.nn import functional as F
from torchvision.models.detection import roi_heads as theirs_module
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads as TheirHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import box_iou, clip_boxes_to_image, nms

from ssl_swin.tasks.rcnn import roi_heads as ours_module
from ssl_swin.tasks.rcnn.box_heads import CASCADE_STAGES
from ssl_swin.tasks.rcnn.losses import mask_targets
from ssl_swin.tasks.rcnn.matching import draw_samples
from ssl_swin.tasks.rcnn.objects import Objects
from ssl_swin.tasks.rcnn.pooling import pool_boxes
from ssl_swin.tasks.rcnn.proposals import Anchors, ProposalNetwork
from ssl_swin.tasks.rcnn.roi_heads import RoIHeads

CHANNELS, CLASSES = 8, 3
STRIDES = (4, 8, 16)
SIZES = [(96, 128), (80, 64)]


def objects(image):
    given = ([[10, 12, 50, 44], [60, 20, 110, 90]], [[5, 5, 60, 70], [20, 8, 44, 30]])[image]
    boxes = torch.tensor(given, dtype=torch.float32)
    masks = torch.zeros(2, *SIZES[image], dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, given, strict=True):
        mask[top:bottom, left : (left + right) // 2] = 1
    return Objects(boxes, torch.tensor([image, 2]), masks)


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(1)
    sizes = [(96 // stride, 128 // stride) for stride in STRIDES]
    return [torch.randn(2, CHANNELS, *size, generator=generator) for size in sizes]


def near(truth, number=40):
    """Boxes around objects, some better than others, and some anywhere."""
    generator = torch.Generator().manual_seed(2)
    chosen = truth[torch.arange(number) % len(truth)]
    noise = torch.randn(number, 4, generator=generator) * torch.linspace(0.5, 12, number)[:, None]
    moved = chosen + noise
    low, high = (torch.stack([moved[:, n::2].amin(1) for n in (0, 1)], dim=1) for _ in range(2))
    high = torch.stack([moved[:, n::2].amax(1) for n in (0, 1)], dim=1)
    return torch.cat([low, high + 1], dim=1).clamp(0, 64)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_proposals__are_torchvisions(maps, mode):
    torch.manual_seed(0)
    anchors = Anchors(STRIDES, scale=4, ratios=(1.0,))  # whole sides, which rounding leaves alone
    ours = ProposalNetwork(CHANNELS, anchors, num_proposals=60, loss="smooth_l1", inside_only=False)
    ours.proposal_matcher.least_best = 0.0
    theirs = RegionProposalNetwork(
        AnchorGenerator(tuple((4 * stride,) for stride in STRIDES), ((1.0,),) * 3),
        ours.head,
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 2000, "testing": 1000},
        post_nms_top_n={"training": 60, "testing": 1000},
        nms_thresh=0.7,
    )
    with torch.no_grad():
        for parameter in ours.head.parameters():
            parameter.mul_(10)
    truth = [objects(image).boxes for image in range(2)]
    for network in (ours, theirs):
        network.train(mode == "train")
    torch.manual_seed(3)
    found, losses = ours(maps, SIZES, truth if mode == "train" else None)
    torch.manual_seed(3)
    images = ImageList(torch.zeros(2, 3, 96, 128), SIZES)
    features = {str(level): each for level, each in enumerate(maps)}
    expected, parts = theirs(images, features, [{"boxes": each} for each in truth])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert [v.item() for v in losses.values()] == pytest.approx([v.item() for v in parts.values()])
    assert len(losses) == (2 if mode == "train" else 0)


def our_heads(stages, **changes):
    settings = {
        "stages": stages,
        "strides": STRIDES,
        "num_classes": CLASSES,
        "head_channels": 16,
        "with_masks": True,
        "loss": "smooth_l1",
    }
    torch.manual_seed(0)
    heads = RoIHeads(CHANNELS, **(settings | changes))
    with torch.no_grad():
        for head in heads.box_heads:
            head.classes.weight.mul_(100)
            head.codes.weight.mul_(300)
    return heads


class Pooler:
    """Ours, called as torchvision's."""

    def __init__(self, side):
        self.side = side

    def __call__(self, features, boxes, sizes):
        return pool_boxes([*features.values()], boxes, strides=STRIDES, side=self.side)


def their_heads(ours):
    """Torchvision's, with the same weights; the background is its first class."""
    box_head, mask_head = ours.box_heads[0], ours.mask_heads[0]
    predictor = FastRCNNPredictor(16, CLASSES + 1)
    masks = MaskRCNNPredictor(CHANNELS, CHANNELS, CLASSES + 1)
    with torch.no_grad():
        for theirs, own in ((predictor.cls_score, box_head.classes),):
            theirs.weight.copy_(own.weight.roll(1, 0))
            theirs.bias.copy_(own.bias.roll(1, 0))
        predictor.bbox_pred.weight[4:].copy_(box_head.codes.weight)
        predictor.bbox_pred.bias[4:].copy_(box_head.codes.bias)
        masks.conv5_mask.load_state_dict(mask_head[1].conv5_mask.state_dict())
        masks.mask_fcn_logits.weight[1:].copy_(mask_head[1].mask_fcn_logits.weight)
        masks.mask_fcn_logits.bias[1:].copy_(mask_head[1].mask_fcn_logits.bias)
    return TheirHeads(
        Pooler(7),
        box_head.layers,
        predictor,
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=512,
        positive_fraction=0.25,
        bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
        score_thresh=0.05,
        nms_thresh=0.5,
        detections_per_img=15,
        mask_roi_pool=Pooler(14),
        mask_head=mask_head[0],
        mask_predictor=masks,
    )


def test_heads__of_one_stage_have_torchvisions_losses(maps, monkeypatch):
    ours = our_heads(CASCADE_STAGES[:1])
    theirs = their_heads(ours).train()
    monkeypatch.setattr(
        theirs_module,
        "project_masks_on_boxes",
        lambda masks, boxes, indices, side: mask_targets(masks, indices, boxes, side),
    )
    truth = [objects(image) for image in range(2)]
    proposals = [near(each.boxes) for each in truth]
    losses = ours.losses(maps, SIZES, proposals, truth)
    targets = [
        {"boxes": each.boxes, "labels": each.labels + 1, "masks": each.masks} for each in truth
    ]
    features = {str(level): each for level, each in enumerate(maps)}
    _, expected = theirs(features, [*proposals], SIZES, targets)
    pairs = {"class": "loss_classifier", "box": "loss_box_reg", "mask": "loss_mask"}
    for name, theirs_name in pairs.items():
        value = expected[theirs_name].item()
        assert losses[f"loss_{name}"].item() == pytest.approx(value, rel=1e-5) and value > 0


@torch.no_grad()
def test_heads__of_one_stage_detect_what_torchvisions_do(maps):
    ours = our_heads(CASCADE_STAGES[:1]).eval()
    theirs = their_heads(ours).eval()
    proposals = [near(objects(image).boxes) for image in range(2)]
    found = ours.detect(maps, SIZES, proposals, least_score=0.05, nms_iou=0.5, most=15)
    features = {str(level): each for level, each in enumerate(maps)}
    expected, _ = theirs(features, proposals, SIZES)
    for a, b in zip(found, expected, strict=True):
        assert len(a.boxes) == 15
        torch.testing.assert_close(a.boxes, b["boxes"])
        torch.testing.assert_close(a.scores, b["scores"])
        torch.testing.assert_close(a.masks, b["masks"][:, 0])
        assert a.labels.equal(b["labels"] - 1)


def moved(codes, box, deviations):
    dx, dy, dw, dh = (code * std for code, std in zip(codes.tolist(), deviations, strict=True))
    left, top, right, bottom = box.tolist()
    width, height = right - left, bottom - top
    x, y = left + width / 2 + dx * width, top + height / 2 + dy * height
    width, height = width * torch.tensor(dw).exp().item(), height * torch.tensor(dh).exp().item()
    return torch.tensor([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


@torch.no_grad()
def test_cascade__detects_as_one_box_at_a_time_by_loops(maps):
    heads = our_heads(CASCADE_STAGES).eval()
    proposals = near(objects(0).boxes, 12)
    (found,) = heads.detect(
        [each[:1] for each in maps], SIZES[:1], [proposals], least_score=0.2, nms_iou=0.5, most=9
    )
    candidates = []  # score, label, box
    for proposal in proposals:
        box, logits = proposal[None], torch.zeros(CLASSES + 1)
        for number, stage in enumerate(CASCADE_STAGES):
            scores, codes = heads.look(number, [each[:1] for each in maps], [box])
            logits = logits + scores[0] / 3
            if number < 2:
                label = int(scores[0, :-1].argmax())
                box = moved(codes[0, label], box[0], stage.deviations)[None]
                box = clip_boxes_to_image(box, SIZES[0])
        for label, score in enumerate(logits.softmax(0)[:-1]):
            each = moved(codes[0, label], box[0], CASCADE_STAGES[2].deviations)
            if score > 0.2:
                candidates.append((score.item(), label, clip_boxes_to_image(each, SIZES[0])))
    kept = []
    for label in range(CLASSES):
        own = [each for each in candidates if each[1] == label]
        boxes = torch.stack([each[2] for each in own])
        kept += [own[i] for i in nms(boxes, torch.tensor([each[0] for each in own]), 0.5)]
    kept = sorted(kept, key=lambda each: -each[0])[:9]
    assert found.labels.tolist() == [each[1] for each in kept] and len(kept) > 2
    torch.testing.assert_close(found.scores, torch.tensor([each[0] for each in kept]))
    torch.testing.assert_close(
        found.boxes, torch.stack([each[2] for each in kept]), rtol=0, atol=2e-3
    )
    for place, (_, label, box) in enumerate(kept):
        pooled = pool_boxes([each[:1] for each in maps], [box[None]], strides=STRIDES, side=14)
        stages = [head(pooled)[0, label].sigmoid() for head in heads.mask_heads]
        expected = sum(stages) / 3
        torch.testing.assert_close(found.masks[place], expected, rtol=0, atol=1e-3)


def test_cascade__hands_refined_boxes_on_without_the_objects_own(maps, monkeypatch):
    heads = our_heads(CASCADE_STAGES, loss="giou").eval()
    stages = []

    def recorded(proposals, truth, **settings):
        samples = draw_samples(proposals, truth, **settings)
        stages.append((proposals, samples, settings["matcher"]))
        return samples

    monkeypatch.setattr(ours_module, "draw_samples", recorded)
    truth = [objects(0), Objects(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0, 96, 128))]
    given = [near(truth[0].boxes, 20)] * 2
    two = [each[:1].expand(2, -1, -1, -1) for each in maps]
    losses = heads.losses(two, [SIZES[0]] * 2, given, truth)
    assert [matcher.high_threshold for _, _, matcher in stages[::2]] == [0.5, 0.6, 0.7]
    assert not any(matcher.allow_low_quality_matches for _, _, matcher in stages)
    for number in range(2):
        for image in range(2):
            _, samples, _ = stages[2 * number + image]
            scores, codes = heads.look(number, [each[:1] for each in maps], [samples.boxes])
            expected = []
            for row, box in enumerate(samples.boxes):
                if samples.are_objects[row]:
                    continue
                place = int(samples.objects[row])
                label = scores[row, :-1].argmax() if place < 0 else truth[0].labels[place]
                after = moved(codes[row, label], box, CASCADE_STAGES[number].deviations)
                expected.append(clip_boxes_to_image(after, SIZES[0]))
            handed_on = stages[2 * number + 2 + image][0]
            torch.testing.assert_close(handed_on, torch.stack(expected), rtol=0, atol=2e-3)
            assert not handed_on.requires_grad
    _, samples, _ = stages[4]
    labels = torch.where(samples.positive, truth[0].labels[samples.objects.clamp(min=0)], CLASSES)
    scores, codes = heads.look(2, [each[:1] for each in maps], [samples.boxes])
    more, _ = heads.look(2, [each[:1] for each in maps], [stages[5][1].boxes])
    labels = torch.cat([labels, torch.full((len(more),), CLASSES)])
    expected = F.cross_entropy(torch.cat([scores, more]), labels) / 4  # the weight of the stage
    assert losses["loss_class_3"].item() == pytest.approx(expected.item(), rel=1e-5)
    rows = torch.where(samples.positive)[0]
    boxes = torch.stack(
        [
            moved(codes[row, labels[row]], samples.boxes[row], CASCADE_STAGES[2].deviations)
            for row in rows
        ]
    )
    own = truth[0].boxes[samples.objects[rows]]
    assert (box_iou(samples.boxes[rows], own).diagonal() >= 0.7).all()
    giou = sum(_giou(a.tolist(), b.tolist()) for a, b in zip(boxes, own, strict=True))
    expected = 10 * (len(rows) - giou) / len(labels) / 4
    assert losses["loss_box_3"].item() == pytest.approx(expected, rel=1e-3)


def _giou(a, b):
    def area(left, top, right, bottom):
        return max(right - left, 0) * max(bottom - top, 0)

    inside = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    around = area(min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
    union = area(*a) + area(*b) - inside
    return inside / union - (around - union) / around

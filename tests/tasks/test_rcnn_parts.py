"""Parts of R-CNN by hand: anchors, matching, pooling, losses, masks, first weights."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder

from ssl_swin.optim.param_groups import dense_groups
from ssl_swin.tasks.detections import paste_masks
from ssl_swin.tasks.rcnn.box_heads import CASCADE_STAGES, BoxHead
from ssl_swin.tasks.rcnn.losses import box_loss, mask_targets
from ssl_swin.tasks.rcnn.mask_heads import MaskHead
from ssl_swin.tasks.rcnn.matching import BestMatcher, draw_samples
from ssl_swin.tasks.rcnn.network import RCNN, map_strides
from ssl_swin.tasks.rcnn.pooling import box_levels, pool_boxes
from ssl_swin.tasks.rcnn.proposals import Anchors, ProposalNetwork

CODER = BoxCoder((10.0, 10.0, 5.0, 5.0))


def boxes(*given):
    return torch.tensor(given, dtype=torch.float32).view(-1, 4)


def test_anchors__lie_around_the_corners_of_places_and_are_not_rounded():
    anchors = Anchors((4, 8), scale=8, ratios=(0.5, 1.0, 2.0))([torch.zeros(2, 1, 2, 3)] * 2)
    assert anchors.shape == (2 * 2 * 3 * 3, 4)
    long, short = 16 * math.sqrt(2), 16 / math.sqrt(2)
    expected = boxes([-long, -short, long, short], [-16, -16, 16, 16], [-short, -long, short, long])
    torch.testing.assert_close(anchors[:3], expected)
    torch.testing.assert_close(anchors[3:6], expected + boxes([4, 0, 4, 0]))  # the next column
    torch.testing.assert_close(anchors[9:12], expected + boxes([0, 4, 0, 4]))  # the next row
    torch.testing.assert_close(anchors[18:21], 2 * expected)
    torch.testing.assert_close(anchors[-1:], 2 * expected[2:] + boxes([16, 8, 16, 8]))


def test_matcher__gives_an_object_its_best_box_if_that_is_good_enough():
    ious = torch.tensor([[0.8, 0.4, 0.0, 0.31, 0.2], [0.1, 0.45, 0.0, 0.31, 0.2]])
    assert BestMatcher(0.7, 0.3, 0.3)(ious.clone()).tolist() == [0, 1, -1, -2, -1]
    assert BestMatcher(0.7, 0.3, 0.5)(ious.clone()).tolist() == [0, -2, -1, -2, -1]
    assert BestMatcher(0.7, 0.3, None)(ious.clone()).tolist() == [0, -2, -1, -2, -1]
    tied = torch.tensor([[0.5, 0.4], [0.5, 0.2]])  # both best in the first box: the later has it
    assert BestMatcher(0.7, 0.3, 0.3)(tied).tolist() == [1, -2]


def test_samples__are_a_quarter_objects_and_the_objects_themselves_are_candidates():
    truth = boxes([0, 0, 10, 10], [50, 50, 70, 70])
    near = truth[:1] + torch.rand(30, 1) * 0.1
    far = boxes([100, 100, 120, 120]) + torch.rand(100, 1)
    torch.manual_seed(0)
    drawn = draw_samples(
        torch.cat([near, far]),
        truth,
        matcher=BestMatcher(0.5, 0.5, None),
        sampler=BalancedPositiveNegativeSampler(40, 0.25),
    )
    assert len(drawn.boxes) == 40 and int(drawn.positive.sum()) == 10
    assert drawn.boxes[drawn.are_objects].equal(truth[drawn.objects[drawn.are_objects]])
    assert (drawn.boxes[~drawn.positive] >= 100).all()
    all_of_them = draw_samples(
        near[:3],
        truth,
        matcher=BestMatcher(0.5, 0.5, None),
        sampler=BalancedPositiveNegativeSampler(40, 0.25),
    )
    assert all_of_them.objects.tolist() == [0, 1, 0, 0, 0]
    assert all_of_them.are_objects.tolist() == [True, True, False, False, False]


def test_samples__of_an_image_without_objects_are_background():
    drawn = draw_samples(
        torch.rand(6, 4),
        boxes(),
        matcher=BestMatcher(0.5, 0.5, 0.5),
        sampler=BalancedPositiveNegativeSampler(4, 0.25),
    )
    assert drawn.objects.tolist() == [-1] * 4 and not drawn.are_objects.any()


def test_pooling__finds_what_lies_at_the_place_in_px():
    """Maps hold the place of their cells in px; so then do the cells of a box."""
    maps = []
    for stride in (4, 8):
        y, x = torch.meshgrid(*[(torch.arange(128 / stride) + 0.5) * stride] * 2, indexing="ij")
        maps.append(torch.stack([x, y])[None].expand(2, -1, -1, -1))
    given = [boxes([13, 21, 27, 49]), boxes([5, 3, 125, 119], [40, 40, 44, 44])]
    pooled = pool_boxes(maps, given, strides=(4, 8), side=7)
    assert pooled.shape == (3, 2, 7, 7)
    for features, (left, top, right, bottom) in zip(pooled, torch.cat(given), strict=True):
        centres = (torch.arange(7) + 0.5) / 7
        x = (left + (right - left) * centres).expand(7, 7)
        y = (top + (bottom - top) * centres)[:, None].expand(7, 7)
        torch.testing.assert_close(features, torch.stack([x, y]), rtol=0, atol=1e-3)


def test_pooling__takes_the_map_that_suits_a_box():
    sides = torch.tensor([0.0, 10, 111, 113, 223, 225, 447, 449, 5000])
    squares = torch.stack([sides * 0, sides * 0, sides, sides], dim=1)
    levels = box_levels(squares, (4, 8, 16, 32)).tolist()
    assert levels == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    marked = [torch.full((1, 1, 64, 64), float(level)) for level in range(4)]
    pooled = pool_boxes(marked, [squares[1:]], strides=(4, 8, 16, 32), side=1)
    inside = pooled[:4, 0, 0, 0]
    assert inside.tolist() == [0, 0, 1, 1]
    assert box_levels(squares / 2, (2, 4, 8, 16)).tolist() == levels


def test_pooling__of_no_box_keeps_the_graph():
    features = torch.randn(1, 3, 8, 8, requires_grad=True)
    pooled = pool_boxes([features], [boxes()], strides=(4,), side=7)
    pooled.sum().backward()
    assert pooled.shape == (0, 3, 7, 7) and features.grad.eq(0).all()


def test_box_loss__by_hand():
    given, truth = boxes([0, 0, 10, 10]), boxes([1, 0, 11, 20])
    codes = torch.zeros(1, 4)
    target = torch.tensor([[1.0, 5.0, 0.0, 5 * math.log(2)]])  # shifts x 10, logarithms x 5
    values = {
        kind: box_loss(codes, given, truth, coder=CODER, kind=kind).item()
        for kind in ("l1", "smooth_l1", "giou")
    }
    assert values["l1"] == pytest.approx(target.sum().item())
    assert values["smooth_l1"] == pytest.approx(target.sum().item() - 3 / 18)
    iou = 90 / (100 + 200 - 90)
    giou = iou - (11 * 20 - 210) / (11 * 20)
    assert values["giou"] == pytest.approx(10 * (1 - giou), rel=1e-5)
    perfect = box_loss(target, given, truth, coder=CODER, kind="giou")
    assert perfect.item() == pytest.approx(0, abs=1e-4)
    nothing = torch.zeros(0, 4, requires_grad=True)
    for kind in values:
        loss = box_loss(nothing, boxes(), boxes(), coder=CODER, kind=kind)
        loss.backward()
        assert loss == 0


def test_mask_targets__are_the_objects_inside_boxes():
    masks = torch.zeros(2, 40, 40, dtype=torch.uint8)
    masks[1, 10:20, 10:30] = 1
    targets = mask_targets(masks, torch.tensor([1, 0, 1]), boxes(*[[0, 0, 40, 40]] * 3), 8)
    expected = torch.zeros(8, 8)
    expected[2:4, 2:6] = 1
    assert targets[0].equal(expected) and targets[1].eq(0).all() and targets[2].equal(expected)
    inside = mask_targets(masks, torch.tensor([1]), boxes([10, 10, 30, 20]), 28)
    assert inside.eq(1).all()


def slow_paste(mask, box, height, width):
    """Bilinear between centres of cells, with zeros around, one pixel at a time."""
    side = mask.shape[-1]
    padded = F.pad(mask, (1, 1, 1, 1))
    result = torch.zeros(height, width)
    for row in range(height):
        for column in range(width):
            x = (column + 0.5 - box[0]) / (box[2] - box[0]) * side - 0.5
            y = (row + 0.5 - box[1]) / (box[3] - box[1]) * side - 0.5
            if not (-1 < x < side and -1 < y < side):
                continue
            left, top = math.floor(x), math.floor(y)
            a, b = x - left, y - top
            cells = padded[top + 1 : top + 3, left + 1 : left + 3]
            weights = torch.tensor([[(1 - a) * (1 - b), a * (1 - b)], [(1 - a) * b, a * b]])
            result[row, column] = (cells * weights).sum()
    return result


def test_paste_masks__by_loops():
    masks = torch.rand(4, 7, 7)
    given = boxes([2.3, 1.7, 17.9, 12.2], [-4, -3, 6, 30], [15, 9, 40, 22.5], [8, 8, 8, 8])
    pasted = paste_masks(masks, given, (20, 24), threshold=0.5)
    assert pasted.shape == (4, 20, 24) and pasted.dtype == torch.bool
    for each, mask, box in zip(pasted[:3], masks, given, strict=False):
        expected = slow_paste(mask, box.tolist(), 20, 24) >= 0.5
        assert each.equal(expected) and each.any()
    assert not pasted[3].any()


def test_paste_masks__of_a_full_mask_is_the_box():
    pasted = paste_masks(torch.ones(1, 28, 28), boxes([2, 3, 6, 8]), (10, 9), threshold=0.5)
    expected = torch.zeros(10, 9, dtype=torch.bool)
    expected[3:8, 2:6] = True
    assert pasted[0].equal(expected)
    assert paste_masks(torch.ones(0, 28, 28), boxes(), (4, 5), threshold=0.5).shape == (0, 4, 5)


def proposals(inside_only, scale=4):
    torch.manual_seed(0)
    anchors = Anchors((8, 16), scale=scale, ratios=(1.0,))
    return ProposalNetwork(4, anchors, num_proposals=7, loss="l1", inside_only=inside_only)


def test_proposals__are_clipped_to_each_image_and_as_many_as_asked_for():
    network = proposals(inside_only=False)
    maps = [torch.randn(2, 4, 8, 12), torch.randn(2, 4, 4, 6)]
    sizes = [(64, 96), (40, 50)]
    found, losses = network.train()(maps, sizes)
    assert losses == {} and [len(each) for each in found] == [7, 7]
    for each, (height, width) in zip(found, sizes, strict=True):
        assert (each >= 0).all() and (each <= torch.tensor([width, height] * 2)).all()
    assert len(network.eval()(maps, sizes)[0][0]) > 7


def test_proposals__loss_leaves_out_anchors_that_reach_beyond_the_image():
    maps, sizes = [torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 4, 4)], [(64, 64)]
    truth = [boxes([-14, -16, 18, 16])]  # near the anchor at the corner of the first map
    _, everywhere = proposals(inside_only=False)(maps, sizes, truth)
    network = proposals(inside_only=True)
    objects = network._objects(network.anchor_generator(maps), (64, 64), truth[0])
    inside = objects != network.proposal_matcher.BETWEEN_THRESHOLDS
    # Sides of 32 px around multiples of 8, and of 64 px around none.
    assert int(inside[:64].sum()) == 4 * 4 and not inside[64:].any()
    _, losses = network(maps, sizes, truth)
    assert losses["loss_rpn_box"] == 0
    samples = 80 - 5  # but for those with an IoU from 0.3 to 0.7, which are neither
    assert everywhere["loss_rpn_box"].item() == pytest.approx(2 / 32 / samples)
    assert losses["loss_rpn_class"].item() == pytest.approx(math.log(2), rel=1e-2)
    tiny = proposals(inside_only=True, scale=99)
    found, losses = tiny(maps, sizes, truth)
    assert {value.item() for value in losses.values()} == {0.0} and len(found[0]) > 0


def test_proposals__of_values_that_are_not_finite_are_the_whole_image():
    maps, sizes = [torch.full((1, 4, 8, 8), math.nan)] * 2, [(60, 64)]
    found, losses = proposals(inside_only=False)(maps, sizes, [boxes([0, 0, 9, 9])])
    assert found[0].tolist() == [[0, 0, 64, 60]]
    assert losses["loss_rpn_class"].isnan()


def std(parameter):
    return parameter.detach().std().item()


def test_first_weights__are_the_originals(tiny_encoder):
    torch.manual_seed(0)
    head = BoxHead(64, head_channels=256, num_classes=80, with_convs=True)
    assert std(head.classes.weight) == pytest.approx(0.01, rel=0.05)
    assert std(head.codes.weight) == pytest.approx(0.001, rel=0.05)
    assert head.classes.weight.shape == (81, 256) and head.codes.weight.shape == (320, 256)
    convs = [each for each in head.layers if isinstance(each, nn.Sequential)]
    assert len(convs) == 4
    assert std(convs[0][0].weight) == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.05)
    linear = next(each for each in head.layers if isinstance(each, nn.Linear))
    assert std(linear.weight) == pytest.approx(math.sqrt(2 / (64 * 49 + 256)), rel=0.05)
    masks = MaskHead(64, num_classes=80)
    shapes = [tuple(each.weight.shape) for each in masks.modules() if hasattr(each, "weight")]
    assert shapes == [(64, 64, 3, 3)] * 4 + [(64, 64, 2, 2), (80, 64, 1, 1)]
    assert all(p.eq(0).all() for name, p in masks.named_parameters() if name.endswith("bias"))
    assert head.classes.bias.eq(0).all() and head.codes.bias.eq(0).all()
    network = RCNN(tiny_encoder(img_size_px=128), **NETWORK)
    for conv, width in zip(network.pyramid.inner_blocks, (8, 16, 32, 64), strict=True):
        assert std(conv[0].weight) == pytest.approx(math.sqrt(2 / (width + 64)), rel=0.15)


NETWORK = {
    "num_classes": 3,
    "with_masks": True,
    "cascade": True,
    "channels": 64,
    "head_channels": 16,
    "anchor_scale": 8,
    "anchor_ratios": [0.5, 1.0, 2.0],
    "anchors_inside": True,
    "num_proposals": 20,
    "proposal_loss": "smooth_l1",
    "box_loss": "giou",
}


def test_network__has_the_recipes_shape(tiny_encoder):
    encoder = tiny_encoder(img_size_px=128)
    network = RCNN(encoder, **NETWORK)
    assert map_strides(encoder) == (4, 8, 16, 32)
    levels = network.levels(encoder.maps_any_size(torch.randn(1, 3, 96, 160)))
    assert [tuple(each.shape[2:]) for each in levels] == [
        (24, 40),
        (12, 20),
        (6, 10),
        (3, 5),
        (2, 3),
    ]
    assert levels[4].equal(levels[3][..., ::2, ::2])
    assert [stage.iou for stage in CASCADE_STAGES] == [0.5, 0.6, 0.7]
    assert [stage.weight for stage in CASCADE_STAGES] == [1, 0.5, 0.25]
    assert network.heads.coders[2].weights == pytest.approx((30, 30, 15, 15), rel=0.02)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    kinds = [type(each) for each in converted.modules()]
    assert kinds.count(nn.SyncBatchNorm) == 3 * 4 and nn.BatchNorm2d not in kinds


def test_dense_groups__spare_norms_and_position_biases_of_a_detector_alone(tiny_encoder):
    encoder = tiny_encoder(img_size_px=128)
    model = nn.Module()
    model.encoder, model.rcnn = encoder, RCNN(encoder, **NETWORK)
    model.undecayed = frozenset
    groups = {group["name"]: group for group in dense_groups(model, lr=1.0, weight_decay=0.05)}
    assert groups["decay"]["weight_decay"] == 0.05 and groups["no_decay"]["weight_decay"] == 0
    spared = {id(each) for each in groups["no_decay"]["params"]}
    names = {name for name, each in model.named_parameters() if id(each) in spared}
    assert all("norm" in name or "relative_position_bias_table" in name for name in names)
    own = {name for name in names if name.startswith("rcnn")}
    assert own == {f"rcnn.norms.{n}.{part}" for n in range(4) for part in ("weight", "bias")}
    decayed = {id(each) for each in groups["decay"]["params"]}
    heads = [each for name, each in model.rcnn.named_parameters() if not name.startswith("norms")]
    assert {id(each) for each in heads} <= decayed  # biases and batch norms, too

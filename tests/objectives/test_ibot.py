"""iBOT: its terms, masks, teacher, prototypes and pixels; the dense and the sparse student."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from plain_views import NO_COLORS, plain_views
from torch import Tensor

from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.rng import keyed_generator
from ssl_swin.data.sample import Sample
from ssl_swin.data.transforms import CentreCrop
from ssl_swin.data.views import ColorViews
from ssl_swin.encoders.beit import beit
from ssl_swin.encoders.convnext import convnext
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.resnet import resnet
from ssl_swin.encoders.swin import swin
from ssl_swin.encoders.swin_mlp import swin_mlp
from ssl_swin.errors import UserError
from ssl_swin.figure import ImageColumn
from ssl_swin.masking import expand_mask
from ssl_swin.objectives import view_batches
from ssl_swin.objectives.base import Output, Progress
from ssl_swin.objectives.cells import masked_cells, patchify, unpatchify
from ssl_swin.objectives.ibot import IBOT
from ssl_swin.objectives.masked_views import (
    MaskDraw,
    MaskedViewsBatch,
    MaskedViewsExample,
    MaskShape,
)
from ssl_swin.objectives.self_distillation import image_loss, targets
from ssl_swin.objectives.simmim import masked_l1
from ssl_swin.optim.param_groups import weight_decay_groups

RGB = PixelFormat(3, "uint8")
SWIN = {"img_size_px": 64, "window_size": 4, "embed_dim": 8, "depths": (1, 2, 1),
        "num_heads": (1, 2, 2)}  # fmt: skip
ENCODERS: dict[str, Any] = {
    "swin v1": lambda: swin(version=1, **SWIN),
    "swin v2": lambda: swin(version=2, **SWIN),
    "vit": lambda: beit(img_size_px=64, patch_size_px=8, embed_dim=32, depth=2, num_heads=2),
    "resnet": lambda: resnet(img_size_px=64, depths=(1, 1, 1, 1), channels=(8, 8, 8, 16)),
    "convnext": lambda: convnext(
        img_size_px=64, depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), version=1
    ),
    "swin-mlp": lambda: swin_mlp(**SWIN),
}
SPARSE = {"sparse": True, "mask_ratio": 0.6, "mask_probability": 1.0}


def ibot(encoder: Encoder | str = "swin v1", **settings: Any) -> IBOT:
    torch.manual_seed(0)
    small = {
        "colors": plain_views(),
        "num_prototypes": 16,
        "hidden_dim": 32,
        "bottleneck_dim": 8,
    }
    made = ENCODERS[encoder]() if isinstance(encoder, str) else encoder
    return IBOT(made, **(small | settings))


def as_is(pixels: Tensor) -> Tensor:
    return pixels.float()


def batch(
    objective: IBOT, size: int = 4, *, seed: int = 0, alike: bool = False
) -> MaskedViewsBatch:
    """Views of noise, with masks as the objective draws them."""
    side = objective.encoder.img_size_px
    noise = torch.Generator().manual_seed(seed)
    pixels = torch.randn(size, 2, 3, *side, generator=noise)
    if alike:
        pixels = pixels[:1, :1].expand_as(pixels)
    draw = np.random.default_rng(seed)
    examples = [
        MaskedViewsExample(list(views), [objective.mask_draw(draw) for _ in range(2)], str(number))
        for number, views in enumerate(pixels)
    ]
    return objective.make_collate()(examples)


def at(objective: IBOT, step: int) -> None:
    objective.before_step(Progress(step, num_steps=40, steps_per_epoch=10))


def run(objective: IBOT, given: MaskedViewsBatch | None = None) -> Output:
    return objective(batch(objective) if given is None else given, as_is)


def disturb(objective: IBOT) -> IBOT:
    """Weights of which none is 0 or 1, so that nothing is left out unseen."""
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return objective


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(kind, {}) for kind in ENCODERS]
    + [(kind, SPARSE) for kind in ("swin v1", "swin v2", "vit")]
    + [("swin v1", {"unit_prototypes": True}), ("swin v1", {"region_weight": 1.0})]
    + [("swin v1", {"separate_cell_head": True, "mask_shape": "blocks"})]
    + [(kind, s | {"pixel_weight": 1.0}) for kind in ("swin v2", "vit") for s in ({}, SPARSE)]
    + [("swin v1", SPARSE | {"image_weight": 0.0, "cell_weight": 0.0, "pixel_weight": 0.5})],
)
def test_backward__reaches_every_weight_that_is_trained(
    kind: str, settings: dict[str, Any]
) -> None:
    objective = ibot(kind, **settings).train()
    at(objective, 10)
    run(objective).loss.backward()
    for name, parameter in objective.named_parameters():
        if name.startswith("teacher."):
            assert parameter.grad is None and not parameter.requires_grad, name
        elif parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    learning = [p for p in objective.encoder.parameters() if p.grad is not None and p.grad.any()]
    assert len(learning) > 10


@pytest.mark.parametrize(
    "settings", [{"mask_probability": 0.0}, {"mask_from_epoch": 2, "pixel_weight": 1.0}]
)
def test_backward__of_a_batch_without_masks_leaves_no_weight_unused(
    settings: dict[str, Any],
) -> None:
    objective = ibot(**settings).train()
    output = run(objective)
    output.loss.backward()
    assert output.logs["cell_loss"] == 0 and output.logs.get("pixel_loss", 0) == 0
    assert all(p.grad is not None for p in objective.parameters() if p.requires_grad)


def test_loss__is_the_weighted_sum_of_its_terms() -> None:
    weights = {"image": 0.5, "cell": 2.0, "region": 0.25, "pixel": 0.75}
    objective = disturb(ibot(**{f"{name}_weight": value for name, value in weights.items()}))
    output = run(objective.train())
    total = sum(value * output.logs[f"{name}_loss"] for name, value in weights.items())
    torch.testing.assert_close(output.loss, total)
    assert all(output.logs[f"{name}_loss"] > 0 for name in weights)


@pytest.mark.parametrize("settings", [{}, SPARSE])
def test_loss__of_the_start_is_about_that_of_chance(settings: dict[str, Any]) -> None:
    output = run(ibot(num_prototypes=512, bottleneck_dim=64, **settings).train())
    for name in ("image", "cell"):
        assert output.logs[f"{name}_loss"].item() == pytest.approx(math.log(512), abs=3)


def test_image_term__is_of_the_other_view_as_the_teacher_sees_it_whole() -> None:
    objective = disturb(ibot(mask_probability=0.0)).eval()
    given = batch(objective)
    first, second = given.pixels, given.others[0]
    scores = [objective.head(objective.encoder.pool(objective.encoder(v))) for v in (first, second)]
    network, head = objective.teacher.network, objective.teacher.head
    taught = [
        targets(head(network.pool(network(view))), objective.teacher.image_centre.mean, 0.07)
        for view in (first, second)
    ]
    expected = image_loss(scores, taught, 0.1)
    torch.testing.assert_close(run(objective, given).logs["image_loss"], expected)


def test_cell_term__is_of_the_same_cell_of_the_same_view() -> None:
    objective = disturb(ibot()).eval()
    with torch.no_grad():
        objective.teacher.cell_centre.mean.normal_()
    given = batch(objective)
    images = torch.cat([given.pixels, *given.others])
    seen = objective.student(objective.encoder, images, given).tokens
    scores = objective.head(seen)
    cells = objective.teacher.network(images).flatten(2).transpose(1, 2)
    aim = ((objective.teacher.head(cells) - objective.teacher.cell_centre.mean) / 0.07).softmax(-1)
    errors = -(aim * (scores / 0.1).log_softmax(-1)).sum(-1)
    masked = expand_mask(given.masks, (4, 4)).flatten(1)
    assert 0 < masked.any(1).sum() < len(masked)
    each = (errors * masked).sum(1) / masked.sum(1).clamp(min=1)
    torch.testing.assert_close(run(objective, given).logs["cell_loss"], each.mean())


def test_region_term__matches_a_cell_with_itself_where_views_are_equal() -> None:
    objective = ibot(mask_probability=0.0, region_weight=1.0).eval()
    given = batch(objective)
    given = given._replace(others=[given.pixels])
    cells = objective.encoder(given.pixels).flatten(2).transpose(1, 2)
    scores = objective.head(cells)
    aim = (scores / 0.07).softmax(-1)  # the teacher is a copy still, and its centre 0
    expected = -(aim * (scores / 0.1).log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(run(objective, given).logs["region_loss"], expected)


@pytest.mark.parametrize("settings", [{"mask_probability": 1.0, "mask_ratio": 0.5}, SPARSE])
def test_pixel_term__is_simmims_where_views_mask_as_much(settings: dict[str, Any]) -> None:
    objective = disturb(ibot(pixel_weight=1.0, **settings)).eval()
    given = batch(objective)
    images = torch.cat([given.pixels, *given.others])
    columns = {column.title: column for column in objective.figure(given, as_is)}
    prediction = columns["prediction"]
    assert isinstance(prediction, ImageColumn)
    shown = ~expand_mask(given.masks[:4], (64, 64))[:, None].expand_as(given.pixels)
    torch.testing.assert_close(prediction.images[shown], given.pixels[shown])
    seen = objective.student(objective.encoder, images, given)
    values = patchify(images, objective.encoder.stride).flatten(0, 1).clone()
    values[given.cells.places] = seen.pixels
    pasted = unpatchify(values.view(8, 16, -1), (4, 4), 3)
    torch.testing.assert_close(prediction.images, pasted[:4])
    expected = masked_l1(pasted, images, given.masks)
    torch.testing.assert_close(run(objective, given).logs["pixel_loss"], expected)


def test_figure__has_predictions_only_where_pixels_are_predicted() -> None:
    objective = ibot()
    titles = [column.title for column in objective.figure(batch(objective), as_is)]
    assert titles == ["view 1", "masked view 1", "view 2", "masked view 2"]
    assert not any("pixels" in name for name, _ in objective.named_parameters())


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(kind, {"mask_probability": 1.0}) for kind in ("swin v1", "vit", "convnext", "resnet")]
    + [("swin v2", SPARSE), ("vit", SPARSE)],
)
def test_student__sees_nothing_of_masked_pixels(kind: str, settings: dict[str, Any]) -> None:
    objective = disturb(ibot(kind, mask_patch_size_px=32, **({"pixel_weight": 1.0} | settings)))
    objective.eval()
    given = batch(objective)
    images = torch.cat([given.pixels, *given.others])
    hidden = expand_mask(given.masks, (64, 64))[:, None]
    other = torch.where(hidden, images + 1, images)
    seen, seen_other = (objective.student(objective.encoder, i, given) for i in (images, other))
    for name in ("images", "cells", "pixels"):
        torch.testing.assert_close(getattr(seen, name), getattr(seen_other, name))
    moved = torch.where(hidden, images, images + 1)
    assert not torch.allclose(
        objective.student(objective.encoder, moved, given).images, seen.images
    )


def test_fixed_positions__of_a_sparse_students_decoder() -> None:
    objective = disturb(ibot(**SPARSE, decoder_fixed_positions=True))
    fixed = [name for name, p in objective.student.named_parameters() if not p.requires_grad]
    assert fixed == ["decoder.pos_embed"]
    run(objective).loss.backward()
    assert objective.student.decoder.pos_embed.grad is None


def test_masked_cells__by_hand() -> None:
    mask = torch.zeros(3, 2, 2, dtype=torch.bool)
    mask[0, 0, 1] = mask[2, 1, 0] = mask[2, 1, 1] = True
    places, weights = masked_cells(mask, (2, 2))
    assert places.tolist() == [1, 10, 11] and weights.tolist() == [1, 0.5, 0.5]
    places, weights = masked_cells(mask[:1], (2, 4))
    assert places.tolist() == [2, 3] and weights.tolist() == [0.5, 0.5]


def test_patchify__cuts_cells_row_by_row() -> None:
    images = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    patches = patchify(images, 2)
    assert patches.shape == (2, 6, 12)
    torch.testing.assert_close(patches[1, 4].view(2, 2, 3), images[1, :, 2:, 2:4].movedim(0, -1))
    assert unpatchify(patches, (2, 3), 3).equal(images)


class TestMasks:
    def test_counts(self) -> None:
        draw, generator = MaskDraw((7, 7), (0.1, 0.5), 0.5), np.random.default_rng(0)
        counts = torch.stack([draw(generator).sum() for _ in range(400)])
        assert 0.4 < (counts == 0).float().mean() < 0.6
        masked = counts[counts > 0]
        assert (masked.min(), masked.max()) == (5, 25)  # rounded up
        always = MaskDraw((7, 7), (0.6, 0.6), 1.0)
        assert {int(always(generator).sum()) for _ in range(9)} == {30}
        never = MaskDraw((7, 7), (0.6, 0.6), 0.0)
        assert not any(never(generator).any() for _ in range(9))

    def test_in_blocks_lie_together(self) -> None:
        generator = np.random.default_rng(0)

        def neighbours(shape: MaskShape) -> float:
            """Share of the right-hand neighbours of masked patches that are masked too."""
            draw = MaskDraw((8, 8), (0.3, 0.3), 1.0, shape)
            masks = torch.stack([draw(generator) for _ in range(200)])
            assert masks.flatten(1).sum(1).max() == 20  # rounded up
            return (masks[:, :, 1:] & masks[:, :, :-1]).sum().item() / masks[..., :-1].sum().item()

        assert neighbours("patches") == pytest.approx(19 / 63, abs=0.03)
        assert neighbours("blocks") > 0.6

    def test_are_functions_of_seed_epoch_name_and_view(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        noise = torch.zeros(3, 64, 64, dtype=torch.uint8)
        monkeypatch.setattr(view_batches, "decode_sample", lambda *_: Sample(noise))

        def masks(name: str = "a", *, seed: int = 0, epoch: int = 0) -> Tensor:
            objective = ibot(mask_probability=1.0, mask_ratio=0.5, mask_patch_size_px=16)
            transform = objective.make_transform(CentreCrop((64, 64)), RGB, seed=seed)
            return torch.stack(transform(type("Encoded", (), {"name": name})(), epoch).masks)

        first = masks()
        assert masks().equal(first) and not first[0].equal(first[1])
        draw = ibot(mask_probability=1.0, mask_ratio=0.5, mask_patch_size_px=16).mask_draw
        assert first[1].equal(draw(keyed_generator(0, 0, "a", "mask of view 2")))
        for other in (masks("b"), masks(seed=1), masks(epoch=1)):
            assert not other[0].equal(first[0]) and not other[1].equal(first[1])

    def test_of_first_views_come_first_in_a_batch(self) -> None:
        objective = ibot()
        masks = [[torch.full((4, 4), number + view == 1) for view in (0, 1)] for number in (0, 1)]
        views = [torch.zeros(3, 64, 64)] * 2
        made = objective.make_collate()([MaskedViewsExample(views, m, "x") for m in masks])
        assert made.masks[:, 0, 0].tolist() == [False, True, True, False]
        assert made.cells.places.tolist() == [*range(16, 48)]


class TestTeacher:
    def test_is_a_copy_that_follows_after_a_step(self) -> None:
        objective = ibot(teacher_momentum=0.9)
        pairs = [
            (objective.teacher.network, objective.encoder),
            (objective.teacher.head, objective.head),
        ]
        for ours, theirs in pairs:
            state = theirs.state_dict()
            assert all(value.equal(state[name]) for name, value in ours.state_dict().items())
        start = {name: p.clone() for name, p in objective.teacher.named_parameters()}
        with torch.no_grad():
            for _, student in pairs:
                for parameter in student.parameters():
                    parameter += 1
        at(objective, 20)
        run(objective.train())
        assert all(start[name].equal(p) for name, p in objective.teacher.named_parameters())
        objective.after_step(21)  # the step that began when 20 of 40 were made: 1 - 0.1 / 2
        for name, parameter in objective.teacher.named_parameters():
            torch.testing.assert_close(parameter, start[name] + 0.05)

    def test_has_a_head_for_cells_where_the_student_has(self) -> None:
        objective = disturb(ibot(separate_cell_head=True, teacher_momentum=0.0)).train()
        given = batch(objective)
        objective.after_step(1)  # the teacher becomes the student
        teacher, student = objective.teacher, objective.cell_head
        assert student is not None and teacher.cell_head is not None
        cells = torch.randn(3, objective.encoder.num_features)
        assert teacher.cell_head(cells).equal(student(cells))
        assert not teacher.cell_head(cells).allclose(teacher.head(cells))
        taught = teacher(torch.cat([as_is(given.pixels), *given.others]), given.cells)
        all_cells = taught.features.flatten(0, 1)[given.cells.places]
        torch.testing.assert_close(taught.cells, student(all_cells))
        torch.testing.assert_close(taught.images, objective.head(taught.pooled))
        at(objective, 0)
        run(objective, given).loss.backward()
        assert student.prototypes.grad is not None
        objective.after_backward()
        assert student.prototypes.grad is None and objective.head.prototypes.grad is None

    def test_momentum_rises_to_1(self) -> None:
        objective = ibot()
        found = [objective.momentum_at(share) for share in (0, 0.5, 1, 1.5)]
        assert found == pytest.approx([0.996, 0.998, 1, 1])

    @pytest.mark.parametrize("settings", [{}, SPARSE])
    def test_is_neither_trained_nor_handed_on(self, settings: dict[str, Any]) -> None:
        objective = ibot(**settings)
        groups = weight_decay_groups(objective, lr=0.1, weight_decay=0.1, policy="official")
        trained = {id(p) for group in groups for p in group["params"]}
        assert trained.isdisjoint(map(id, objective.teacher.parameters()))
        assert not objective.extra_weights()
        spared = {id(p) for p in groups[1]["params"]}
        for name, parameter in objective.named_parameters():
            if "mask_token" in name or "pos_embed" in name:
                assert id(parameter) in spared, name
        assert id(objective.head.prototypes) not in spared

    def test_centres_follow_in_training_alone(self) -> None:
        objective = disturb(ibot(centre_momentum=0.75))
        given = batch(objective)
        run(objective.eval(), given)
        assert not objective.teacher.image_centre.mean.any()
        taught = objective.teacher(torch.cat([given.pixels, *given.others]), given.cells)
        run(objective.train(), given)
        mean = objective.teacher.head.compare(taught.projected).mean((0, 1))
        torch.testing.assert_close(objective.teacher.cell_centre.mean, 0.25 * mean)
        torch.testing.assert_close(
            objective.teacher.image_centre.mean, 0.25 * taught.images.mean(0)
        )


@pytest.mark.parametrize(
    ("step", "of_images", "of_cells"),
    [(0, 0.04, 0.04), (10, 0.055, 0.04), (20, 0.07, 0.04), (25, 0.07, 0.0475), (40, 0.07, 0.07)],
)
def test_temperature__rises_with_the_step(step: int, of_images: float, of_cells: float) -> None:
    """Over 2 epochs of 10 steps; that of cells from the epoch in which masks begin."""
    objective = ibot(temperature_warmup_epochs=2, mask_from_epoch=2).train()
    at(objective, step)
    found = [objective._temperature(), objective._temperature(from_epoch=2)]
    assert found == pytest.approx([of_images, of_cells])
    objective.eval()
    assert objective._temperature() == objective._temperature(from_epoch=2) == 0.07


def test_temperature__without_a_warm_up_is_the_last() -> None:
    objective = ibot(temperature_warmup_epochs=0).train()
    assert objective._temperature() == 0.07


def test_mask_from_epoch__hides_nothing_before_but_in_an_evaluation() -> None:
    objective = disturb(ibot(mask_from_epoch=1, mask_probability=1.0)).train()
    given = batch(objective)
    at(objective, 9)
    assert run(objective, given).logs["cell_loss"] == 0
    at(objective, 10)
    assert run(objective, given).logs["cell_loss"] > 0
    at(objective, 9)
    assert run(objective.eval(), given).logs["cell_loss"] > 0


def test_prototypes__stay_as_they_are_in_the_first_epoch() -> None:
    objective = disturb(ibot()).train()
    groups = weight_decay_groups(objective, lr=0.1, weight_decay=0.1, policy="official")
    optimizer = torch.optim.AdamW(groups)
    frozen = [objective.head.prototypes, objective.head.gain]

    def changed(step: int) -> list[bool]:
        before = [parameter.detach().clone() for parameter in frozen]
        at(objective, step)
        optimizer.zero_grad()
        run(objective).loss.backward()
        objective.after_backward()
        optimizer.step()
        return [not a.equal(b) for a, b in zip(before, frozen, strict=True)]

    assert [changed(step) for step in (0, 9, 10)] == [[False] * 2, [False] * 2, [True] * 2]


@pytest.mark.parametrize("settings", [{}, SPARSE, {"pixel_weight": 1.0, "region_weight": 1.0}])
def test_evaluation__changes_nothing_and_does_not_depend_on_the_step(
    settings: dict[str, Any],
) -> None:
    objective = ibot(**settings).eval()
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    found = []
    for step in (0, 39):
        at(objective, step)
        metrics = objective.new_metrics()
        objective.evaluate(metrics, batch(objective), as_is)
        objective.evaluate(metrics, batch(objective, size=1), as_is)
        found.append(metrics["loss"].compute())
    assert found[0].isfinite() and found[0].equal(found[1])
    assert all(value.equal(before[name]) for name, value in objective.state_dict().items())


def test_logs__tell_images_that_are_alike() -> None:
    objective = disturb(ibot())
    told, alike = (run(objective, batch(objective, alike=alike)).logs for alike in (False, True))
    assert alike["rep/std_mean"] < 1e-3 < told["rep/std_mean"]
    torch.testing.assert_close(alike["mean_target_entropy"], alike["target_entropy"])
    assert 0 < told["target_entropy"] < told["mean_target_entropy"] < 1


@pytest.mark.parametrize("settings", [{}, SPARSE])
def test_half_precision__is_near_float32(settings: dict[str, Any]) -> None:
    objective = disturb(ibot(pixel_weight=1.0, **settings)).train()
    given = batch(objective)
    expected = run(objective, given).loss
    objective.teacher.image_centre.mean.zero_()
    objective.teacher.cell_centre.mean.zero_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run(objective, given).loss
    assert found.dtype == objective.teacher.cell_centre.mean.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("swin v1", {"pixel_weight": 1.5}, r"pixel_weight must be a number in \[0, 1\], got 1\.5"),
    ("swin v1", {"pixel_weight": -0.1}, r"pixel_weight must be a number in \[0, 1\]"),
    ("swin v1", {"image_weight": 0, "cell_weight": 0}, "are all 0, so that there is nothing to"),
    ("swin v1", {"pixel_weight": 1, "mask_probability": 0}, "masks none: raise it, or set"),
    ("swin v1", {"mask_ratio": (0.5, 0.1)}, "mask_ratio must be .*the smaller first"),
    ("swin v1", {"mask_ratio": (0.1, 0.99)}, r"mask ratio 0\.99 masks all 16 patches"),
    ("swin v1", {"mask_patch_size_px": 8}, r"=8 does not fit objective=ibot: .*: 16, 32, "),
    ("swin v1", {"mask_patch_size_px": 24}, "24 px does not tile an image of 64x64 px"),
    ("swin v1", SPARSE | {"mask_ratio": (0.1, 0.5)}, r"to one number .* got \[0\.1, 0\.5\] and 1"),
    ("swin v1", SPARSE | {"mask_probability": 0.5}, r"got \[0\.6, 0\.6\] and 0\.5"),
    ("swin v1", SPARSE | {"mask_from_epoch": 3}, "takes no objective.mask_from_epoch=3"),
    ("swin v1", SPARSE | {"region_weight": 0.5}, r"takes no objective.region_weight=0\.5"),
    ("swin v1", SPARSE | {"mask_shape": "blocks"}, "which objective.mask_shape=blocks does not"),
    ("swin v1", SPARSE | {"decoder_dim": 33}, "decoder_dim must be a multiple of 32, got 33"),
    ("resnet", SPARSE, "leave out masked patches, got a ResNet; objective=ibot takes every"),
    ("swin-mlp", SPARSE, "a Swin-MLP cannot leave out patches"),
]


@pytest.mark.parametrize(("kind", "settings", "message"), REFUSED)
def test_refusals__name_the_value_and_the_way_out(
    kind: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        ibot(kind, **settings)


def test_batches__of_one_image() -> None:
    with pytest.raises(UserError, match="batch_size=1 has no other image"):
        ibot().check_batch_size(1, 2)
    ibot().check_batch_size(2, 2)


def test_colors__of_images_that_have_none() -> None:
    objective = ibot(colors=ColorViews(**NO_COLORS | {"grayscale_probability": 0.2}))
    with pytest.raises(UserError, match=r"5 channels .* objective\.colors\.grayscale_probab"):
        objective.make_transform(CentreCrop((64, 64)), PixelFormat(5, "uint8"), seed=0)


def test_describe__says_what_is_masked_and_weighed() -> None:
    assert ibot(pixel_weight=0.5).describe() == (
        "iBOT, 2 to 8 of 16 mask patches of 16 px masked in 50 % of the views, 16 prototypes, "
        "weights: image 1, cell 1, pixel 0.5"
    )
    assert "2 to 8 of 16 mask patches of 16 px masked in blocks in 50 %" in (
        ibot(mask_shape="blocks").describe()
    )
    assert ibot(**SPARSE).describe() == (
        "sparse iBOT, 10 of 16 mask patches of 16 px masked, 16 prototypes, "
        "weights: image 1, cell 1"
    )


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"mask_ratio": 0.6, "mask_probability": 1.0}, SPARSE])
def test_training__finds_the_other_view_of_smooth_images(settings: dict[str, Any]) -> None:
    """Of images whose masked cells can be told from the others: from far off to few candidates."""
    sizes = {"num_prototypes": 256, "bottleneck_dim": 64, "hidden_dim": 128}
    slow_start = {"teacher_momentum": 0.98, "freeze_prototypes_epochs": 2}
    objective = ibot(**settings, **sizes, **slow_start, teacher_temperature=0.04).train()
    noise, draw = torch.Generator().manual_seed(0), np.random.default_rng(0)
    corners = torch.randn(32, 3, 2, 2, generator=noise)
    images = torch.nn.functional.interpolate(corners, 64, mode="bilinear")
    groups = weight_decay_groups(objective, lr=5e-4, weight_decay=0.05, policy="official")
    optimizer = torch.optim.AdamW(groups)
    logs = []
    for step in range(40):
        for group in optimizer.param_groups:
            group["lr"] = 5e-4 * min(1, (step + 1) / 20)
        objective.before_step(Progress(step, num_steps=40, steps_per_epoch=10))
        views = images + 0.3 * torch.randn(2, *images.shape, generator=noise)
        examples = [
            MaskedViewsExample(list(pair), [objective.mask_draw(draw) for _ in range(2)], "x")
            for pair in views.transpose(0, 1)
        ]
        output = run(objective, objective.make_collate()(examples))
        optimizer.zero_grad()
        output.loss.backward()
        objective.after_backward()
        optimizer.step()
        objective.after_step(step + 1)
        logs.append({name: float(value) for name, value in output.logs.items()})
    first, last = logs[0], logs[-1]
    assert last["image_loss"] < 0.6 * first["image_loss"]
    assert last["cell_loss"] < 0.6 * first["cell_loss"]
    assert last["mean_target_entropy"] - last["target_entropy"] > 0.2
    assert last["rep/std_mean"] > 0.8

"""Losses, centre and head of self-distillation: the originals' numbers, and numbers by hand."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_swin.objectives.projection_head import ProjectionHead
from ssl_swin.objectives.self_distillation import (
    Centre,
    cell_loss,
    entropy,
    image_loss,
    most_alike,
    region_loss,
    targets,
)

GOLDEN = (
    Path(os.environ.get("SSL_SWIN_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
    / "objectives"
)


def load(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    path = GOLDEN / name
    if not path.is_file():
        pytest.skip(f"needs {path} (SSL_SWIN_GOLDEN)")
    arrays = dict(np.load(path))
    config = json.loads(str(arrays.pop("config")))
    return {name: torch.as_tensor(array) for name, array in arrays.items()}, config


def centre(before: Tensor, momentum: float) -> Centre:
    made = Centre(before.numel(), momentum=momentum)
    made.mean.copy_(before.flatten())
    return made


def temperature(config: dict[str, Any]) -> float:
    """Theirs changes by epoch, from one value to the other."""
    epochs = config["warmup_epochs"]
    steps = np.linspace(config["warmup_teacher_temp"], config["teacher_temp"], epochs)
    return float(steps[min(config["epoch"], epochs - 1)])


def assert_gradient(found: Tensor, expected: Tensor) -> None:
    assert found.grad is not None
    torch.testing.assert_close(found.grad, expected, rtol=1e-4, atol=1e-7)


def test_golden__losses_gradients_and_centres_of_ibot() -> None:
    arrays, config = load("ibot_loss.npz")
    warm, cold = temperature(config), config["student_temp"]
    assert warm == pytest.approx(float(arrays["teacher_temps"][config["epoch"]]))
    image_centre = centre(arrays["center_before"], config["center_momentum"])
    cell_centre = centre(arrays["center2_before"], config["center_momentum"])
    whole, cells, local = (
        arrays[f"student_{name}"].requires_grad_() for name in ("cls", "cells", "local")
    )
    of_images = targets(arrays["teacher_cls"], image_centre.mean, warm).chunk(2)
    image = image_loss([*whole.chunk(2), local], of_images, cold)
    masked = arrays["mask"].flatten(1)
    assert not masked.any(1).all()  # one view has no masked cell
    weight = (masked / masked.sum(1, keepdim=True).clamp(min=1))[masked]
    of_cells = targets(arrays["teacher_cells"], cell_centre.mean, warm)[masked]
    cell = cell_loss(cells[masked], of_cells, weight, len(masked), cold)
    torch.testing.assert_close(image, arrays["loss_cls"], rtol=1e-5, atol=0)
    torch.testing.assert_close(cell, arrays["loss_patch"], rtol=1e-5, atol=0)
    torch.testing.assert_close(image + cell, arrays["loss"], rtol=1e-5, atol=0)
    (image + cell).backward()
    for name, found in (("cls", whole), ("cells", cells), ("local", local)):
        assert_gradient(found, arrays[f"grad_student_{name}"])
    image_centre.update(arrays["teacher_cls"].mean(0))
    cell_centre.update(arrays["teacher_cells"].mean((0, 1)))
    torch.testing.assert_close(image_centre.mean, arrays["center_after"].flatten())
    torch.testing.assert_close(cell_centre.mean, arrays["center2_after"].flatten())


def test_golden__losses_gradients_and_centres_of_esvit() -> None:
    arrays, config = load("esvit_loss.npz")
    warm, cold, size = temperature(config), config["student_temp"], config["batch"]
    image_centre = centre(arrays["center_before"], config["center_momentum"])
    cell_centre = centre(arrays["center_grid_before"], config["center_momentum"])
    whole, regions = (arrays[f"student_{name}"].requires_grad_() for name in ("cls", "regions"))

    def by_view(rows: Tensor) -> list[Tensor]:  # of all images of a view, their cells
        counts = config["cells"][: 3 if len(rows) == len(regions) else 2]
        parts = rows.split([size * count for count in counts])
        return [part.reshape(size, -1, rows.shape[-1]) for part in parts]

    of_images = targets(arrays["teacher_cls"], image_centre.mean, warm).chunk(2)
    of_cells = targets(arrays["teacher_regions"], cell_centre.mean, warm)
    region = region_loss(
        by_view(regions),
        by_view(arrays["student_features"]),
        by_view(of_cells),
        by_view(arrays["teacher_features"]),
        cold,
    )
    loss = 0.5 * image_loss(whole.chunk(3), of_images, cold) + 0.5 * region
    torch.testing.assert_close(loss, arrays["loss"], rtol=1e-5, atol=0)
    loss.backward()
    assert_gradient(whole, arrays["grad_student_cls"])
    assert_gradient(regions, arrays["grad_student_regions"])
    image_centre.update(arrays["teacher_cls"].mean(0))
    cell_centre.update(arrays["teacher_regions"].mean(0))
    torch.testing.assert_close(image_centre.mean, arrays["center_after"].flatten())
    torch.testing.assert_close(cell_centre.mean, arrays["center_grid_after"].flatten())


def test_targets__by_hand() -> None:
    scores = torch.tensor([0.2, 0.1, 0.0])
    found = targets(scores, torch.tensor([0.1, 0.0, 0.0]), 0.1)
    e = math.e
    expected = torch.tensor([e, e, 1.0]) / (2 * e + 1)
    torch.testing.assert_close(found, expected)
    assert targets(scores.half(), torch.zeros(3), 0.1).dtype == torch.float32


def test_cell_loss__is_a_mean_over_cells_of_an_image_then_over_images() -> None:
    """Cross-entropies of 1, 3 and 5 ln 2, where two are of one image; a third image has none."""
    student = torch.zeros(3, 2)
    teacher = torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 0.0]])  # as weights of ln 2
    found = cell_loss(student, teacher, torch.tensor([0.5, 0.5, 1.0]), 3, 0.1)
    assert found.item() == pytest.approx((2 + 5) / 3 * math.log(2))


def test_image_loss__leaves_a_view_and_itself_out() -> None:
    right, wrong = torch.tensor([[100.0, 0.0]]), torch.tensor([[0.0, 100.0]])
    first, second = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert image_loss([wrong, right], [first, second], 1.0).item() == pytest.approx(0, abs=1e-6)
    assert image_loss([right, wrong], [first, second], 1.0).item() == pytest.approx(100)


def test_most_alike__goes_by_the_angle() -> None:
    others = torch.tensor([[[9.0, 0.0], [0.0, 0.1], [-1.0, 0.0]]])
    cells = torch.tensor([[[0.1, 3.0], [-5.0, 1.0], [0.2, 0.1]]])
    assert most_alike(cells, others).tolist() == [[1, 2, 0]]


def test_entropy__is_a_share_of_the_largest() -> None:
    assert entropy(torch.full((2, 8), 1 / 8)).item() == pytest.approx(1)
    assert entropy(torch.eye(4)).item() == 0
    assert entropy(torch.tensor([0.5, 0.5, 0.0, 0.0])).item() == pytest.approx(0.5)


def test_centre__moves_by_a_share() -> None:
    moving = Centre(2, momentum=0.9)
    for scores in ([1.0, -1.0], [3.0, 0.0]):
        moving.update(torch.tensor(scores))
    torch.testing.assert_close(moving.mean, torch.tensor([0.39, -0.09]))
    assert [name for name, _ in moving.named_buffers()] == ["mean"]


def head(**settings: Any) -> ProjectionHead:
    torch.manual_seed(0)
    sizes = {"hidden_dim": 16, "bottleneck_dim": 4, "num_prototypes": 6, "unit_prototypes": False}
    return ProjectionHead(8, **sizes | settings)  # type: ignore[arg-type]


def test_head__scores_are_cosines_times_lengths() -> None:
    made, features = head(), torch.randn(5, 3, 8)
    unit = made.mlp(features)
    unit = unit / unit.norm(dim=-1, keepdim=True)
    directions = made.prototypes / made.prototypes.norm(dim=1, keepdim=True)
    torch.testing.assert_close(made(features), unit @ directions.T)
    with torch.no_grad():
        made.prototypes *= 3  # only directions count
        made.gain += 1
    torch.testing.assert_close(made(features), 2 * unit @ directions.T)


def test_head__mean_of_scores_is_the_score_of_the_mean() -> None:
    made, features = head(), torch.randn(5, 3, 8)
    mean = made.compare(made.project(features).mean((0, 1)))
    torch.testing.assert_close(mean, made(features).mean((0, 1)))


def test_head__in_half_precision_compares_in_float32() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        projected = head().project(torch.randn(5, 8))
        assert head().compare(projected).dtype == projected.dtype == torch.float32
    torch.testing.assert_close(projected.norm(dim=1), torch.ones(5))


@pytest.mark.parametrize("unit_prototypes", [True, False])
def test_head__frozen_prototypes_have_no_gradient(unit_prototypes: bool) -> None:
    made = head(unit_prototypes=unit_prototypes)
    made(torch.randn(5, 8))[:, 0].sum().backward()
    assert all(parameter.grad is not None for parameter in made.parameters())
    assert (made.gain is None) == unit_prototypes
    made.freeze_prototypes()
    left = {name for name, parameter in made.named_parameters() if parameter.grad is not None}
    assert left == {name for name, _ in made.named_parameters() if name.startswith("mlp")}

"""Training on a CUDA device does what training on the CPU does.

Every test runs on the CPU too, so that nothing but the device can make it fail on the other; there
the first compares single with double precision. On a machine with a GPU: `pytest -m gpu`.
"""

import csv
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from lightning.fabric.utilities import move_data_to_device
from plain_kernels import PLAIN
from torch import Tensor

from ssl_swin.encoders.kernels import Kernels, use_kernels
from ssl_swin.masking import random_mask
from ssl_swin.objectives.masked_images import MaskedBatch, MaskedExample
from ssl_swin.objectives.simmim import MaskedImageModel, SimMIM
from ssl_swin.objectives.simmim_sparse import SparseSimMIM
from ssl_swin.optim.param_groups import weight_decay_groups
from ssl_swin.pixels import normalize
from ssl_swin.training.implementation import implement

ROOT = Path(__file__).parents[1]
LIMIT_S = 300
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STEPS_PER_EPOCH, NUM_STEPS = 4, 8
SETTINGS = (
    "model.embed_dim=8",
    "model.depths=[1,1,1]",
    "model.num_heads=[1,1,2]",
    "data.prepare.num_train=32",
    "data.prepare.num_val=8",
    "batch_size=8",
    "num_workers=0",
    "logger=csv",
    "optim.base_lr=0.01",
    "schedule.warmup_epochs=0",
    "trainer.devices=1",
    "trainer.max_epochs=2",
    "trainer.check_val_every_n_epoch=1",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "callbacks.milestones.every_n_epochs=1",
)
WIDE: dict[str, Any] = {"embed_dim": 32, "depths": (2, 2), "num_heads": (1, 2)}
FUSED_ADAMW = replace(PLAIN, optimizer="fused")
CPU = pytest.param("cpu", marks=pytest.mark.slow)
CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
# Of losses; on a GPU sums have no fixed order, and convolutions round to TF32.
LOSSES_DIFFER = {"cpu": 1e-5, "cuda": 1e-2}


class Step(NamedTuple):
    """What one optimiser step leaves, on the CPU."""

    loss: Tensor
    gradients: Tensor  # all values in one row, as are the changes
    changes: Tensor


def one_step(model: MaskedImageModel, device: str, dtype: torch.dtype) -> Step:
    model = model.to(device, dtype)
    before = _row(model.parameters())
    batch = move_data_to_device(batch_for(model), device)
    groups = weight_decay_groups(model, lr=1e-3, weight_decay=0.05, policy="official")
    optimizer = torch.optim.AdamW(groups, eps=1e-3)  # no signs of gradients that are all but 0
    loss = model(batch, lambda pixels: normalize(pixels, MEAN, STD).to(dtype)).loss
    loss.backward()
    gradients = _row(parameter.grad for parameter in model.parameters())
    optimizer.step()
    return Step(loss.detach().cpu(), gradients, _row(model.parameters()) - before)


def some_steps(
    model: MaskedImageModel, device: str, kernels: Kernels, *, is_compiled: bool = False
) -> list[float]:
    """Losses of training on the same images with other masks, with these kernels."""
    model = model.to(device)
    use_kernels(model, kernels)
    if is_compiled:
        torch._dynamo.reset()
        model.encoder.compile_blocks()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-3, fused=True)
    implement(optimizer, kernels.optimizer)
    losses = []
    for step in range(6):
        batch = move_data_to_device(batch_for(model, step), device)
        loss = model(batch, lambda pixels: normalize(pixels, MEAN, STD)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def batch_for(model: MaskedImageModel, step: int = 0) -> MaskedBatch:
    """As a loader gives it: on the CPU, with what the objective works out ahead of the step."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(256, size=(4, 3, *model.encoder.img_size_px), dtype=np.uint8)
    for _ in range(step + 1):
        masks = random_mask(model.mask_grid, model.mask_ratio, draw, batch_size=4)
    examples = [
        MaskedExample(*each, 0, "") for each in zip(torch.tensor(pixels), masks, strict=True)
    ]
    return model.make_collate()(examples)


def _row(tensors: Any) -> Tensor:
    return torch.cat([tensor.detach().cpu().flatten() for tensor in tensors])


def assert_close(ours: Tensor, expected: Tensor, within: float) -> None:
    assert expected.norm() > 0
    assert (ours - expected).norm() <= within * expected.norm()


class Run:
    """A pretraining, started as a user starts it."""

    def __init__(self, root: Path, name: str, device: str, *options: str) -> None:
        self.folder = root / "runs/pretrain" / name
        accelerator = {"cpu": "cpu", "cuda": "gpu"}[device]
        placed = (f"trainer.accelerator={accelerator}", f"name={name}", *SETTINGS)
        groups = [option for option in options if option.startswith("trainer=")]
        others = [option for option in options if option not in groups]
        ended = subprocess.run(
            [sys.executable, str(ROOT / "pretrain.py"), *groups, *placed, *others],
            cwd=root, env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=LIMIT_S,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr[-3000:]
        self.said = ended.stdout

    def losses(self, name: str = "train/loss") -> list[float]:
        with (self.folder / "metrics.csv").open() as file:
            return [float(row[name]) for row in csv.DictReader(file) if row[name]]

    def checkpoint(self, step: int) -> Path:
        return self.folder / f"checkpoints/step_{step:07d}.ckpt"


@pytest.fixture(scope="module", params=[CPU, CUDA])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def whole(device: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run in single precision."""
    return Run(tmp_path_factory.mktemp(device), "whole", device, "trainer.precision=32-true")


@pytest.mark.parametrize("objective", [SimMIM, SparseSimMIM])
@pytest.mark.parametrize(
    ("on", "dtype", "within"),
    [
        ("cpu", torch.float32, 1e-3),
        pytest.param("cuda", torch.float32, 1e-3, marks=pytest.mark.gpu),
        pytest.param("cuda", torch.float64, 1e-5, marks=pytest.mark.gpu),
    ],
)
def test_step__equals_that_in_double_precision_on_the_cpu(
    tiny_encoder, monkeypatch, on: str, objective: Any, dtype: torch.dtype, within: float
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)

    def step(device: str, dtype: torch.dtype) -> Step:
        encoder = tiny_encoder(img_size_px=128)
        torch.manual_seed(0)
        return one_step(objective(encoder), device, dtype)

    ours, expected = step(on, dtype), step("cpu", torch.float64)
    assert ours.loss.item() == pytest.approx(expected.loss.item(), rel=within)
    assert_close(ours.gradients, expected.gradients, within)
    assert_close(ours.changes, expected.changes, within)


@pytest.mark.parametrize("on", [CPU, CUDA])
@pytest.mark.parametrize("objective", [SimMIM, SparseSimMIM])
@pytest.mark.parametrize(
    "changed",
    [
        {"attention": "fused", "decoder_attention": "fused"},
        {"mlp": "recompute", "bin_multiple": 16},
        {"patch_embedding": "conv", "head": "masked", "optimizer": "foreach"},
        {"patch_embedding": "channels_last"},
        pytest.param({"attention": "flex"}, marks=pytest.mark.gpu),  # refused on a CPU
    ],
    ids=lambda changed: "-".join(map(str, changed.values())),
)
def test_kernels__make_the_same_steps(
    tiny_encoder: Any, monkeypatch: pytest.MonkeyPatch, on: str, objective: Any, changed: Any
) -> None:
    if on == "cpu" and changed.get("attention") == "flex":
        pytest.skip("torch has no backward pass of it on a CPU")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    expected = some_steps(objective(tiny_encoder(**WIDE)), on, FUSED_ADAMW)
    ours = some_steps(objective(tiny_encoder(**WIDE)), on, replace(FUSED_ADAMW, **changed))
    assert expected[-1] < 0.99 * expected[0]  # it learns
    np.testing.assert_allclose(ours, expected, rtol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("objective", [SimMIM, SparseSimMIM])
@pytest.mark.parametrize("attention", ["products", "flex"])
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compile_modes__make_the_same_steps(
    tiny_encoder: Any, monkeypatch: pytest.MonkeyPatch, objective: Any, attention: Any, mode: Any
) -> None:
    """Enough steps to record CUDA graphs and to replay them, with masks of several sizes."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    kernels = replace(FUSED_ADAMW, attention=attention, compile_mode=mode, bin_multiple=4)
    expected = some_steps(objective(tiny_encoder(**WIDE)), "cuda", FUSED_ADAMW)
    ours = some_steps(objective(tiny_encoder(**WIDE)), "cuda", kernels, is_compiled=True)
    np.testing.assert_allclose(ours, expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("on", "precision"),
    [
        pytest.param("cpu", "bf16-mixed", marks=pytest.mark.slow),
        pytest.param("cuda", "bf16-mixed", marks=pytest.mark.gpu),
        pytest.param("cuda", "16-mixed", marks=pytest.mark.gpu),
    ],
)
def test_pretrain__in_half_precision_has_finite_losses(
    tmp_path: Path, on: str, precision: str
) -> None:
    run = Run(tmp_path, "half", on, f"trainer.precision={precision}")
    assert len(run.losses()) == NUM_STEPS
    assert all(map(math.isfinite, [*run.losses(), *run.losses("val/loss")]))
    before, after = run.losses("val/loss")
    assert before != after  # weights have changed


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_strategy__of_one_process_equals_none(whole: Run, device: str, strategy: str) -> None:
    root = whole.folder.parents[2]
    run = Run(root, strategy, device, f"trainer={strategy}", "trainer.precision=32-true")
    expected = whole.losses()
    assert len(expected) == NUM_STEPS
    np.testing.assert_allclose(run.losses(), expected, rtol=LOSSES_DIFFER[device])


def test_resume__goes_on_as_if_nothing_had_been(whole: Run, device: str) -> None:
    root, resume = whole.folder.parents[2], f"resume={whole.checkpoint(STEPS_PER_EPOCH)}"
    run = Run(root, "resumed", device, "trainer.precision=32-true", resume)
    expected = whole.losses()[STEPS_PER_EPOCH:]
    np.testing.assert_allclose(run.losses(), expected, rtol=LOSSES_DIFFER[device])
    assert run.checkpoint(NUM_STEPS).is_file()

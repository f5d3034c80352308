import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.fabric.plugins.precision.amp import _optimizer_handles_unscaling
from lightning.pytorch import LightningModule, Trainer
from torch.optim import SGD, AdamW
from torch.utils.data import DataLoader

from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.optim.schedules import CosineSchedule, RunLength
from ssl_swin.tasks.classification import Classification
from ssl_swin.training.optim import (
    StepSchedule,
    finetune_optimizer,
    pretrain_optimizer,
    run_length,
)

LENGTH = RunLength(steps_per_epoch=5, num_epochs=4, global_batch_size=1024)
SCHEDULE = CosineSchedule(warmup_epochs=1, warmup_lr=1e-5, min_lr=1e-6, warmup_prefix=True)
RECIPE = {"schedule": SCHEDULE, "length": LENGTH, "base_lr": 1e-3, "weight_decay": 0.05}
RECIPE |= {"betas": [0.9, 0.95], "eps": 1e-7}


def cosine(step: int, base_lr: float) -> float:
    """By hand: 5 steps of warm-up from 2e-5, then to 2e-6 at step 20; rates are for 1024 images."""
    if step < 5:
        return 2e-5 + (base_lr - 2e-5) * step / 5
    return 2e-6 + (base_lr - 2e-6) * (1 + math.cos(math.pi * (step - 5) / 15)) / 2


def rates(optimizer: torch.optim.Optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


def train(
    optimizer: torch.optim.Optimizer, schedule: StepSchedule, steps: int
) -> list[list[float]]:
    """The rates that each step runs at."""
    used = []
    for _ in range(steps):
        used.append(rates(optimizer))
        optimizer.step()
        schedule.step()
    return used


def test_finetune_optimizer__step_i_runs_at_the_rate_of_the_step_before(tiny_encoder):
    classifier = Classification(tiny_encoder(), classes=[str(label) for label in range(3)])
    made: Any = finetune_optimizer(classifier, layer_decay=0.5, **RECIPE)
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert made["lr_scheduler"]["interval"] == "step"
    assert (type(optimizer), optimizer.defaults["betas"]) == (AdamW, (0.9, 0.95))
    # Depths 2-1-2-1: the patch embedding is layer 0, the head layer 7 and at 2e-3 for 1024 images.
    layers = [int(group["name"].split("_")[1]) for group in optimizer.param_groups]
    assert set(layers) == set(range(8))
    base_lrs = [2e-3 * 0.5 ** (7 - layer) for layer in layers]
    for step, used in enumerate(train(optimizer, schedule, steps=23)):
        before = min(20, max(0, step - 1))
        assert used == pytest.approx([cosine(before, base_lr) for base_lr in base_lrs])


def test_pretrain_optimizer__two_groups_at_one_rate(tiny_encoder):
    made: Any = pretrain_optimizer(SimMIM(tiny_encoder()), weight_decay_policy="intended", **RECIPE)
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    decays = {group["name"]: group["weight_decay"] for group in optimizer.param_groups}
    assert decays == {"decay": 0.05, "no_decay": 0.0}
    assert {group["eps"] for group in optimizer.param_groups} == {1e-7}
    for step, used in enumerate(train(optimizer, schedule, steps=8)):
        assert used == pytest.approx([cosine(max(0, step - 1), 2e-3)] * 2)


@pytest.mark.parametrize("layer_decay", [None, 0.5])
def test_pretrain_optimizer__weight_decay_rises_where_there_is_any(tiny_encoder, layer_decay):
    def build() -> tuple[Any, Any]:
        made: Any = pretrain_optimizer(
            SimMIM(tiny_encoder()),
            weight_decay_policy="intended",
            weight_decay_end=0.45,
            layer_decay=layer_decay,
            **RECIPE,
        )
        return made["optimizer"], made["lr_scheduler"]["scheduler"]

    def used(optimizer: Any) -> dict[bool, set[float]]:
        found: dict[bool, set[float]] = {True: set(), False: set()}
        for group in optimizer.param_groups:
            found[not group["name"].endswith("no_decay")].add(group["weight_decay"])
        return found

    optimizer, schedule = build()
    steps = RECIPE["length"].steps_per_epoch * RECIPE["length"].num_epochs
    whole = []
    for step in range(steps + 3):
        share = min(1.0, max(0, step - 1) / steps)
        (decay,) = used(optimizer)[True]
        assert decay == pytest.approx(0.45 - 0.4 * (1 + math.cos(math.pi * share)) / 2)
        assert used(optimizer)[False] == {0.0}
        whole.append(decay)
        train(optimizer, schedule, steps=1)
    first, its_schedule = build()
    train(first, its_schedule, steps=7)
    optimizer, schedule = build()
    optimizer.load_state_dict(first.state_dict())
    schedule.load_state_dict(its_schedule.state_dict())
    for expected in whole[7:12]:
        assert used(optimizer)[True] == {expected}
        train(optimizer, schedule, steps=1)


@pytest.mark.parametrize("policy", ["official", "intended"])
def test_pretrain_optimizer__rates_fall_towards_the_input_and_decays_stay(tiny_encoder, policy):
    model = SimMIM(tiny_encoder())
    plain, layered = (
        by_parameter(
            pretrain_optimizer(model, weight_decay_policy=policy, layer_decay=each, **RECIPE)
        )
        for each in (None, 0.5)
    )
    assert plain.keys() == layered.keys()
    assert {k: group["weight_decay"] for k, group in layered.items()} == {
        k: group["weight_decay"] for k, group in plain.items()
    }
    for name, parameter in model.named_parameters():
        layer = 7 if name.startswith("decoder.") else model.encoder.layer_id(name)
        assert layered[id(parameter)]["initial_lr"] == pytest.approx(2e-3 * 0.5 ** (7 - layer))


def by_parameter(made: Any) -> dict[int, dict[str, Any]]:
    groups = made["optimizer"].param_groups
    return {id(parameter): group for group in groups for parameter in group["params"]}


def test_step_schedule__without_a_lag_runs_step_i_at_its_own_value() -> None:
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = StepSchedule(optimizer, lambda step, base_lr: base_lr * (10 + step), lag=0)
    rates = []
    for _ in range(3):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == [20.0, 22.0, 24.0]
    assert "lag" not in schedule.state_dict()


def two_groups() -> tuple[SGD, StepSchedule]:
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [w], "lr": lr} for w, lr in zip(weights, (1e-3, 4e-4), strict=True)]
    optimizer = SGD(groups, lr=1.0)
    return optimizer, StepSchedule(optimizer, cosine)


def test_pretrain_optimizer__is_fused_but_fp16_gradients_are_unscaled_before_they_are_clipped(
    tiny_encoder,
):
    model = SimMIM(tiny_encoder())
    optimizer = pretrain_optimizer(model, weight_decay_policy="official", **RECIPE)["optimizer"]
    assert optimizer.defaults["fused"]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.ones(()))  # as for the loss
    assert not _optimizer_handles_unscaling(optimizer)  # what Lightning asks before it clips
    scaler.unscale_(optimizer)
    assert all((parameter.grad == 0.125).all() for parameter in model.parameters())
    before = model.mask_token.clone()
    scaler.step(optimizer)
    assert not model.mask_token.equal(before)


def test_step_schedule__resumes_from_plain_data(tmp_path: Path):
    uninterrupted = train(*two_groups(), steps=15)
    optimizer, schedule = two_groups()
    before = train(optimizer, schedule, steps=7)
    torch.save([optimizer.state_dict(), schedule.state_dict()], tmp_path / "state")

    states = torch.load(tmp_path / "state", weights_only=True)
    optimizer, schedule = two_groups()
    optimizer.load_state_dict(states[0])
    schedule.load_state_dict(states[1])
    assert schedule.schedule is cosine
    assert before + train(optimizer, schedule, steps=8) == uninterrupted


# run_length


@pytest.mark.parametrize(
    ("num_batches", "limit", "accumulate", "steps"),
    [
        (100, 1.0, 1, 100),
        (100, 1.0, 3, 34),  # the last step of an epoch takes what is left
        (7, 3, 1, 3),
        (7, 1, 1, 1),  # one batch, not all of them
        (7, 30, 2, 4),
        (7, 0.5, 1, 3),
        (7, 0.5, 2, 2),
    ],
)
def test_run_length__counts_lightnings_steps(num_batches, limit, accumulate, steps):
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=limit,
        accumulate_grad_batches=accumulate,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    length = run_length(trainer, num_batches=num_batches, batch_size=8)
    assert length == RunLength(steps, 1, 8 * accumulate)
    trainer.fit(OneWeight(), DataLoader(torch.ones(num_batches, 1), batch_size=1))
    assert trainer.global_step == steps


def test_run_length__global_batch_over_devices():
    trainer: Any = SimpleNamespace(
        limit_train_batches=1.0, accumulate_grad_batches=4, max_epochs=800, world_size=16
    )
    length = run_length(trainer, num_batches=1000, batch_size=32)
    assert length == RunLength(steps_per_epoch=250, num_epochs=800, global_batch_size=2048)


class OneWeight(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def configure_optimizers(self) -> SGD:
        return SGD(self.parameters(), lr=0.1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return (self.weight - batch).square().mean()

"""Most numbers are those of the official recipes, at their scaled rates; see each comment."""

import pytest

from ssl_swin.errors import UserError
from ssl_swin.optim.schedules import (
    CosineSchedule,
    DenseMultistepSchedule,
    MultistepSchedule,
    PolySchedule,
    RunLength,
    cosine_lr,
    multistep_lr,
    scale_lr,
)

SIMMIM, SWIN = False, True  # the warmup_prefix of the two official repositories


def finetune(step: int, warmup_prefix: bool) -> float:
    """Fine-tuning of 100 epochs with 20 of warm-up, at 50 steps per epoch and batch size 2048."""
    schedule = CosineSchedule(20, warmup_lr=2.5e-7, min_lr=2.5e-7, warmup_prefix=warmup_prefix)
    return schedule.bind(RunLength(50, 100, 2048))(step, scale_lr(1.25e-3, 2048))


def pretrain(step: int, warmup_prefix: bool) -> float:
    """Pretraining of 100 epochs with 10 of warm-up, at 625 steps per epoch and batch size 2048."""
    schedule = CosineSchedule(10, warmup_lr=1e-6, min_lr=1e-5, warmup_prefix=warmup_prefix)
    return schedule.bind(RunLength(625, 100, 2048))(step, scale_lr(2e-4, 2048))


def pretrain_long(step: int) -> float:
    """Pretraining of 800 epochs, a tenth of the rate after 700, at batch size 2048."""
    schedule = MultistepSchedule(10, warmup_lr=5e-7, milestone_epochs=[700], gamma=0.1)
    return schedule.bind(RunLength(625, 800, 2048))(step, scale_lr(1e-4, 2048))


@pytest.mark.parametrize(
    ("batch_size", "expected"), [(2048, 5e-3), (512, 1.25e-3), (128, 3.125e-4), (768, 1.875e-3)]
)
def test_scale_lr__per_512_images(batch_size, expected):
    assert scale_lr(1.25e-3, batch_size) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("warmup_prefix", [SIMMIM, SWIN])
@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 1e-6),
        (1, 1e-6 + 4.999e-3 / 1000),
        (500, 2.5005e-3),  # half-way between 1e-6 and 5e-3
        (999, 4.995001e-3),
    ],
)
def test_cosine__warm_up_is_a_line(step, expected, warmup_prefix):
    assert finetune(step, warmup_prefix) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("step", "warmup_prefix", "expected"),
    [
        (1000, SIMMIM, 4.522638e-3),  # 1e-6 + 4.999e-3 (1 + cos 0.2 pi) / 2: 9.5 % down at once
        (3000, SIMMIM, 1.728112e-3),  # epoch 60: 1 + cos 0.6 pi = 0.690983
        (1000, SWIN, 5e-3),
        (3000, SWIN, 2.5005e-3),  # epoch 60 is the middle of 20 to 100
        (2000, SWIN, 4.267913e-3),  # epoch 40: 1 + cos 0.25 pi = 1.7071068
    ],
)
def test_cosine__finetuning_recipe(step, warmup_prefix, expected):
    assert finetune(step, warmup_prefix) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("step", "warmup_prefix", "expected"),
    [
        (0, SIMMIM, 4e-6),
        (6249, SIMMIM, 7.998726e-4),
        (6250, SIMMIM, 7.814015e-4),  # 4e-5 + 7.6e-4 (1 + cos 0.1 pi) / 2
        (6250, SWIN, 8e-4),
        (31250, SIMMIM, 4.2e-4),
        (34375, SWIN, 4.2e-4),
    ],
)
def test_cosine__pretraining_recipe(step, warmup_prefix, expected):
    assert pretrain(step, warmup_prefix) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("warmup_prefix", [SIMMIM, SWIN])
def test_cosine__ends_at_the_minimum_and_stays(warmup_prefix):
    last = finetune(4999, warmup_prefix)
    assert 1e-6 < last < 1e-6 + 1e-8
    assert finetune(5000, warmup_prefix) == pytest.approx(1e-6, rel=1e-9)
    assert finetune(6000, warmup_prefix) == pytest.approx(1e-6, rel=1e-9)


@pytest.mark.parametrize("warmup_prefix", [SIMMIM, SWIN])
def test_cosine__without_warm_up_starts_at_the_base_rate(warmup_prefix):
    rate = cosine_lr(
        0,
        base_lr=1.0,
        warmup_lr=0.1,
        min_lr=0.0,
        warmup_steps=0,
        total_steps=10,
        warmup_prefix=warmup_prefix,
    )
    assert rate == 1.0


def test_cosine__a_strongly_decayed_layer_falls_in_warm_up_and_rises_after():
    # The input layers of Swin-L at layer decay 0.7 have a base rate below the absolute minimum.
    schedule = CosineSchedule(20, warmup_lr=2.5e-7, min_lr=2.5e-7, warmup_prefix=True)
    rate = schedule.bind(RunLength(50, 100, 2048))
    assert [rate(step, 6.7e-7) for step in (0, 500, 1000, 3000, 5000)] == pytest.approx(
        [1e-6, 8.35e-7, 6.7e-7, 8.35e-7, 1e-6], rel=1e-9
    )


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 2e-6),
        (3125, 2.01e-4),  # half-way between 2e-6 and 4e-4
        (6250, 4e-4),
        (437_499, 4e-4),
        (437_500, 4e-5),  # epoch 700
        (500_000, 4e-5),
    ],
)
def test_multistep__pretraining_recipe(step, expected):
    assert pretrain_long(step) == pytest.approx(expected, rel=1e-12)


def test_multistep__several_milestones_in_fractions_of_an_epoch():
    schedule = MultistepSchedule(0.3, warmup_lr=0.0, milestone_epochs=[0.5, 1.2], gamma=0.5)
    rate = schedule.bind(RunLength(10, 2, 512))
    rates = [rate(step, 8.0) for step in (0, 1, 3, 4, 5, 11, 12)]
    assert rates == pytest.approx([0.0, 8 / 3, 8.0, 8.0, 4.0, 4.0, 2.0])


def test_multistep__warm_up_may_end_on_the_first_milestone_but_not_after():
    arguments = {"base_lr": 1.0, "warmup_lr": 0.0, "gamma": 0.1}
    assert multistep_lr(7, **arguments, warmup_steps=7, milestone_steps=[9, 7]) == 0.1
    with pytest.raises(UserError, match=r"warm-up \(8 steps\) .* first milestone \(7 steps\)"):
        multistep_lr(0, **arguments, warmup_steps=8, milestone_steps=[9, 7])


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 8e-4), (1, 1.80054), (4, 4.8), (5, 4.0), (9, 0.8), (10, 0.0), (99, 0.0)],
)
def test_poly__falls_in_a_straight_line_while_it_warms_up(step, expected):
    schedule = PolySchedule(power=1.0, min_lr=0.0, warmup_steps=4, warmup_ratio=1e-4)
    rate = schedule.bind(RunLength(5, 2, 16))
    assert rate(step, 8.0) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_poly__of_a_power_ends_at_its_minimum_after_its_own_steps():
    schedule = PolySchedule(2.0, min_lr=0.5, warmup_steps=0, warmup_ratio=0.0, total_steps=4)
    rate = schedule.bind(RunLength(5, 2, 16))
    assert [rate(step, 2.5) for step in (0, 1, 2, 4, 7)] == pytest.approx(
        [2.5, 0.5 + 2 * 0.5625, 1.0, 0.5, 0.5]
    )


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.008),
        (1, 8 * 0.25075),
        (4, 8.0),
        (9, 8.0),
        (10, 0.8),
        (14, 0.8),
        (15, 0.08),
        (99, 0.08),
    ],
)
def test_dense_multistep__falls_at_epochs_after_a_warmup_in_steps(step, expected):
    schedule = DenseMultistepSchedule([2, 3], gamma=0.1, warmup_steps=4, warmup_ratio=0.001)
    rate = schedule.bind(RunLength(5, 4, 16))
    assert rate(step, 8.0) == pytest.approx(expected, rel=1e-9)


def test_dense_multistep__a_warmup_that_outlasts_a_milestone_goes_on():
    schedule = DenseMultistepSchedule([1], gamma=0.5, warmup_steps=10, warmup_ratio=0.0)
    rate = schedule.bind(RunLength(5, 4, 16))
    assert [rate(step, 1.0) for step in (4, 5, 10)] == pytest.approx([0.4, 0.25, 0.5])


@pytest.mark.parametrize("step", [0, 20, 30, 60, 90])
def test_bind__scales_the_absolute_rates_and_not_the_base_rate(step):
    schedule = CosineSchedule(1, warmup_lr=1e-3, min_lr=1e-4, warmup_prefix=True)
    small, large = (schedule.bind(RunLength(30, 3, batch)) for batch in (512, 1024))
    assert large(step, 2e-2) == pytest.approx(2 * small(step, 1e-2), rel=1e-12)

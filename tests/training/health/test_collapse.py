"""The alarm: on what it goes off, on what it does not, and what it does then."""

import math
import statistics

import numpy as np
import pytest
import torch
from faulty_runs import logged, module_of, same, state, train
from lightning.pytorch import Callback

from ssl_swin.errors import TrainingGaveUp
from ssl_swin.training.callbacks.collapse_alarm import CollapseAlarm
from ssl_swin.training.health.collapse_signs import CollapseSigns, RunningMedian

pytestmark = pytest.mark.filterwarnings("ignore")


def signs(**settings):
    usual = {"loss_factor": 1.5, "gradient_factor": 0.05, "min_spread": 0.1, "for_steps": 200}
    return CollapseSigns(**{**usual, **settings})


def first_alarm(watching, values):
    """Step of the first alarm, of (loss, norm, spread) every ten steps."""
    for number, (loss, norm, spread) in enumerate(values, 1):
        if watching.observe(10 * number, loss=loss, gradient_norm=norm, spread=spread):
            return 10 * number
    return None


def test_running_median__to_four_percent_in_bounded_memory():
    rng = np.random.default_rng(0)
    values = np.exp(rng.normal(-1, 2, 20_000))
    median = RunningMedian()
    for value in (*values, 0.0, math.nan, math.inf):
        median.add(value)
    assert median.value == pytest.approx(statistics.median(values), rel=0.045)
    assert len(median.counts) < 250 and RunningMedian().value == 0


def test_collapse_signs__a_known_collapse():
    """SimMIM #15: 0.25 with norms of 0.5 to 2, then flat at 0.506 with norms of about 0.01."""
    rng = np.random.default_rng(0)
    healthy = [(0.25 + 0.01 * rng.normal(), rng.uniform(0.5, 2), None) for _ in range(300)]
    collapsed = [(0.506, 0.01, None)] * 100
    watching = signs()
    assert first_alarm(watching, healthy + collapsed) == 3010 + 200
    reason = watching.observe(9999, loss=0.506, gradient_norm=0.01, spread=None)
    assert "the loss (0.506) has been over 1.5 times its best (0.24" in reason


@pytest.mark.parametrize(
    "later",
    [
        [(0.506, 1.0, None)] * 100,  # a worse loss that is still learned from
        [(0.2, 0.01, None)] * 100,  # converged: a small gradient at a good loss
        ([(0.506, 0.01, None)] * 20 + [(0.25, 1.0, None)]) * 5,  # not for 200 steps
        [(math.nan, math.nan, None)] * 100,  # steps that are left out are not this
    ],
)
def test_collapse_signs__what_is_no_collapse(later):
    assert first_alarm(signs(), [(0.25, 1.0, None)] * 100 + later) is None


def test_collapse_signs__features_that_are_alike():
    values = [(1.0, 1.0, 0.9)] * 10 + [(1.0, 1.0, 0.05)] * 100
    assert first_alarm(signs(), values) == 110 + 200
    assert first_alarm(signs(), [(1.0, 1.0, 0.11)] * 100) is None


def test_collapse_signs__remembered():
    values = [(0.25, 1.0, 0.5)] * 50 + [(0.6, 0.001, 0.5)] * 40
    whole = signs()
    first_alarm(whole, values)
    half, rest = signs(), signs()
    for number, (loss, norm, spread) in enumerate(values, 1):
        watching = half if number <= 60 else rest
        if number == 61:
            rest.load_state_dict(half.state_dict())
        watching.observe(10 * number, loss=loss, gradient_norm=norm, spread=spread)
    assert rest.state_dict()["flat_since"] == 510
    assert rest.state_dict()["best"] == whole.state_dict()["best"] == 0.25


class Collapses(Callback):
    """From a step on the loss is 10 without a gradient, for some steps."""

    def __init__(self, first, last):
        self.steps = range(first, last)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        model = pl_module.model
        model.collapsed = trainer.global_step in self.steps


def collapsing(faults):
    module = module_of(faults)
    forward = module.model.forward

    def collapsed(batch, normalize):
        output = forward(batch, normalize)
        if module.model.training and module.model.collapsed:
            return output._replace(loss=output.loss * 1e-6 + 10)
        return output

    module.model.forward = collapsed
    return module


def alarm(folder, on_collapse, **settings):
    usual = {
        "every_n_steps": 1, "for_steps": 3, "loss_factor": 1.5, "gradient_factor": 0.05,
        "max_loss_vs_mean": 0.95, "min_spread": 0.1, "warmup_steps": 0, "max_rollbacks": 1,
    }  # fmt: skip
    return CollapseAlarm(
        on_collapse=on_collapse, checkpoints=folder / "checkpoints", **{**usual, **settings}
    )


def collapse(folder, watching, first=22, last=40, **options):
    return train(
        folder,
        callbacks=[Collapses(first, last), watching],
        make_module=collapsing,
        max_epochs=5,
        **options,
    )


def test_collapse_alarm__warns_once_and_logs(tmp_path, capsys):
    watching = alarm(tmp_path, "warn")
    _, trainer = collapse(tmp_path, watching, last=30)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("warning: the training looks collapsed at step 26: for 3 steps the")
    assert list(logged(trainer, "health/collapse").values()) == [0] * 25 + [1] * 5 + [0] * 10
    assert watching.summary() == ""


def test_collapse_alarm__stops(tmp_path):
    with pytest.raises(TrainingGaveUp, match="stopped: the training looks collapsed at step 26"):
        collapse(tmp_path, alarm(tmp_path, "stop"))


def test_collapse_alarm__goes_back_to_before_it_began(tmp_path, capsys):
    seen = {}

    class Looks(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen[trainer.global_step] = state(pl_module, trainer)

    watching = alarm(tmp_path, "rollback")
    train(
        tmp_path,
        callbacks=[Collapses(22, 26), watching, Looks()],
        make_module=collapsing,
        max_epochs=5,
    )
    assert "back to those of step 22 (return 1 of 1); the data goes on" in capsys.readouterr().out
    assert same(seen[26], seen[22]) and not same(seen[27], seen[26])


def test_collapse_alarm__goes_back_only_so_often(tmp_path):
    with pytest.raises(TrainingGaveUp, match="stopped: the training looks collapsed at step 26"):
        collapse(tmp_path, alarm(tmp_path, "rollback", max_rollbacks=0))


@pytest.mark.slow
@pytest.mark.parametrize("stopped_at", [21, 24, 28])
def test_collapse_alarm__resumed_goes_off_at_the_same_step(tmp_path, capsys, stopped_at):
    collapse(tmp_path, alarm(tmp_path, "warn"), max_steps=stopped_at)
    checkpoint = tmp_path / f"checkpoints/step_{stopped_at}.ckpt"
    collapse(tmp_path, alarm(tmp_path, "warn"), checkpoint=checkpoint)
    out = capsys.readouterr().out
    assert out.count("collapsed at step 26") == out.count("warning") == 1


@pytest.mark.parametrize(
    ("shares", "warmup_steps", "warned_at"),
    [
        ([0.99, 0.98, 0.97], 1000, None),  # early
        ([0.99, 0.98, 0.5], 16, 16),
        ([0.5, 0.96, 0.97], 0, 16),
        ([0.5, math.nan, 0.95], 0, None),
    ],
)
def test_collapse_alarm__no_better_than_the_mean(tmp_path, capsys, shares, warmup_steps, warned_at):
    class Steps:
        sanity_checking = False

    watching, trainer = alarm(tmp_path, "warn", warmup_steps=warmup_steps), Steps()
    for number, share in enumerate(shares, 1):
        trainer.global_step = 8 * number
        trainer.callback_metrics = {"val/loss_vs_mean": torch.tensor(share)}
        watching.on_validation_end(trainer, None)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == (warned_at is not None)
    assert all(f"collapsed at step {warned_at}: val/loss_vs_mean is" in line for line in lines)

"""fp16: a scale that is being looked for is no alarm, one that has collapsed is."""

import pytest
import torch
from faulty_runs import logged, same, state, train, watcher
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision

pytestmark = pytest.mark.filterwarnings("ignore")


class Full(MixedPrecision):
    """The loss scale of fp16 around computing in float32: torch's fp16 on a CPU is slow."""

    def autocast_context_manager(self):
        return torch.autocast("cpu", enabled=False)


def scaled(init_scale):
    scaler = torch.amp.GradScaler("cpu", init_scale=init_scale, growth_interval=10**6)
    return [Full("16-mixed", "cpu", scaler)]


class Grows(Callback):
    """Makes the gradient overflow while the scale is above a limit, as fp16's range does."""

    def __init__(self, limit):
        self.limit = limit

    def on_after_backward(self, trainer, pl_module):
        if trainer.precision_plugin.scaler.get_scale() > self.limit:
            next(pl_module.model.layer.parameters()).grad.mul_(torch.inf)


def test_loss_scale__looking_for_it_is_no_alarm(tmp_path, capsys):
    module, trainer = train(
        tmp_path, callbacks=[Grows(2.0**12), watcher(tmp_path)], plugins=scaled(2.0**16)
    )
    assert module.num_skipped == 0 and capsys.readouterr().out == ""
    assert module.model.after == list(range(5, 17))  # four steps halve 2^16 to 2^12
    assert list(logged(trainer, "amp/scale").values()) == [
        2.0**16,
        2.0**15,
        2.0**14,
        2.0**13,
        *[2.0**12] * 12,
    ]


def test_loss_scale__collapsed_is_an_alarm(tmp_path, capsys):
    module, _ = train(tmp_path, callbacks=[Grows(0.2), watcher(tmp_path)], plugins=scaled(2.0))
    # 2 and 1 are searching; 0.5 and 0.25 are not
    assert module.num_skipped == 2
    assert "step 2 left out, its gradient norm is nan" in capsys.readouterr().out


def test_loss_scale__a_loss_that_is_not_finite_is_an_alarm(tmp_path):
    faults = [(3, 0, "lonely"), (5, 0, "loss")]
    module, trainer = train(tmp_path / "a", faults, plugins=scaled(1024.0))
    plain, plain_trainer = train(tmp_path / "b", faults)
    assert module.num_skipped == 2
    scaled_state, plain_state = state(module, trainer), state(plain, plain_trainer)
    assert same(scaled_state, plain_state)  # a power of two changes no digit
    assert trainer.precision_plugin.scaler.get_scale() == 512.0  # for the gradient of step 5

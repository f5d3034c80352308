"""A backbone that is held in the first epochs stays to the bit, and then moves."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.strategies import SingleDeviceStrategy
from plain_views import plain_views
from torch import Tensor, nn

from ssl_swin.encoders.resnet import resnet
from ssl_swin.errors import UserError
from ssl_swin.objectives.base import Progress
from ssl_swin.objectives.moby import MoBY
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.objectives.view_batches import ViewsBatch
from ssl_swin.training import module as module_file
from ssl_swin.training.freezing import Freeze

STEPS_PER_EPOCH = 3


class Watch(Callback):
    """Keeps weights, modes and norms after each step."""

    def __init__(self) -> None:
        self.encoders: list[dict[str, Tensor]] = []
        self.decoders: list[dict[str, Tensor]] = []
        self.modes: list[bool] = []
        self.moments: list[int] = []
        self.with_gradient: list[bool] = []
        self.own_norms: list[float] = []
        self.norms: list[float] = []

    def _look(self, model: Any) -> None:
        for parts, module in ((self.encoders, model.encoder), (self.decoders, model.decoder)):
            parts.append({name: value.clone() for name, value in module.state_dict().items()})

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self._look(module.model)

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        own = [p for n, p in module.model.named_parameters() if not n.startswith("encoder.")]
        self.own_norms.append(float(nn.utils.get_total_norm([p.grad for p in own])))

    def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
        model = module.model
        self._look(model)
        self.norms.append(float(module.verdict.gradient_norm))
        self.modes.append(model.encoder.training)
        state = trainer.optimizers[0].state
        self.moments.append(sum(p in state for p in model.encoder.parameters()))
        self.with_gradient.append(all(p.requires_grad for p in model.encoder.parameters()))


def equal(state: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(value.equal(other[name]) for name, value in state.items())


@pytest.mark.parametrize(("epochs", "held"), [(1, 3), (0.7, 2), (1.3, 4), (0.1, 0)])
def test_backbone__stays_to_the_bit_and_then_moves(pretrain, epochs: float, held: int) -> None:
    watch = Watch()
    pretrain(watch, freeze_backbone_epochs=epochs, check_val_every_n_epoch=1)
    changed = [not equal(a, b) for a, b in zip(watch.encoders, watch.encoders[1:], strict=False)]
    assert changed == [False] * held + [True] * (6 - held)
    assert all(not equal(a, b) for a, b in zip(watch.decoders, watch.decoders[1:], strict=False))
    assert watch.modes == changed  # after a validation too
    number = len([*watch.encoders[0]])
    assert [0 < count <= number for count in watch.moments] == changed
    assert not any(watch.moments[:held])
    assert all(watch.with_gradient[held:]) and not any(watch.with_gradient[:held])


def test_norm__that_is_clipped_is_that_of_what_is_trained(pretrain) -> None:
    watch = Watch()
    pretrain(watch, freeze_backbone_epochs=1, max_epochs=2, gradient_clip_val=1e9)
    held = STEPS_PER_EPOCH
    assert watch.norms[:held] == pytest.approx(watch.own_norms[:held])
    assert all(
        a > 1.01 * b for a, b in zip(watch.norms[held:], watch.own_norms[held:], strict=True)
    )


def test_several_devices__compute_all_gradients_and_learn_the_same(pretrain, monkeypatch) -> None:
    alone, together = Watch(), Watch()
    pretrain(alone, freeze_backbone_epochs=1)
    monkeypatch.setattr(module_file, "DDPStrategy", SingleDeviceStrategy)
    pretrain(together, freeze_backbone_epochs=1)
    assert all(together.with_gradient) and not any(together.moments[:STEPS_PER_EPOCH])
    assert all(map(equal, together.encoders, alone.encoders))
    assert all(map(equal, together.decoders, alone.decoders))


def test_nothing__is_held_unless_asked_for(pretrain) -> None:
    watch = Watch()
    pretrain(watch)
    assert not equal(watch.encoders[0], watch.encoders[1]) and all(watch.modes)


class Bare(SimMIM):
    """Has no weights of its own."""

    def __init__(self, encoder: Any) -> None:
        super().__init__(encoder)
        self.decoder.requires_grad_(False)
        self.mask_token.requires_grad_(False)


def test_freeze__refuses_an_objective_without_weights_of_its_own(tiny_encoder) -> None:
    with pytest.raises(UserError, match="freeze_backbone_epochs=2 leaves nothing to train: SimMIM"):
        Freeze(Bare(tiny_encoder()), 2)


def test_momentum_target__equals_the_backbone_while_it_is_held() -> None:
    """Batch statistics of a convolutional network among it, which either would collect alone."""
    torch.manual_seed(0)
    encoder = resnet(img_size_px=32, block="basic", channels=(8, 8, 16, 16), depths=(1, 1, 1, 1))
    sizes = {"queue_length": 8, "hidden_dim": 32, "out_dim": 16}
    model = MoBY(encoder, colors=plain_views(), stages=[3, 4], **sizes).train()
    freeze = Freeze(model, 2)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    for step in range(4):
        progress = Progress(step, num_steps=4, steps_per_epoch=1)
        model.before_step(progress)
        freeze.begin(model, progress, is_alone=False)
        views = torch.randn(2, 4, 3, 32, 32)
        model(ViewsBatch(views[0], [views[1]], list("abcd")), lambda pixels: pixels).loss.backward()
        freeze.after_backward(model)
        optimizer.step()
        optimizer.zero_grad()
        model.after_step(step + 1)
        same = equal(model.target.state_dict(), model.encoder.state_dict())
        assert same == freeze.is_on == (step < 2)
    after = model.state_dict()
    moved = {name.partition(".")[0] for name in after if not after[name].equal(start[name])}
    assert moved == {"encoder", "target", "projectors", "predictors", "target_projectors", "keys1",
                     "keys2"}  # fmt: skip

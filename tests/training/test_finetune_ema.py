"""The moving average of the weights: its values, and that a resumed run has the same ones."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ssl_swin.errors import UserError
from ssl_swin.training.callbacks.ema import WeightEma
from ssl_swin.training.checkpointing.schedule import StepCheckpoint

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's, of loaders without workers
DECAY = 0.75


class OneWeight(LightningModule):
    """Walks from 0 towards 1; step n ends at 1 - 0.8^n."""

    index: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.register_buffer("index", torch.arange(10))  # as Swin's offsets
        self.trained: list[float] = []
        self.validated: list[float] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.trained.append(self.weight.item())
        return (self.weight - 1).square()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.validated.append(self.weight.item())


def weight_after(step: int) -> float:
    return 1 - 0.8**step


def average_after(step: int) -> float:
    """The first step's weight starts it."""
    average = weight_after(1)
    for number in range(2, step + 1):
        average = DECAY * average + (1 - DECAY) * weight_after(number)
    return average


def fit(folder: Path, checkpoint: Path | None = None, **options: Any) -> tuple[OneWeight, Trainer]:
    """Two epochs of three steps each, validated after each."""
    module = OneWeight()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        callbacks=[
            WeightEma(DECAY),
            StepCheckpoint(dirpath=folder, filename="{step}", every_n_train_steps=1, save_top_k=-1),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    per_step = options.get("accumulate_grad_batches", 1)
    train, val = (DataLoader(torch.zeros(n), batch_size=1) for n in (3 * per_step, 1))
    trainer.fit(module, train, val, ckpt_path=checkpoint, weights_only=True)
    return module, trainer


@pytest.mark.parametrize("accumulated", [1, 2])
def test_weight_ema__by_hand(tmp_path, accumulated):
    """Once per optimiser step; training goes on with its own weights after a validation."""
    module, _ = fit(tmp_path, accumulate_grad_batches=accumulated)
    own = [weight_after(step) for step in range(6) for _ in range(accumulated)]
    assert module.trained == pytest.approx(own)
    assert module.validated == pytest.approx([average_after(3), average_after(6)])
    assert module.weight.item() == pytest.approx(average_after(6))
    assert module.index.tolist() == list(range(10))


def test_weight_ema__is_what_a_checkpoint_holds(tmp_path):
    fit(tmp_path)
    for step in range(1, 7):
        checkpoint = torch.load(tmp_path / f"step={step}.ckpt", weights_only=True)
        assert checkpoint["state_dict"]["weight"].item() == pytest.approx(average_after(step))
        own = checkpoint["current_model_state"]["weight"].item()
        assert own == pytest.approx(weight_after(step))


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_weight_ema__survives_a_resume(tmp_path, step):
    whole, _ = fit(tmp_path / "whole")
    rest, _ = fit(tmp_path / "rest", tmp_path / f"whole/step={step}.ckpt")
    assert rest.trained == whole.trained[step:]
    assert rest.validated == whole.validated[len(whole.validated) - len(rest.validated) :]
    assert rest.weight.equal(whole.weight)


def test_weight_ema__leaves_other_weights_alone_after_training(tmp_path):
    """The best epoch's weights are put back and validated then."""
    module, trainer = fit(tmp_path)
    with torch.no_grad():
        module.weight.fill_(5.0)
    trainer.validate(module, DataLoader(torch.zeros(1)), verbose=False)
    assert module.validated[-1] == 5.0
    assert module.weight.item() == 5.0


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1, 1.5])
def test_weight_ema__refuses_a_decay_out_of_range(decay):
    with pytest.raises(UserError, match=rf"decay must be a number in \(0, 1\), got {decay}"):
        WeightEma(decay)

"""A moving average of the weights."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn

from ssl_swin.arguments import InnerFraction, checked
from ssl_swin.training.sharding import divided, like, load_whole, own_part
from ssl_swin.training.strategy import ShardedStrategy

CURRENT, AVERAGING = "current_model_state", "averaging_state"  # in a checkpoint, as Lightning's


class WeightEma(Callback):
    """Averages the weights exponentially over the optimiser steps, and validates the average.

    A checkpoint's `state_dict` is the average, so that the best epoch's is handed on; the weights
    that training goes on with lie beside it. After training the module holds the average. Where
    weights are divided over the processes, each averages its own part.

    Differs from Lightning's `WeightAveraging`, whose checkpoints it reads and writes: buffers are
    the model's, since averaging would truncate the integers among them, a later validation leaves
    the weights alone, and the module is not copied, which a divided one cannot be.
    """

    @checked
    def __init__(self, decay: InnerFraction) -> None:
        """Sets the callback up.

        Args:
            decay: What remains of the average after each optimiser step, in (0, 1); the first
                step's weights start it.

        Raises:
            UserError: If `decay` is out of range.
        """
        self.decay = decay
        self._average: Average | None = None
        self._loaded: Mapping[str, Any] | None = None  # checkpoint, until the weights are in place
        self._latest_update_step = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts from the weights, on the device and divided as they are."""
        self._average = Average(pl_module)
        if self._loaded is not None:
            self._average.load(self._loaded)
            self._loaded = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Averages after a step; one that was left out is not averaged."""
        if trainer.global_step == self._latest_update_step:
            return  # inside an accumulation
        self._latest_update_step = trainer.global_step
        if getattr(pl_module, "made_step", True):
            self._in_training.update(self.decay)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the average in place of the weights."""
        self._swap(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the weights back."""
        self._swap(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves the average in place of the weights."""
        self._in_training.put()

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on has to know besides the average."""
        return {"latest_update_step": self._latest_update_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on counting."""
        self._latest_update_step = state_dict["latest_update_step"]

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Puts the average in the place of the weights, and these beside it."""
        average, state = self._in_training, checkpoint["state_dict"]
        tensors = average.by_name()
        if isinstance(trainer.strategy, ShardedStrategy):
            tensors = trainer.strategy.collected(tensors)
        checkpoint[CURRENT] = state
        checkpoint["state_dict"] = {**state, **tensors}
        checkpoint[AVERAGING] = {"n_averaged": torch.tensor(average.num_steps)}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Takes average and weights; without an average, the next step's weights start one."""
        if AVERAGING in checkpoint:
            load_whole(pl_module, checkpoint[CURRENT])
            if self._average is None:
                self._loaded = checkpoint
            else:
                self._average.load(checkpoint)
        elif self._average is not None:
            self._average.num_steps = 0

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lets go of the average, which a later validation would put in place of other weights."""
        self._average = self._loaded = None

    @property
    def _in_training(self) -> "Average":
        assert self._average is not None
        return self._average

    def _swap(self, module: LightningModule) -> None:
        if self._average is not None:
            with divided(module):
                self._average.swap()


AVERAGES = (WeightEma, WeightAveraging)  # callbacks that show an average in a validation


class Average:
    """The average of a module's parameters, of divided ones this process's part."""

    def __init__(self, module: nn.Module) -> None:
        """Copy the parameters, which are averaged in place of any step so far.

        Args:
            module: On its device, with its parameters divided if they are to be.
        """
        self.num_steps = 0
        self._names = {name: id(p) for name, p in module.named_parameters(remove_duplicate=False)}
        self._parameters = {id(p): p for p in module.parameters()}
        self._averages = {key: p.detach().clone() for key, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Average the parameters of one more step; the first one's are copied."""
        if self.num_steps == 0:
            self.put(back=True)
        else:
            by_type: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
            for average, parameter in self._pairs():
                averages, parameters = by_type.setdefault(average.dtype, ([], []))
                averages.append(average)
                parameters.append(parameter)
            for averages, parameters in by_type.values():
                torch._foreach_lerp_(averages, parameters, 1 - decay)
        self.num_steps += 1

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange average and parameters."""
        for average, parameter in self._pairs():
            before = average.clone()
            average.copy_(parameter)
            parameter.copy_(before)

    @torch.no_grad()
    def put(self, *, back: bool = False) -> None:
        """Copy the average into the parameters, or back."""
        for average, parameter in self._pairs():
            average.copy_(parameter) if back else parameter.copy_(average)

    def by_name(self) -> dict[str, Tensor]:
        """Return the averages as a `state_dict` names parameters."""
        return {name: self._averages[key] for name, key in self._names.items()}

    @torch.no_grad()
    def load(self, checkpoint: Mapping[str, Any]) -> None:
        """Take the average of a checkpoint, whose tensors are whole."""
        for name, average in self.by_name().items():
            own_part(average).copy_(own_part(like(checkpoint["state_dict"][name], average)))
        self.num_steps = int(checkpoint[AVERAGING]["n_averaged"])

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        return [
            (own_part(average), own_part(self._parameters[key].detach()))
            for key, average in self._averages.items()
        ]

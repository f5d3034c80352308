"""Training with divided weights (FSDP2) as a strategy of Lightning's."""

from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.optim import Optimizer

from ssl_swin.divided_checkpoint import Scattered
from ssl_swin.objectives.base import Objective
from ssl_swin.training.checkpointing.io import AtomicCheckpointIO
from ssl_swin.training.health.step_guard import StepGuard
from ssl_swin.training.module import TrainingModule
from ssl_swin.training.sharding import full, gathered, like, load_whole, shard


class ShardedStrategy(DDPStrategy):
    """Divides weights, gradients and optimiser state over the processes.

    What is trained is a divided copy; the job's own objective stays whole, on the CPU, and has the
    final weights after `hand_back`. Between optimiser steps, evaluations, probes and pictures hold
    whole weights on every process. A checkpoint is one file, the same as
    without this strategy, or a folder to which every process adds its part.
    """

    strategy_name = "fsdp"

    def __init__(self, *, timeout: timedelta, sharded_checkpoints: bool = False) -> None:
        """Set the strategy up.

        Args:
            timeout: How long a process waits for the others before it gives up.
            sharded_checkpoints: Whether each process writes its own part of a checkpoint.
        """
        super().__init__(timeout=timeout)
        self._in_parts = sharded_checkpoints
        self._whole: Objective | None = None
        self._evaluation = ExitStack()

    def model_to_device(self) -> None:
        """Divide the model if it is to be trained, and move the rest to the device."""
        module = self._module
        if module.trainer.state.fn == TrainerFn.FITTING:
            mesh = init_device_mesh(self.root_device.type, (self.world_size,))
            self._whole, module.model = module.model, shard(module.model, mesh)
            module.guard = StepGuard(module.model)
        super().model_to_device()

    def configure_ddp(self) -> None:
        """Wrap nothing: blocks reduce their gradients themselves."""

    def hand_back(self) -> None:
        """Put the trained weights into the job's own objective; on all processes together."""
        if self._whole is None:
            return
        state = {name: full(value).cpu() for name, value in self._module.model.state_dict().items()}
        self._whole.load_state_dict(state)
        self._module.model, self._whole = self._whole, None

    def teardown(self) -> None:
        """Let go of the devices.

        What was interrupted amid a forward pass is whole in part, and cannot be moved: it is left
        where it is, and the job has its own objective again, with the weights of the start.
        """
        if self._whole is not None:
            module = self._module
            if module.trainer.state.status == TrainerStatus.INTERRUPTED:
                module.model, self._whole = self._whole, None
        super().teardown()

    def on_validation_start(self) -> None:
        """Gather the weights."""
        self._evaluation.enter_context(gathered(self._module.trainer))

    def on_validation_end(self) -> None:
        """Divide them again."""
        self._evaluation.close()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return whole weights on the first process and nothing on the others, or all parts."""
        return self.collected(self._module.state_dict())

    def collected(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Return tensors as a checkpoint takes them: whole on the first process, or all parts.

        Args:
            tensors: Divided ones, on all processes the same names.
        """
        return dict(tensors) if self._in_parts else self._gather(tensors)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the whole state of an optimiser on the first process, or this process's part.

        Args:
            optimizer: One of the trainer's.
        """
        if isinstance(optimizer, LightningOptimizer):
            optimizer = optimizer._optimizer
        state = optimizer.state_dict()
        if self._in_parts:
            return state
        return {**state, "state": {key: self._gather(v) for key, v in state["state"].items()}}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint; in parts, all processes together.

        Args:
            checkpoint: What the trainer has collected.
            filepath: Of the file or folder.
            storage_options: None are known.
        """
        if not self._in_parts:
            super().save_checkpoint(checkpoint, filepath, storage_options)
            return
        assert isinstance(self.checkpoint_io, AtomicCheckpointIO)
        self.checkpoint_io.save_parts(checkpoint, filepath)

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; of one in parts, tensors stay on the disk until a part is taken.

        Args:
            checkpoint_path: Of the file or folder.
            weights_only: Without effect: nothing else is ever read.
        """
        assert isinstance(self.checkpoint_io, AtomicCheckpointIO)
        return self.checkpoint_io.open_checkpoint(checkpoint_path)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take this process's part of the whole weights of a checkpoint.

        Args:
            checkpoint: What `load_checkpoint` returned.
            strict: All names must be there, which they always must.
        """
        load_whole(self._module, checkpoint["state_dict"])

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's part of the whole states of a checkpoint.

        Args:
            checkpoint: What `load_checkpoint` returned.
        """
        for optimizer, whole in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            divided = {
                key: {name: _part(value, parameters[key]) for name, value in values.items()}
                for key, values in whole["state"].items()
            }
            optimizer.load_state_dict({**whole, "state": divided})

    @property
    def _module(self) -> TrainingModule:
        assert isinstance(self.lightning_module, TrainingModule)
        return self.lightning_module

    def _gather(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        whole: dict[str, Any] = {}
        for name, value in tensors.items():  # one after the other, and all processes in this order
            tensor = full(value)
            if self.is_global_zero:
                whole[name] = tensor.cpu() if isinstance(tensor, Tensor) else tensor
        return whole


def _part(value: Any, parameter: torch.nn.Parameter) -> Any:
    is_divided = isinstance(value, Tensor | Scattered) and len(value.shape)
    return like(value, parameter) if is_divided else value

"""Whether an optimiser step may be made: all ranks decide together, and undo it together."""

from typing import NamedTuple

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class Verdict(NamedTuple):
    """What all ranks know of a step before it is made."""

    gradient_norm: Tensor  # scalar, over all ranks and before clipping
    gradient_is_finite: bool
    losses_are_finite: bool  # of all batches of the step, on all ranks


class StepGuard:
    """Watches the losses of a step, and remembers what a forward pass may change.

    Buffers, as batch statistics, queues or a teacher's centre, are updated in the forward pass.
    They are set back when a step is left out, so that what is not finite stays nowhere.
    """

    def __init__(self, model: nn.Module) -> None:
        """Sets the guard up.

        Args:
            model: The objective whose steps are watched.
        """
        self._model = model
        self._losses: list[Tensor] = []
        self._before: dict[str, Tensor] = {}  # buffers at the start of the step

    @property
    def losses(self) -> list[Tensor]:
        """The losses of this step's batches so far on this rank, without their graph."""
        return self._losses

    @torch.no_grad()
    def begin(self) -> None:
        """Starts a step: forgets the losses of the last, and copies the buffers.

        All of them: batch normalisation updates its statistics behind torch's count of versions.
        """
        self._losses = []
        for name, buffer in self._model.named_buffers():
            before = self._before.get(name)
            if before is not None and before.shape == buffer.shape:
                before.copy_(buffer)
            else:
                self._before[name] = buffer.clone()

    def watch(self, loss: Tensor) -> None:
        """Adds the loss of a batch; nothing waits for the device here."""
        self._losses.append(loss.detach().float())

    def judge(self, gradient_norm: Tensor) -> Verdict:
        """Returns what all ranks together find; they wait for each other here.

        Args:
            gradient_norm: Norm of the whole gradient, on every rank.
        """
        norm = gradient_norm.full_tensor() if isinstance(gradient_norm, DTensor) else gradient_norm
        losses = sum(self._losses, torch.zeros((), device=norm.device))
        finite = torch.stack([norm, losses]).isfinite().float()
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            torch.distributed.all_reduce(finite, torch.distributed.ReduceOp.MIN)
        gradient, loss = finite.tolist()
        return Verdict(norm, bool(gradient), bool(loss))

    @torch.no_grad()
    def undo_forward(self) -> None:
        """Sets every buffer back to what it was when the step began."""
        for name, buffer in self._model.named_buffers():
            buffer.copy_(self._before[name])


def leave_out(optimizer: torch.optim.Optimizer) -> None:
    """Takes the gradients away: an optimiser without them changes neither weights nor state."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None

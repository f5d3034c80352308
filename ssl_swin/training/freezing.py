"""A backbone that stays as it is for a while, so that new heads around it learn first."""

from torch import nn

from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.objectives.base import Objective, Progress


class Freeze:
    """Keeps a backbone as it is in the first epochs of a run.

    Until then every encoder of the objective, a momentum teacher's too, is in eval mode: no path is
    dropped, and batch statistics stay. The optimiser sees no gradient of the backbone: no weight
    decay, no moments, no share in the norm that is clipped. All is a function of the step, so that
    a run that continues does the same.

    Attributes:
        num_epochs: How long.
        is_on: Whether it holds in the current step.
    """

    def __init__(self, model: Objective, num_epochs: float) -> None:
        """Take note of how long.

        Args:
            model: What is trained.
            num_epochs: From the start of the run, at 0 or above.

        Raises:
            UserError: If nothing would be trained meanwhile.
        """
        own = {id(parameter) for parameter in model.encoder.parameters()}
        others = (p for p in model.parameters() if p.requires_grad and id(p) not in own)
        if next(others, None) is None:
            raise UserError(
                f"freeze_backbone_epochs={num_epochs:g} leaves nothing to train: {model.title} has "
                "no weights besides the backbone's"
            )
        self.num_epochs = num_epochs
        self.is_on = False
        self._without_gradient: list[nn.Parameter] = []

    def num_steps(self, steps_per_epoch: int) -> int:
        """Return how many optimiser steps it holds for."""
        return round(self.num_epochs * steps_per_epoch)

    def begin(self, model: Objective, progress: Progress, *, is_alone: bool) -> None:
        """Hold the backbone in this step, or let it go.

        Args:
            model: What is trained.
            progress: Before the step.
            is_alone: Whether no other device waits for gradients of the backbone; then none is
                computed.
        """
        self.is_on = progress.step < self.num_steps(progress.steps_per_epoch)
        for part in model.modules():
            if isinstance(part, Encoder):
                part.train(not self.is_on)
        if self.is_on and is_alone and not self._without_gradient:
            self._without_gradient = [p for p in model.encoder.parameters() if p.requires_grad]
        for parameter in self._without_gradient:
            parameter.requires_grad_(not self.is_on)

    def after_backward(self, model: Objective) -> None:
        """Take away the gradients of a backbone that is held."""
        if self.is_on:
            for parameter in model.encoder.parameters():
                parameter.grad = None

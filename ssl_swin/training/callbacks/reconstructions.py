"""What the model makes of the same held-out images while it learns."""

from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from ssl_swin.figure import Figure
from ssl_swin.runs.metrics import RECONSTRUCTIONS
from ssl_swin.training.callbacks.held_out_figures import HeldOutFigures
from ssl_swin.training.module import TrainingModule

say = rank_zero_only(print)


class Reconstructions(HeldOutFigures):
    """Draws the figure of the objective or the task; see `HeldOutFigures`."""

    key = RECONSTRUCTIONS

    _has_told = False

    def figure_of(self, module: TrainingModule, batch: Any) -> Figure:
        """Return the model's own figure; where it has none, say so once."""
        figure = module.model.figure(batch, module.normalized)
        if not figure and not self._has_told:
            say(f"note: {module.model.title} has nothing to draw: no {self.folder.name}")
            self._has_told = True
        return figure

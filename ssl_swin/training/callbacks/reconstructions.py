"""What the model makes of the same held-out images while it learns."""

from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from ssl_swin.arguments import PathName, Positive, checked
from ssl_swin.figure import Figure
from ssl_swin.runs.metrics import RECONSTRUCTIONS
from ssl_swin.training.callbacks.held_out_figures import HeldOutFigures, ShownBands
from ssl_swin.training.module import TrainingModule

say = rank_zero_only(print)


class Reconstructions(HeldOutFigures):
    """Draws the figure of the objective or the task; see `HeldOutFigures`."""

    key = RECONSTRUCTIONS

    @checked
    def __init__(
        self,
        folder: PathName,
        *,
        every_n_steps: Positive,
        num_images: Positive,
        bands: ShownBands = None,
        animate: bool = False,
    ) -> None:
        """Sets the callback up.

        Args:
            folder: Folder for `step_*.png`.
            every_n_steps: Optimiser steps between pictures.
            num_images: Rows of a picture.
            bands: Channels drawn as red, green and blue, or one drawn grey, or a list of such
                groups, each of which is drawn. Other than 8-bit pixels are stretched to be seen.
            animate: Whether the pictures of the whole run become a film at its end, beside the
                folder as `FOLDER.webp`.
        """
        super().__init__(
            folder,
            every_n_steps=every_n_steps,
            num_images=num_images,
            bands=bands,
            animate=animate,
        )
        self._has_told = False

    def figure_of(self, module: TrainingModule, batch: Any) -> Figure:
        """Return the model's own figure; where it has none, say so once."""
        figure = module.model.figure(batch, module.normalized)
        if not figure and not self._has_told:
            say(f"note: {module.model.title} has nothing to draw: no {self.folder.name}")
            self._has_told = True
        return figure

"""What the features see in the same held-out images while the model learns."""

from collections.abc import Sequence
from typing import Annotated, Any

from annotated_types import Len

from ssl_swin.arguments import PathName, Positive, RateBelow1, checked
from ssl_swin.figure import Figure
from ssl_swin.probing.feature_maps import feature_figure
from ssl_swin.runs.metrics import FEATURES
from ssl_swin.training.callbacks.held_out_figures import HeldOutFigures, ShownBands
from ssl_swin.training.module import TrainingModule


class FeaturePictures(HeldOutFigures):
    """Draws the feature map of each stage as colours, and how alike its cells are to one of them.

    Colours are the principal components of the cells of all images that are drawn, see
    `ssl_swin.probing.feature_maps`; see also `HeldOutFigures`.
    """

    key = FEATURES

    @checked
    def __init__(
        self,
        folder: PathName,
        *,
        every_n_steps: Positive,
        num_images: Positive,
        query: Annotated[Sequence[RateBelow1], Len(2, 2)] = (0.5, 0.5),
        bands: ShownBands = None,
        animate: bool = False,
    ) -> None:
        """Sets the callback up.

        Args:
            folder: Folder for `step_*.png`.
            every_n_steps: Optimiser steps between pictures.
            num_images: Rows of a picture.
            query: Place of the cell that the others are compared to, as shares of the height and
                the width of the image.
            bands: As of `Reconstructions`.
            animate: As of `Reconstructions`.
        """
        super().__init__(
            folder,
            every_n_steps=every_n_steps,
            num_images=num_images,
            bands=bands,
            animate=animate,
        )
        self.query = (float(query[0]), float(query[1]))

    def figure_of(self, module: TrainingModule, batch: Any) -> Figure:
        """Return the input and the maps of all stages."""
        images = module.normalized(batch.pixels)
        return feature_figure(images, module.model.encoder.stages(images), self.query)

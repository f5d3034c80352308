"""What a task tells of the same held-out images while it learns."""

from ssl_swin.runs.metrics import PREDICTIONS
from ssl_swin.training.callbacks.reconstructions import Reconstructions


class Predictions(Reconstructions):
    """Draws the figure of a task whose answers can be drawn; see `HeldOutFigures`."""

    key = PREDICTIONS

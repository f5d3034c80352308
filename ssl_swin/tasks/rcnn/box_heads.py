"""The stages of the two recipes, and their box heads.

Reference: `convfc_bbox_head.py` of the detection code that Swin's is built on, and its initial
weights. On several devices, batch norms are to be synchronised.
"""

from typing import NamedTuple

from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, TwoMLPHead

BOX_SIDE = 7  # cells on a side that a box is cut into
NUM_CONVS = 4
CLASS_STD, CODE_STD = 0.01, 0.001  # of the last layers' weights at the start


class Stage(NamedTuple):
    """A pass over boxes that are believed to be this good."""

    iou: float  # from which on a box stands for an object
    deviations: tuple[float, float, float, float]  # of codes, as x, y, width and height
    weight: float  # of its losses
    best_match: bool  # whether an object's best box stands for it, too


MASK_RCNN_STAGES = (Stage(0.5, (0.1, 0.1, 0.2, 0.2), 1.0, best_match=True),)
CASCADE_STAGES = (
    Stage(0.5, (0.1, 0.1, 0.2, 0.2), 1.0, best_match=False),
    Stage(0.6, (0.05, 0.05, 0.1, 0.1), 0.5, best_match=False),
    Stage(0.7, (0.033, 0.033, 0.067, 0.067), 0.25, best_match=False),
)


class BoxHead(nn.Module):
    """Tells the class of a box and, for each class, where the object is.

    Attributes:
        layers: Two linear layers, or four convolutions with batch norms and a linear layer.
        classes: A score for each class, and last for the background.
        codes: How the box is to be moved, for each class.
    """

    def __init__(
        self, channels: int, *, head_channels: int, num_classes: int, with_convs: bool
    ) -> None:
        """Draw the weights.

        Args:
            channels: Width of the maps.
            head_channels: Width of the linear layers.
            num_classes: Number of classes.
            with_convs: Whether convolutions come first, as in the Cascade.
        """
        super().__init__()
        if with_convs:
            size, widths = (channels, BOX_SIDE, BOX_SIDE), [channels] * NUM_CONVS
            self.layers = FastRCNNConvFCHead(size, widths, [head_channels], nn.BatchNorm2d)
        else:
            self.layers = TwoMLPHead(channels * BOX_SIDE**2, head_channels)
        for layer in self.layers.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.classes = nn.Linear(head_channels, num_classes + 1)
        self.codes = nn.Linear(head_channels, num_classes * 4)
        for last, std in ((self.classes, CLASS_STD), (self.codes, CODE_STD)):
            nn.init.normal_(last.weight, std=std)
            nn.init.zeros_(last.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Look at boxes (R, C, 7, 7).

        Returns:
            Scores (R, classes + 1), and codes (R, classes, 4), both float32.
        """
        features = self.layers(pooled)
        codes = self.codes(features).float().unflatten(1, (-1, 4))
        return self.classes(features).float(), codes

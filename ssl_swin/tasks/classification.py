"""A classifier on an encoder, for fine-tuning."""

import torch
from torch import Tensor, nn

from ssl_swin.encoders.encoder import Encoder


class Classifier(nn.Module):
    """Mean over the last map's tokens, for a ViT then a norm, and one linear layer.

    `encoder` is what `for_finetuning` makes of the given one: of a pretrained ViT another module.
    """

    def __init__(self, encoder: Encoder, *, num_classes: int) -> None:
        """Puts a fresh head on the encoder: bias 0, weights N(0, 0.02^2), for a ViT a thousandth.

        Args:
            encoder: Pretrained, or with random weights.
            num_classes: Number of scores.
        """
        super().__init__()
        self.encoder = encoder.for_finetuning()
        self.head = nn.Linear(encoder.num_features, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        with torch.no_grad():
            self.head.weight.mul_(encoder.head_init_scale)

    def forward(self, images: Tensor) -> Tensor:
        """Gives class scores (B, num_classes) for normalised images (B, C, H, W)."""
        scores: Tensor = self.head(self.encoder.pool(self.encoder(images)))
        return scores

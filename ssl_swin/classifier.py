"""A classifier on an encoder, for fine-tuning (L1)."""

from torch import Tensor, nn

from ssl_swin.encoders import SwinEncoder


class Classifier(nn.Module):
    """Mean over the last map's tokens, then one linear layer, as in the Swin recipe."""

    def __init__(self, encoder: SwinEncoder, *, num_classes: int) -> None:
        """Puts a fresh head, weights N(0, 0.02^2) and bias 0, on the encoder."""
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.num_features, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Gives class scores (B, num_classes) for normalised images (B, C, H, W)."""
        scores: Tensor = self.head(self.encoder(images).mean(dim=(2, 3)))
        return scores

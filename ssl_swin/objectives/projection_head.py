"""The head of DINO and iBOT: features to similarities with prototypes.

Reference: DINO (arXiv:2104.14294), section "Network architecture".
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """Three layers, a projection onto the unit sphere, and a comparison with prototypes.

    The comparison is a linear layer without bias whose weights are normed: each prototype is a
    direction, and, if it has one, a trained length. It is computed in float32.

    Attributes:
        prototypes: Directions (K, D), of any length.
        gain: Lengths (K, 1), 1 at the start; None where all stay 1.
    """

    def __init__(
        self,
        in_dim: int,
        *,
        hidden_dim: int,
        bottleneck_dim: int,
        num_prototypes: int,
        unit_prototypes: bool,
    ) -> None:
        """Build the head.

        Args:
            in_dim: Width of the features.
            hidden_dim: Width of the two hidden layers.
            bottleneck_dim: D, width of what is compared.
            num_prototypes: K.
            unit_prototypes: Whether prototypes keep the length 1.
        """
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(in_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, bottleneck_dim),
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = nn.Parameter(torch.empty(num_prototypes, bottleneck_dim))
        nn.init.uniform_(self.prototypes, -(bottleneck_dim**-0.5), bottleneck_dim**-0.5)
        self.gain = None if unit_prototypes else nn.Parameter(torch.ones(num_prototypes, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Turn features (..., in_dim) into scores (..., K), float32."""
        return self.compare(self.project(features))

    def project(self, features: Tensor) -> Tensor:
        """Turn features (..., in_dim) into unit vectors (..., D), float32."""
        projected = self.mlp(features)
        with torch.autocast(features.device.type, enabled=False):
            return F.normalize(projected.float(), dim=-1)

    def compare(self, projected: Tensor) -> Tensor:
        """Turn vectors (..., D) into scores (..., K); the mean of vectors gives that of scores."""
        with torch.autocast(projected.device.type, enabled=False):
            weight = F.normalize(self.prototypes.float(), dim=1)
            if self.gain is not None:
                weight = weight * self.gain.float()
            return F.linear(projected.float(), weight)

    def freeze_prototypes(self) -> None:
        """Take the gradients of the prototypes away, so that no step changes them."""
        self.prototypes.grad = None
        if self.gain is not None:
            self.gain.grad = None

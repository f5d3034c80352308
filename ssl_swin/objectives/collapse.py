"""Signs of collapse that objectives log of their own features."""

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def unit_spread(rows: Tensor) -> Tensor:
    """Deviation of each channel of rows (B, C), scaled to length 1, times the root of C.

    About 1 where rows are told apart, and 0 where all are alike; see `Output`.
    """
    with torch.autocast(rows.device.type, enabled=False):
        units = F.normalize(rows.float(), dim=1)
        spread: Tensor = units.std(dim=0, correction=0).mean() * rows.shape[1] ** 0.5
        return spread

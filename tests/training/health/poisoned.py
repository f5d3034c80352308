"""What one image makes nan, by name so that a replay finds it again; and what is never finite."""

from torch import Tensor, nn

from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.tasks.classification import Classification

POISON = "000007"


class Fault(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.on = False

    def forward(self, loss: Tensor) -> Tensor:
        return loss * float("nan") if self.on else loss


class Poisoned(SimMIM):
    """Nan where an image with such a name is in the batch."""

    def __init__(self, encoder, **settings) -> None:
        super().__init__(encoder, **settings)
        self.fault = Fault()

    def forward(self, batch, normalize):
        self.fault.on = any(POISON in name for name in batch.names)
        return super().forward(batch, normalize)

    def reconstruct(self, images, mask, plan=None):
        found = super().reconstruct(images, mask, plan)
        return found._replace(loss=self.fault(found.loss))


class Unbounded(Classification):
    """An infinite loss in training whose gradient is finite, so that it can be compared."""

    def forward(self, batch, normalize):
        output = super().forward(batch, normalize)
        return output._replace(loss=output.loss + (float("inf") if self.training else 0.0))

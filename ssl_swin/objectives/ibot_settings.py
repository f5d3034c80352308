"""What iBOT's settings say together: weights of its terms, temperatures along a run, refusals."""

from typing import NamedTuple

from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.visible import VisibleEncoder
from ssl_swin.errors import UserError
from ssl_swin.objectives.base import Progress
from ssl_swin.objectives.masked_views import MaskDraw


class Weights(NamedTuple):
    """Weights of the terms of the loss."""

    image: float
    cell: float
    region: float
    pixel: float

    def check(self, draw: MaskDraw) -> None:
        """Refuse weights with which nothing is learnt.

        Args:
            draw: How much is masked.

        Raises:
            UserError: If all are 0, or pixels are to be predicted of what is never masked.
        """
        if not any(self):
            names = ", ".join(f"objective.{name}_weight" for name in self._fields)
            raise UserError(f"{names} are all 0, so that there is nothing to learn: raise one")
        if self.pixel and not draw.probability:
            raise UserError(
                f"objective.pixel_weight={self.pixel:g} predicts masked pixels, and "
                "objective.mask_probability=0 masks none: raise it, or set objective.pixel_weight=0"
            )


class Temperature(NamedTuple):
    """What a teacher's scores are divided by: it changes in equal steps, then stays."""

    start: float
    end: float
    warmup_epochs: float

    def at(self, progress: Progress, *, from_epoch: float = 0.0) -> float:
        """Return the temperature of a step.

        Args:
            progress: Where the run is.
            from_epoch: Epochs before the temperature begins to change.
        """
        epochs = progress.step / progress.steps_per_epoch - from_epoch
        if epochs >= self.warmup_epochs:
            return self.end
        return self.start + (self.end - self.start) * max(0.0, epochs) / self.warmup_epochs


def check_sparse(
    encoder: Encoder, draw: MaskDraw, mask_from_epoch: float, region_weight: float
) -> VisibleEncoder:
    """Return the encoder as one that can leave patches out.

    Args:
        encoder: The student's.
        draw: How much is masked.
        mask_from_epoch: Epochs before masks begin.
        region_weight: Weight of the region term.

    Raises:
        UserError: If it cannot, or the settings do not fit a sparse student.
    """
    if not isinstance(encoder, VisibleEncoder):
        raise UserError(
            f"objective.sparse=true needs an encoder that can leave out masked patches, got a "
            f"{encoder.title}; objective=ibot takes every encoder"
        )
    lowest, highest = draw.ratio
    if lowest != highest or draw.probability != 1:
        raise UserError(
            "objective.sparse=true masks as many patches of every view: set objective.mask_ratio "
            f"to one number and objective.mask_probability=1, got [{lowest:g}, {highest:g}] and "
            f"{draw.probability:g}"
        )
    if draw.shape != "patches":
        raise UserError(
            "objective.sparse=true masks as many patches of every view, which "
            f"objective.mask_shape={draw.shape} does not: set it to patches, or choose "
            "objective=ibot"
        )
    if mask_from_epoch or region_weight:
        name, value = (
            ("mask_from_epoch", mask_from_epoch)
            if mask_from_epoch
            else ("region_weight", region_weight)
        )
        raise UserError(
            f"objective.sparse=true computes visible patches alone, in every step, and so takes no "
            f"objective.{name}={value:g}: set it to 0, or choose objective=ibot"
        )
    return encoder

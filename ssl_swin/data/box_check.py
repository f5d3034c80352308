"""Whether the boxes of a sample fit: their form, their classes and their places."""

import torch
from torch import Tensor

from ssl_swin.data.box_lists import decode_boxes
from ssl_swin.data.encoded import EncodedSample

SLACK_PX = 1.0  # that a box may reach beyond its image, as rounding and counts from 1 leave it
SMALLEST_PX = 1.0  # side of a box that training takes
MOST_SHOWN = 3  # boxes in a message


def wrong_boxes(
    encoded: EncodedSample,
    size_px: tuple[int, int],
    num_classes: int | None,
    *,
    with_masks: bool = True,
) -> str:
    """Return which boxes of a sample have a class that there is not; "" for none.

    Args:
        encoded: The sample, with its member `boxes`.
        size_px: Height and width of its image.
        num_classes: Number of classes; None where it is not known.
        with_masks: Whether to decode the masks of the objects.

    Raises:
        UserError: If they are of another form, or a mask is of another size than the image.
    """
    found = decode_boxes(encoded, size_px, with_masks=with_masks)
    if num_classes is None:
        return ""
    labels = sorted({label for label in found.labels.tolist() if label >= num_classes})
    if not labels:
        return ""
    several = "es" if len(labels) > 1 else ""
    return (
        f"the boxes of {encoded.name} have the class{several} "
        f"{', '.join(map(str, labels[:MOST_SHOWN]))}, and there are {num_classes}, from 0"
    )


def useless_boxes(encoded: EncodedSample, size_px: tuple[int, int]) -> str:
    """Return which boxes of a sample are below 1 px or leave the image; "" for none.

    Args:
        encoded: The sample, with its member `boxes`.
        size_px: Height and width of its image.

    Raises:
        UserError: If they are of another form.
    """
    boxes = decode_boxes(encoded, size_px, with_masks=False).boxes
    height_px, width_px = size_px
    sides = boxes[:, 2:] - boxes[:, :2]
    limits = torch.tensor([width_px, height_px], dtype=torch.float32)
    is_outside = (boxes[:, :2] < -SLACK_PX).any(1) | (boxes[:, 2:] > limits + SLACK_PX).any(1)
    problems = [
        _named(boxes, (sides < SMALLEST_PX).any(1), "has a side below 1 px"),
        _named(boxes, is_outside, f"leaves the image of {width_px} x {height_px} px"),
    ]
    told = "; ".join(filter(None, problems))
    return f"of the boxes of {encoded.name} {told}" if told else ""


def _named(boxes: Tensor, chosen: Tensor, what: str) -> str:
    """Return the first of some boxes by number and corners, with what is wrong with them."""
    numbers = chosen.nonzero().flatten().tolist()
    if not numbers:
        return ""
    first = numbers[0]
    corners = ", ".join(f"{value:g}" for value in boxes[first].tolist())
    more = f", and {len(numbers) - 1} more" if len(numbers) > 1 else ""
    return f"number {first} ({corners}) {what}{more}"

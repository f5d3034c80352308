"""What class scores are worth, and labels that they can be judged by."""

from torch import Tensor

from ssl_swin.errors import UserError


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Returns the percentage of scores (N, num_classes) with their maximum at the label (N,).

    Rows that are not finite, as of a head that diverged, count as wrong.
    """
    right = (scores.argmax(dim=1) == labels.to(scores.device)) & scores.isfinite().all(dim=1)
    return 100 * right.double().mean().item()


def standard_error(top1_percent: float, num_images: int) -> float:
    """Returns the standard error of an accuracy, in percent: that of drawing the images alone.

    Args:
        top1_percent: The accuracy.
        num_images: On how many images it was measured.
    """
    share = top1_percent / 100
    return 100 * float((share * (1 - share) / num_images) ** 0.5)


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Refuses labels that are not classes.

    Raises:
        UserError: If a label lies outside [0, num_classes).
    """
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if len(outside):
        raise UserError(
            f"label {outside[0].item()} is not a class: num_classes is {num_classes}, "
            f"so labels lie in [0, {num_classes - 1}]"
        )

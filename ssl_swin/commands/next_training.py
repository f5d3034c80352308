"""Which training to propose for images: by what lies beside them."""

from collections.abc import Collection, Sequence

RANDOM_WEIGHTS = ("backbone=none", "model=swin_t")


def training_line(
    data: Sequence[str],
    members: Collection[str],
    *,
    holds_out: bool,
    of_masks: Sequence[str],
    options: Sequence[str] = (),
    num_train: int,
) -> str:
    """Return the command that trains on images.

    Segmentation and detection take a backbone, which may be pretrained; and they measure on
    held-out images, without which pretraining is proposed.

    Args:
        data: Overrides that name the data.
        members: Names of the members of its samples.
        holds_out: Whether there are held-out images.
        of_masks: Overrides that segmentation needs besides, on masks and their classes.
        options: What comes before overrides, see `options_of_user_files`.
        num_train: Number of training images.
    """
    from ssl_swin.data.box_lists import BOXES
    from ssl_swin.data.encoded import MASK
    from ssl_swin.launch.next_command import job_line

    if not holds_out or not {MASK, BOXES} & {*members}:
        return job_line("pretrain", data, options, num_train=num_train)
    hint = "backbone=RUN takes a pretrained one"
    if BOXES in members:
        line = job_line("detect", [*RANDOM_WEIGHTS, *data], options, num_train=num_train)
        return f"{line}  # {hint}"
    overrides = [*RANDOM_WEIGHTS, *data, *of_masks]
    if "classes=NAMES" in of_masks:
        hint += "; NAMES are as [background,nucleus], or their number"
    line = job_line("segment", overrides, options, num_train=num_train)
    return f"{line}  # {hint}"

"""What a run computes with and does not keep: whether it is still what it was at the checkpoint."""

from collections.abc import Mapping
from typing import Any

from ssl_swin.errors import UserError

OUTSIDE = "outside"  # in a checkpoint: digests, as `Objective.outside` returns them


def check_outside(checkpoint: Mapping[str, Any], now: Mapping[str, str]) -> None:
    """Refuse to go on with something else than before.

    Args:
        checkpoint: Of the run.
        now: What `Objective.outside` returns now.

    Raises:
        UserError: If a digest has changed, naming the setting.
    """
    before = checkpoint.get(OUTSIDE, {})
    for name, digest in now.items():
        if before.get(name, digest) != digest:
            raise UserError(
                f"objective.{name} is not what this run was trained with: its weights had the "
                f"digest {before[name]} at the checkpoint, and have {digest} now. Give the old "
                f"ones, as objective.{name}=PLACE if they have moved, or start a new run with "
                "another name="
            )

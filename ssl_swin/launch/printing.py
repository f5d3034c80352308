"""What a run prints, once for all its processes."""

from lightning.pytorch.utilities import rank_zero_only


@rank_zero_only
def say(text: str) -> None:
    """Print on the first process only."""
    print(text, flush=True)


def is_first_process() -> bool:
    """Return False in the other processes of a distributed run."""
    return getattr(rank_zero_only, "rank", 0) == 0

"""Listing names in a message."""

from collections.abc import Sequence

_MAX_NAMES_SHOWN = 4


def enumerate_names(names: Sequence[str]) -> str:
    """Lists the first few names."""
    shown, rest = names[:_MAX_NAMES_SHOWN], len(names) - _MAX_NAMES_SHOWN
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")

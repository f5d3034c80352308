"""Settings by their names on a command line."""

from collections.abc import Mapping
from typing import Any


def by_dotted_name(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by dotted name.

    Args:
        tree: The mappings.
        prefix: What the names begin with, with its dot.
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= by_dotted_name(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat

"""A short digest by which a data set is recognised."""

import hashlib
import os
from collections.abc import Iterable


def fingerprint(names: Iterable[str], content: bytes = b"") -> str:
    """Return 16 hex digits that change when the names or the content do.

    Args:
        names: Names that identify the data, in order.
        content: Further bytes to cover, such as a list of byte ranges.
    """
    header = b"\0".join(os.fsencode(name) for name in names)
    return hashlib.sha256(header + b"\0\0" + content).hexdigest()[:16]

"""The settings of a cache of shards, checked before anything is fetched."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ssl_swin.errors import UserError

_BYTES_PER_GB = 10**9


@dataclass(frozen=True)
class CacheOptions:
    """The group `data.cache`.

    Attributes:
        dir: Folder of the cache, on this node's own disk.
        limit_gb: Capacity of the cache, in 10^9 bytes.
        num_tries: Number of tries of a transfer.
        first_wait_s: Wait before the second try; it doubles before each further one.

    Raises:
        UserError: If one is of another type, or out of its range.
    """

    dir: str
    limit_gb: float
    num_tries: int
    first_wait_s: float

    def __post_init__(self) -> None:
        if not isinstance(self.dir, str) or not self.dir.strip():
            raise UserError(f"data.cache.dir must be the path of a folder, got {self.dir!r}")
        if not _is_number(self.limit_gb) or self.limit_bytes < 1:
            raise UserError(
                "data.cache.limit_gb must be a number above 0, in 10^9 bytes, got "
                f"{self.limit_gb!r}; it must hold two shards of each of data.order.lanes"
            )
        if not isinstance(self.num_tries, int) or isinstance(self.num_tries, bool | str):
            raise UserError(f"data.cache.num_tries must be a whole number, got {self.num_tries!r}")
        if self.num_tries < 1:
            raise UserError(f"data.cache.num_tries must be at least 1, got {self.num_tries}")
        if not _is_number(self.first_wait_s) or self.first_wait_s < 0:
            raise UserError(
                "data.cache.first_wait_s must be a number of seconds, at least 0, got "
                f"{self.first_wait_s!r}"
            )

    @property
    def limit_bytes(self) -> int:
        """Capacity of the cache."""
        return int(self.limit_gb * _BYTES_PER_GB)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "CacheOptions":
        """Make the options of a group of settings.

        Raises:
            UserError: If one is missing, unknown or wrong.
        """
        known = [field.name for field in fields(cls)]
        for name in settings:
            if name not in known:
                raise UserError(f"there is no setting data.cache.{name}, only {', '.join(known)}")
        for name in known:
            if name not in settings:
                raise UserError(f"data.cache.{name} is not set: give it as data.cache.{name}=VALUE")
        return cls(**settings)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

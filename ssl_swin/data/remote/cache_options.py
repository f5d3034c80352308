"""The settings of a cache of shards, checked before anything is fetched."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

from annotated_types import Ge

from ssl_swin.arguments import Name, NonNegative, Positive, checked
from ssl_swin.errors import UserError

_BYTES_PER_GB = 10**9


@checked
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

    dir: Name
    limit_gb: Annotated[float, Ge(1 / _BYTES_PER_GB)]
    num_tries: Positive
    first_wait_s: NonNegative

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

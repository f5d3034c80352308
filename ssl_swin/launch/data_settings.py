"""Settings of the group `data` for commands that have no configuration: the packaged values."""

from importlib import resources
from typing import Any

from omegaconf import OmegaConf

from ssl_swin.launch.config_files import PACKAGE


def remote_cache() -> dict[str, Any]:
    """Return `data.cache` of data=remote: the other arguments of `open_remote`."""
    cache: dict[str, Any] = OmegaConf.to_container(_packaged("remote").cache)  # type: ignore[assignment]
    return cache


def most_bad(num_images: int) -> int:
    """Return how many images may be unreadable by `data.max_bad_samples` and `max_bad_ratio`.

    Args:
        num_images: Number of images of the set.
    """
    data = _packaged("shards")
    return int(data.max_bad_samples + data.max_bad_ratio * num_images)


def _packaged(name: str) -> Any:
    return OmegaConf.create((resources.files(PACKAGE) / "data" / f"{name}.yaml").read_text())

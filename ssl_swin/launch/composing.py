"""The configuration of a job as a user asks for it, or a UserError for what is wrong in it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ssl_swin.errors import UserError
from ssl_swin.launch.config_files import compose_job
from ssl_swin.launch.overrides import readable
from ssl_swin.launch.resolvers import register_resolvers
from ssl_swin.launch.user_errors import only_user_errors


def composed_for_user(
    job: str, overrides: Sequence[str], *, config_dir: Path | None = None
) -> DictConfig:
    """Return the configuration that overrides compose.

    Args:
        job: Name of the job.
        overrides: Settings as people type them.
        config_dir: Another folder of the user, as named by `--config-dir`.

    Raises:
        UserError: If they do not compose, or a value is missing or cannot be worked out.
    """
    if config_dir is not None and not isinstance(config_dir, str | Path):
        raise UserError(f"config_dir must be a path, got {config_dir!r}")
    folder = None if config_dir is None else Path(config_dir)
    options = [*([] if folder is None else [f"--config-dir={folder}"]), *overrides]
    register_resolvers()
    with only_user_errors(job, options):
        cfg = compose_job(job, readable(job, overrides), config_dir=folder)
        plain_settings(cfg)
    return cfg


def plain_settings(cfg: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain values, all of them worked out.

    Raises:
        OmegaConfBaseException: If one is missing, or refers to what is not there.
    """
    settings = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(settings, dict)
    return {str(key): value for key, value in settings.items()}

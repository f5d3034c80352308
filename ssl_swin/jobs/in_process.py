"""The jobs as functions of Python: configuration, checks and code of the command line."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssl_swin.errors import UserError
from ssl_swin.launch.config_files import compose_job
from ssl_swin.launch.overrides import readable
from ssl_swin.launch.resolvers import register_resolvers
from ssl_swin.launch.suggestions import explain_composition_error, is_null_group
from ssl_swin.launch.threads import threads_for_this_machine


def pretrain(overrides: Sequence[str] = (), *, config_dir: Path | None = None) -> Path:
    """Pretrain a backbone.

    Args:
        overrides: Settings as on the command line, as ["model=swin_t", "data=shards"].
        config_dir: Folder with configuration files of your own.

    Returns:
        The run's folder; `load_backbone` takes it.

    Raises:
        UserError: If a setting is wrong, naming it and the way out.
    """
    return _run("pretrain", overrides, config_dir)


def finetune(overrides: Sequence[str] = (), *, config_dir: Path | None = None) -> Path:
    """Fine-tune a backbone on labels; see `pretrain`."""
    return _run("finetune", overrides, config_dir)


def linear_probe(overrides: Sequence[str] = (), *, config_dir: Path | None = None) -> Path:
    """Probe frozen features with linear heads and nearest neighbours; see `pretrain`."""
    return _run("linear_probe", overrides, config_dir)


def _run(job: str, overrides: Sequence[str], config_dir: Path | None) -> Path:
    with threads_for_this_machine():
        cfg = _composed(job, overrides, config_dir)
        importlib.import_module(f"ssl_swin.jobs.{job}").main(cfg)
    return Path(cfg.run_dir)


def _composed(job: str, overrides: Sequence[str], config_dir: Path | None) -> DictConfig:
    register_resolvers()
    try:
        cfg = compose_job(job, readable(job, overrides), config_dir=config_dir)
        OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except ValueError as error:
        if not is_null_group(error):
            raise
        raise UserError(explain_composition_error(error, job, list(overrides))) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain_composition_error(error, job, list(overrides))) from error
    return cfg

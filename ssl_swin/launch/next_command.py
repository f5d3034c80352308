"""What to type next: whole commands, that run as they are printed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssl_swin.errors import UserError
from ssl_swin.launch.command_line import options_of_user_files, words_to_start
from ssl_swin.launch.config_files import compose_job
from ssl_swin.launch.resolvers import register_resolvers
from ssl_swin.quoting import override, shell_line
from ssl_swin.runs.folder import RunFolder
from ssl_swin.runs.names import check_folder, check_name, folder_name

NOT_TOLD = ("data.how_to_make",)  # words for a user, which the other job has as well


def job_line(
    job: str,
    overrides: Sequence[str],
    options: Sequence[str] = (),
    *,
    num_train: int | None = None,
) -> str:
    """Return the line that starts a job, in a folder that holds no run yet.

    Args:
        job: Name of the job, as linear_probe.
        overrides: Hydra's overrides.
        options: What comes before them, see `options_of_user_files`.
        num_train: Number of training images, which a batch must not exceed; None if that does not
            matter.
    """
    added: list[str] = []
    with composed(job, overrides, options) as cfg:
        if cfg is not None:
            if num_train is not None and cfg.batch_size > num_train:
                added.append(override("batch_size", max(1, num_train // 2 * 2)))
            if not _is_free(str(cfg.name), str(cfg.run_dir)):
                added.append(override("name", _free_name(str(cfg.name), Path(cfg.run_dir).parent)))
    return shell_line([*words_to_start(job), *options, *overrides, *added])


def data_overrides(job: str, data: Mapping[str, Any]) -> list[str]:
    """Return the overrides by which another job gets the data of the job that runs here.

    Args:
        job: Name of the other job, which takes a backbone.
        data: The group `data` of the job that runs here, resolved.
    """
    told = [override("data", HydraConfig.get().runtime.choices["data"])]
    told += [word for word in overrides_of_this_job() if word.lstrip("+~").startswith("data.")]
    with composed(job, [*told, "backbone=none"], options_of_this_job()) as cfg:
        if cfg is None:
            return told
        for key, value in _leaves(data, "data."):
            if key not in NOT_TOLD and _differs(cfg, key, value):
                told.append(override(f"++{key}", value))
    return told


def options_of_this_job() -> list[str]:
    """Return the options by which this job was told of configuration files of the user."""
    return options_of_user_files(_as_typed(HydraConfig.get().overrides.hydra))


def overrides_of_this_job() -> list[str]:
    """Return the overrides of this job as they were typed."""
    return _as_typed(HydraConfig.get().overrides.task)


def _as_typed(overrides: Any) -> list[str]:
    """Return overrides with their interpolations and escapes."""
    words: Any = OmegaConf.to_container(overrides, resolve=False)
    return [str(word) for word in words]


def _differs(cfg: DictConfig, key: str, value: Any) -> bool:
    """Return whether a setting has another value; not where it follows from one not set yet."""
    try:
        known = OmegaConf.select(cfg, key, default=None)
    except OmegaConfBaseException:
        return False
    return bool((OmegaConf.to_container(known) if OmegaConf.is_config(known) else known) != value)


@contextmanager
def composed(
    job: str, overrides: Sequence[str], options: Sequence[str] = ()
) -> Iterator[DictConfig | None]:
    """Yield the configuration of another job, None if it does not compose; then forget it.

    Args:
        job: Name of the job.
        overrides: Hydra's overrides.
        options: See `options_of_user_files`.
    """
    register_resolvers()
    hydra, of_this_job = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    folder = Path(options[1]) if options[:1] == ["--config-dir"] else None
    searched = [option for option in options if option.startswith("hydra.")]
    try:
        cfg = compose_job(job, [*searched, *overrides], config_dir=folder)
        str(cfg.run_dir)  # of which much is composed
    except (HydraException, OmegaConfBaseException, UserError):
        cfg = None
    try:
        yield cfg
    finally:
        GlobalHydra.instance().hydra = hydra
        HydraConfig.instance().cfg = of_this_job


def _is_free(name: str, run_dir: str) -> bool:
    try:
        check_name(name)
        return not RunFolder(check_folder(run_dir)).has_results()
    except UserError:
        return False


def _free_name(name: str, parent: Path) -> str:
    base = name
    try:
        check_name(f"{name}_1000")
    except UserError:
        base = folder_name(name)
    names = (f"{base}_{number}" for number in count(2))
    return next(name for name in names if not (parent / name).exists())


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

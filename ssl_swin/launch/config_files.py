"""Where configurations are found: in the package, and in folders of the user.

Imports nothing heavy, so that `--help` answers at once.
"""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, open_dict

from ssl_swin.errors import UserError
from ssl_swin.quoting import override

PACKAGE = "ssl_swin.conf"
USER_FOLDER = "conf"  # in the working directory
JOBS = ("pretrain", "finetune", "segment", "detect", "linear_probe")


class UserFolder(SearchPathPlugin):
    """Adds the folder `conf` of the working directory to Hydra's search path, if there is one."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folder, so that a file of the package comes before one of the same name."""
        folder = user_folder()
        if folder is not None:
            search_path.append("user", f"file://{folder}")


def register_user_folder() -> None:
    """Make Hydra search the user's folder; safe to call again."""
    Plugins.instance().register(UserFolder)


def user_folder() -> Path | None:
    """Return the folder `conf` of the working directory; None where it is missing.

    In a clone, `conf` is a link to the package's own folder: then it is no folder of the user.
    """
    folder = Path(USER_FOLDER).resolve()
    own = Path(str(resources.files(PACKAGE))).resolve()
    return folder if folder.is_dir() and folder != own else None


def check_config_dir(folder: str | Path) -> None:
    """Refuse a folder of configuration files that is not there, which Hydra passes over.

    Raises:
        UserError: If it is so.
    """
    if not Path(folder).is_dir():
        raise UserError(f"--config-dir: there is no folder {folder}")


def group_options(group: str) -> list[str]:
    """Return the options of a group, of the package and of the user's folder.

    Files whose names begin with "_" are bases of others and no options.
    """
    folders = [Path(str(resources.files(PACKAGE))), user_folder()]
    files = [file for folder in folders if folder for file in (folder / group).glob("[!_]*.yaml")]
    return sorted({file.stem for file in files}) if group else []


def is_of_package(group: str, option: str) -> bool:
    """Return whether an option of a group is the package's own, not the user's alone.

    Args:
        group: Name of the group.
        option: Name of its option.
    """
    return (Path(str(resources.files(PACKAGE))) / group / f"{option}.yaml").is_file()


def compose_job(
    job: str, overrides: Sequence[str], *, config_dir: Path | None = None
) -> DictConfig:
    """Return the configuration that the command line of a job composes, without Hydra's own part.

    Args:
        job: Name of the primary configuration.
        overrides: Hydra's overrides, as on the command line.
        config_dir: Another folder of the user, as named by `--config-dir`.

    Raises:
        HydraException: If the overrides do not compose.
    """
    register_user_folder()
    searched = []
    if config_dir is not None:
        check_config_dir(config_dir)
        searched = [override("hydra.searchpath", [f"file://{config_dir.resolve()}"])]
    GlobalHydra.instance().clear()
    with initialize_config_module(PACKAGE, version_base="1.3", job_name=job):
        cfg = compose(job, overrides=[*searched, *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg

"""A run: its configuration, checked, and its folder."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import seed_everything
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from ssl_swin.data.loading.protocol import Split
from ssl_swin.launch.check import check_settings
from ssl_swin.launch.config_files import group_options
from ssl_swin.launch.loggers import check_packages, check_place, id_from_agent
from ssl_swin.launch.printing import is_first_process, say
from ssl_swin.launch.quiet import quiet_libraries
from ssl_swin.launch.session import at_end_of_job
from ssl_swin.launch.settings import JobSettings, changeable
from ssl_swin.runs.folder import RunFolder
from ssl_swin.runs.lock import RunLock
from ssl_swin.runs.names import check_folder, check_name
from ssl_swin.runs.resume import Resumption, checkpoint_to_resume
from ssl_swin.runs.what_stays import telling_what_stays
from ssl_swin.stopping.watch import end_process


@dataclass(frozen=True)
class Run:
    """One run: its configuration, its folder, and where it starts from."""

    cfg: DictConfig
    config: dict[str, Any]  # resolved, plain
    folder: RunFolder
    resumption: Resumption
    started: float
    lock: RunLock

    @property
    def checkpoint(self) -> Path | None:
        """What the run continues from; None if it starts afresh."""
        return self.resumption.checkpoint

    @property
    def name(self) -> str:
        """Last part of the run's folder."""
        return self.folder.path.name


def open_run(cfg: DictConfig, description: type[JobSettings]) -> Run:
    """Check the configuration and the run's folder; nothing is written yet.

    Args:
        cfg: The whole configuration.
        description: The job's dataclass, with the type of each setting.

    Raises:
        UserError: If a setting is unknown or of another type, name or folder cannot be a run's, or
            the folder holds another run.
    """
    config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(config, dict)
    plain: dict[str, Any] = {str(key): value for key, value in config.items()}
    check_settings(plain, description)
    check_packages(plain.get("logger"))
    check_place(plain.get("logger"))
    _tell_data_overrides()
    check_name(str(cfg.name))
    folder = RunFolder(check_folder(cfg.run_dir))
    quiet_libraries()
    seed_everything(cfg.seed, verbose=False)
    lock = _lock(folder)
    resume = plain.get("resume", "auto")
    if resume == "never" and not is_first_process():
        resume = "auto"  # the first process has just created the folder
    resumption = checkpoint_to_resume(folder, resume, plain, changeable(description, plain))
    for note in resumption.notes:
        say(note)
    return Run(cfg, plain, folder, resumption, time.time(), lock)


def _lock(folder: RunFolder) -> RunLock:
    """Take the run's folder if it exists already; a new one is taken when it is created."""
    lock = RunLock(folder.path, when_lost=_end_without_folder)
    if not is_first_process():
        lock.check_same_launch()
    elif folder.path.is_dir():
        at_end_of_job(lock.release)
        with telling_what_stays(folder):
            lock.acquire(say=say)
    return lock


def _end_without_folder(problem: str) -> None:
    print(problem, file=sys.stderr, flush=True)
    end_process(1)


def _tell_data_overrides() -> None:
    """Say which settings the choice of the data changed, since they stand in another group."""
    chosen = HydraConfig.get().runtime.choices.get("data_overrides")
    if chosen in set(group_options("data_overrides")) - {"none"}:
        say(
            f"note: data_overrides={chosen} changes the recipe for this data set; "
            "data_overrides=none leaves it as it is"
        )


@rank_zero_only
def start_folder(run: Run, readers: Mapping[str, Split]) -> None:
    """Create the run's folder and record what runs on which data."""
    at_end_of_job(run.lock.release)
    run.lock.acquire(say=say)
    fingerprints = {split: reader.fingerprint for split, reader in readers.items()}
    notes = run.folder.start(
        run.config,
        {"data": fingerprints},
        resumed=run.checkpoint is not None,
        identity=run.resumption.identity or id_from_agent(),
        damaged=run.resumption.damaged,
    )
    for note in notes:
        say(note)

"""Checkpoints on disk: whole or absent, verified, and never code."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io import TorchCheckpointIO

from ssl_swin.errors import TrainingGaveUp
from ssl_swin.files import DiskError, atomic_path
from ssl_swin.runs.catalogue import Catalogue, Damaged, entry_of
from ssl_swin.runs.checkpoint_files import RUN, read_facts
from ssl_swin.runs.finite import in_short, non_finite
from ssl_swin.runs.retention import Retention, previous_name, remove_superseded
from ssl_swin.safe_pickle import load_checkpoint
from ssl_swin.training.checkpointing.writing import write_verified


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes aside, syncs, reads back, records, renames; loads without running what a file holds.

    Weights that are not finite are never written.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        identity: Callable[[], str] = lambda: "",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Sets the plugin up.

        Args:
            folder: Of the run, which must not vanish; None where there is none.
            identity: Returns the run's identity, which is written into every checkpoint.
            config: The run's resolved configuration, which is written there too.
        """
        self._folder = None if folder is None else Path(folder)
        self._identity = identity
        self._config = config
        self._place: tuple[int, int] | None = None  # device and inode of the folder
        self._retention: dict[str, Retention] = {}

    def retain(self, name: str, retention: Retention) -> None:
        """Keep previous states of a file, whoever writes it.

        Args:
            name: Of the file, as last.ckpt.
            retention: What is kept.
        """
        self._retention[name] = retention

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Writes a checkpoint, all of it or nothing.

        Raises:
            TrainingGaveUp: If it holds weights that are not finite.
            DiskError: If the disk is full, read-only or gone; earlier checkpoints stay.
        """
        file, step = Path(path), int(checkpoint.get("global_step", 0))
        _check_finite(checkpoint, step)
        catalogue = Catalogue(file.parent)
        try:
            self._check_folder()
            run = self._identity()
            content = checkpoint | {RUN: {"id": run, "config": self._config}}
            with atomic_path(file) as temporary:
                found = write_verified(content, temporary)
                self._keep_previous(catalogue, file)
                catalogue.add(entry_of(temporary, file.name, step=step, found=found, run=run))
        except DiskError as error:
            raise DiskError(f"{error}\n{_what_stays(catalogue, step)}") from error
        if file.name in self._retention:
            remove_superseded(catalogue, file.name, self._retention[file.name])

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads a checkpoint to the CPU.

        Raises:
            UserError: If it is no checkpoint, contains code, or is not what was written.
        """
        file = Path(path)
        Catalogue(file.parent).verified(file.name)
        return load_checkpoint(file)

    def problem_of(self, path: Path) -> str:
        """Returns why a checkpoint that this run wrote cannot be used; nothing if it is whole.

        Args:
            path: Of the checkpoint.
        """
        try:
            entry = Catalogue(path.parent).verified(path.name)
        except Damaged as error:
            return str(error)
        own = self._identity()
        if own and entry.run and own != entry.run:
            return f"{path} is of another run ({entry.run}, this one is {own})"
        problem = "" if entry.healthy else read_facts(path).problem
        return problem and f"{path} {problem}"

    def _keep_previous(self, catalogue: Catalogue, file: Path) -> None:
        """Give the state that a file still holds a second name, or another where that cannot be."""
        if file.name not in self._retention or not file.is_file():
            return
        known = [entry for entry in catalogue.by_step() if entry.name == file.name]
        if not known:
            return  # damaged: nothing to keep
        previous = file.with_name(previous_name(file.name, known[0].step))
        previous.unlink(missing_ok=True)
        try:
            os.link(file, previous)
        except OSError:  # a file system without links
            os.replace(file, previous)
        catalogue.add_name(file.name, previous.name)

    def _check_folder(self) -> None:
        """Notice that the run's folder was removed, instead of making it anew without its files."""
        if self._folder is None:
            return
        try:
            status = self._folder.stat()
        except OSError as error:
            raise DiskError(f"the run's folder {self._folder} is gone: removed in mid-run, or its "
                            "disk was") from error  # fmt: skip
        place = status.st_dev, status.st_ino
        self._place = self._place or place
        if place != self._place:
            raise DiskError(f"the run's folder {self._folder} is another one than it was")


def _check_finite(checkpoint: Mapping[str, Any], step: int) -> None:
    bad = non_finite(checkpoint)
    if bad:
        raise TrainingGaveUp(
            f"at step {step:,} weights or the optimiser's state are not finite ({in_short(bad)}): "
            "no checkpoint of them is written, earlier ones stay. Lower optim.base_lr, lengthen "
            "the warm-up, or use trainer.precision=bf16-mixed or 32-true"
        )


def _what_stays(catalogue: Catalogue, step: int) -> str:
    newest = next((entry for entry in catalogue.by_step() if entry.healthy), None)
    if newest is None:
        return f"stopped at step {step:,}; there is no earlier checkpoint"
    path = catalogue.folder / newest.name
    return (
        f"stopped at step {step:,}; {path} of step {newest.step:,} stays: "
        "make room or mend the disk, and the same command continues from it"
    )

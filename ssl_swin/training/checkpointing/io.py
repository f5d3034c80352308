"""Checkpoints on disk: whole or absent, verified, and never code."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io import TorchCheckpointIO

from ssl_swin.divided_checkpoint import load_state, open_state
from ssl_swin.errors import TrainingGaveUp
from ssl_swin.files import atomic_path, fsync, remove, set_aside
from ssl_swin.runs.catalogue import Catalogue, Damaged, entry_of
from ssl_swin.runs.checkpoint_files import RUN, checksum, read_facts
from ssl_swin.runs.finite import in_short, non_finite
from ssl_swin.runs.retention import Retention, previous_name, remove_superseded
from ssl_swin.training.checkpointing.dividing import bad_tensors, write_parts
from ssl_swin.training.checkpointing.writing import write_verified


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes aside, syncs, reads back, records, renames; loads without running what a file holds.

    Weights that are not finite are never written.
    """

    def __init__(
        self,
        *,
        check_place: Callable[[], None] = lambda: None,
        identity: Callable[[], str] = lambda: "",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Sets the plugin up.

        Args:
            check_place: Raises a DiskError if the run's folder has vanished, before it is made anew
                without its files.
            identity: Returns the run's identity, which is written into every checkpoint.
            config: The run's resolved configuration, which is written there too.
        """
        self._check_place = check_place
        self._identity = identity
        self._config = config
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
        _check_finite(non_finite(checkpoint), step)
        catalogue = Catalogue(file.parent)
        self._check_place()
        content, run = checkpoint | self._facts(), self._identity()
        replaced = None
        if file.is_dir():
            replaced = self._keep_previous(catalogue, file, is_folder=True)
        with atomic_path(file) as temporary:
            found = write_verified(content, temporary)
            self._keep_previous(catalogue, file)
            catalogue.add(entry_of(temporary, file.name, step=step, found=found, run=run))
        self._remove_superseded(catalogue, file.name, replaced)

    def save_parts(self, checkpoint: dict[str, Any], path: str | Path) -> None:
        """Writes a checkpoint into a folder, each process its part; all of them have to call it.

        Raises:
            TrainingGaveUp: On all processes, if one holds weights that are not finite.
            DiskError: On all processes, if one cannot write; earlier checkpoints stay.
        """
        folder, step = Path(path), int(checkpoint.get("global_step", 0))
        _check_finite(bad_tensors(checkpoint), step)
        catalogue = Catalogue(folder.parent)

        def begin() -> dict[str, Any]:
            self._check_place()
            return self._facts()

        def finish(temporary: Path) -> None:
            found = checksum(temporary)
            replaced = self._keep_previous(catalogue, folder, is_folder=True)
            run = self._identity()
            catalogue.add(entry_of(temporary, folder.name, step=step, found=found, run=run))
            os.replace(temporary, folder)
            fsync(folder.parent)
            self._remove_superseded(catalogue, folder.name, replaced)

        write_parts(checkpoint, folder, begin=begin, finish=finish)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads a checkpoint to the CPU.

        Raises:
            UserError: If it is no checkpoint, contains code, or is not what was written.
        """
        return load_state(self._verified(path))

    def open_checkpoint(self, path: str | Path) -> dict[str, Any]:
        """Reads a checkpoint whose divided tensors are read when they are wanted.

        Raises:
            UserError: If it is no checkpoint, contains code, or is not what was written.
        """
        return open_state(self._verified(path))

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

    def _verified(self, path: str | Path) -> Path:
        file = Path(path)
        Catalogue(file.parent).verified(file.name)
        return file

    def _facts(self) -> dict[str, Any]:
        """Return what is written of the run, whose folder is there."""
        return {RUN: {"id": self._identity(), "config": self._config}}

    def _keep_previous(
        self, catalogue: Catalogue, file: Path, *, is_folder: bool = False
    ) -> Path | None:
        """Give the state that a file still holds a second name, or another where that cannot be.

        Nothing can replace a folder, nor a folder anything, so that these always get another name.
        """
        if not file.exists() or (file.name not in self._retention and not is_folder):
            return None
        known = [entry for entry in catalogue.by_step() if entry.name == file.name]
        if not known:
            if is_folder or file.is_dir():
                set_aside(file)
            return None  # damaged: nothing to keep
        previous = file.with_name(previous_name(file.name, known[0].step))
        remove(previous)
        try:
            if is_folder:
                os.replace(file, previous)
            else:
                os.link(file, previous)
        except OSError:  # a file system without links
            os.replace(file, previous)
        catalogue.add_name(file.name, previous.name)
        return previous

    def _remove_superseded(self, catalogue: Catalogue, name: str, replaced: Path | None) -> None:
        if name in self._retention:
            remove_superseded(catalogue, name, self._retention[name])
        elif replaced is not None:
            remove(replaced)


def _check_finite(bad: Sequence[str], step: int) -> None:
    if bad:
        raise TrainingGaveUp(
            f"at step {step:,} weights or the optimiser's state are not finite ({in_short(bad)}): "
            "no checkpoint of them is written, earlier ones stay. Lower optim.base_lr, lengthen "
            "the warm-up, or use trainer.precision=bf16-mixed or 32-true"
        )

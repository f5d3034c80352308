"""Checkpoints on disk: whole or absent, and never code."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from ssl_swin.files import atomic_path
from ssl_swin.safe_pickle import load_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary name, syncs, renames; loads without running what a file contains."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Writes a checkpoint, all of it or nothing."""
        with atomic_path(path) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads a checkpoint to the CPU.

        Raises:
            UserError: If it is no checkpoint, or contains code.
        """
        return load_checkpoint(path)

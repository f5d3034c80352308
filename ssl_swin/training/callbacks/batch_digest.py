"""A record of every batch, by which two runs can be compared to the bit."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ssl_swin.arguments import PathName, checked
from ssl_swin.files import make_folder

_COLUMNS = {"mask": "masks"}  # names in the file that differ from the batch's


class BatchDigest(Callback):
    """Writes the names and digests of every image and its labels, and the loss of every batch.

    A list of tensors, one an image, as the boxes of detection, is written as a tensor is.

    One JSON object a line in `rank*.jsonl`. A run that goes on after a crash appends: of two lines
    with the same epoch and batch, the last holds.
    """

    @checked
    def __init__(self, folder: PathName, enabled: bool = True) -> None:
        """Sets the callback up.

        Args:
            folder: Folder for the files.
            enabled: Whether anything is written.
        """
        self.folder = Path(folder)
        self.enabled = enabled

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens this rank's file, without the half line that a killed run may have left."""
        if not self.enabled:
            return
        path = make_folder(self.folder) / f"rank{trainer.global_rank}.jsonl"
        written = path.read_bytes() if path.exists() else b""
        self._file = path.open("ab")
        self._file.truncate(written.rfind(b"\n") + 1)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes a line."""
        if not self.enabled:
            return
        line = {
            "epoch": trainer.current_epoch,
            "batch": batch_idx,
            "step": trainer.global_step,
            "loss": outputs["loss"].item().hex(),
            "names": batch.names,
            **{
                _COLUMNS.get(field, field): _digests(value)
                for field, value in _fields(batch)
                if _has_a_tensor_per_image(value)
            },
        }
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Closes the file."""
        if hasattr(self, "_file"):
            self._file.close()


def _fields(batch: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the fields of a batch by name, those of a batch in it as FIELD.NAME."""
    for name, value in batch._asdict().items():
        if hasattr(value, "_asdict"):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _has_a_tensor_per_image(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], Tensor)
    return isinstance(value, Tensor) and value.ndim > 1


def _digests(images: Tensor | list[Tensor]) -> list[str]:
    """16 hex digits of each image's bytes."""
    arrays = [image.cpu().numpy() for image in images]
    return [hashlib.blake2b(array.tobytes(), digest_size=8).hexdigest() for array in arrays]

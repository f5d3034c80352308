"""A process's part of a checkpoint, written one tensor after the other."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from ssl_swin.divided_checkpoint import DTYPES, PLACES
from ssl_swin.training.checkpointing.writing import Hashing

ALIGNMENT = 8  # bytes, of where the tensors of a safetensors file begin
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class StreamingWriter(HuggingFaceStorageWriter):
    """Writes as the engine does, which makes the whole file in memory, twice; here none of it.

    Attributes:
        path_of_part: The file of this process; None if it has nothing to write.
        sum: The SHA-256 of what was written into it.
    """

    path_of_part: Path | None = None
    sum = ""

    def __init__(self, folder: Path) -> None:
        """Set the writer up.

        Args:
            folder: Of the checkpoint.
        """
        super().__init__(str(folder), save_distributed=True)

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> "Future[list[WriteResult]]":
        """Write this process's part, and leave its sum."""
        done: Future[list[WriteResult]] = Future()
        if plan.items:
            number = plan.storage_data["shard_index"]
            self.path_of_part = Path(
                self.path, f"shard-{number:05d}-model-00001-of-00001.safetensors"
            )
            with self.path_of_part.open("wb") as file:
                hashing = Hashing(file)
                hashing.write(_header(plan.items))
                for content in _contents(plan.items, planner):
                    hashing.write(content)
                file.flush()
                os.fsync(file.fileno())
            self.sum = hashing.sum.hexdigest()
        done.set_result([])  # no table of contents is made of them
        return done


def _header(items: list[WriteItem]) -> bytes:
    """Return the beginning of a safetensors file."""
    places: dict[str, Any] = {}
    entries: dict[str, Any] = {}
    end = 0
    for item in items:
        assert item.tensor_data is not None and item.tensor_data.chunk is not None
        chunk, dtype = item.tensor_data.chunk, item.tensor_data.properties.dtype
        begin, end = end, end + math.prod(chunk.sizes) * dtype.itemsize
        entries[item.index.fqn] = {
            "dtype": NAMES[dtype],
            "shape": list(chunk.sizes),
            "data_offsets": [begin, end],
        }
        places[item.index.fqn] = {"saved_offsets": list(chunk.offsets)}
    about = {PLACES: json.dumps(places), "DCP_VERSION": "1.0", "format": "pt"}
    text = json.dumps({"__metadata__": about, **entries}).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _contents(items: list[WriteItem], planner: SavePlanner) -> Iterator[memoryview]:
    for item in items:
        tensor = planner.resolve_data(item)
        assert isinstance(tensor, Tensor)
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        yield flat.view(torch.uint8).numpy().data

"""How long a checkpoint of a Swin-T and its AdamW takes: python -m benchmarks.step.saving."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ssl_swin.runs.checkpoint_files import checksum
from ssl_swin.training.checkpointing.writing import write_verified

NUM_TENSORS, SHAPE = 100, (280, 1000)  # 28 million weights


def tensors() -> dict[str, torch.Tensor]:
    """Return as many numbers as a Swin-T has weights."""
    return {str(number): torch.randn(SHAPE) for number in range(NUM_TENSORS)}


def seconds(action: Callable[[], Any]) -> float:
    """Return how long something takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def main() -> None:
    """Print the seconds of torch.save alone, of a verified write, and of reading back."""
    state = {"state_dict": tensors(), "optimizer_states": [tensors(), tensors()]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "last.ckpt"
        plain_s = seconds(lambda: torch.save(state, path))
        verified_s = seconds(lambda: write_verified(state, path))
        read_s = seconds(lambda: checksum(path))
        size_mb = path.stat().st_size / 1e6
    print(f"{size_mb:.0f} MB: torch.save {plain_s:.1f} s, verified {verified_s:.1f} s, read and "
          f"summed {read_s:.1f} s")  # fmt: skip


if __name__ == "__main__":
    main()

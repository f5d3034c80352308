"""How long a checkpoint of a Swin-T and its AdamW takes: python -m benchmarks.step.saving.

Training waits while a checkpoint is written. The alternative, a copy that a thread writes while
training goes on, is measured beside it: the time for the copy, and how much slower products of
matrices on all cores are until the file is whole.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.step.timing import SQUARE
from benchmarks.tables import describe_machine, header
from ssl_swin.runs.checkpoint_files import checksum
from ssl_swin.training.checkpointing.writing import write_verified

SHAPE = (280, 1000)
NUM_TENSORS = 100  # 28 million weights, as a Swin-T has
ALONE_S = 2.0  # for which products are counted with nothing beside them

State = dict[str, Any]


class Thread(NamedTuple):
    """What writing in a thread costs, in seconds."""

    copy_s: float  # training waits for it
    write_s: float  # of the thread
    slowed_s: float  # by which what was computed meanwhile came later

    @property
    def lost_s(self) -> float:
        """Time that training loses in all."""
        return self.copy_s + self.slowed_s


def state_of(num_tensors: int = NUM_TENSORS) -> State:
    """Return a state: weights, and two moments of each."""

    def tensors() -> dict[str, torch.Tensor]:
        return {str(number): torch.randn(SHAPE) for number in range(num_tensors)}

    return {"state_dict": tensors(), "optimizer_states": [tensors(), tensors()]}


def seconds(action: Callable[[], Any]) -> float:
    """Return how long something takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def in_thread(state: State, path: Path, *, alone_s: float = ALONE_S) -> Thread:
    """Write a copy of a state in a thread, while this one multiplies matrices on all cores.

    Args:
        state: What to write.
        path: The file.
        alone_s: Seconds for which products are counted without the thread.
    """
    started = time.perf_counter()
    rate_alone = _products(lambda: time.perf_counter() - started < alone_s) / alone_s
    copies: list[State] = []
    copy_s = seconds(lambda: copies.append(_copied(state)))
    writer = threading.Thread(target=write_verified, args=(copies[0], path))
    started = time.perf_counter()
    writer.start()
    number = _products(writer.is_alive)
    write_s = time.perf_counter() - started
    return Thread(copy_s, write_s, write_s - number / rate_alone)


def main(words: list[str] | None = None) -> None:
    """Print what saving costs, waiting and in a thread."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--tensors", type=int, default=NUM_TENSORS, help="of 280,000 weights each")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(words)
    print(header(describe_machine(torch.device("cpu"))))
    state = state_of(options.tensors)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "last.ckpt"
        for _ in range(options.rounds):
            plain_s = seconds(lambda: torch.save(state, path))
            verified_s = seconds(lambda: write_verified(state, path))
            read_s = seconds(lambda: checksum(path))
            thread = in_thread(state, path)
            print(
                f"{path.stat().st_size / 1e6:.0f} MB: torch.save {plain_s:.1f} s; verified "
                f"{verified_s:.1f} s, of which reading back {read_s:.1f} s; in a thread "
                f"{thread.write_s:.1f} s, by which training loses {thread.lost_s:.1f} s "
                f"({thread.copy_s:.1f} s of it for the copy)"
            )


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(part) for key, part in value.items()}
    return [_copied(part) for part in value]


def _products(goes_on: Callable[[], bool]) -> int:
    """Multiply matrices as long as something holds, and return how often."""
    matrix, number = torch.randn(SQUARE["cpu"], SQUARE["cpu"]), 0
    while goes_on():
        matrix @ matrix
        number += 1
    return number


if __name__ == "__main__":
    main()

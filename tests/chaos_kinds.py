"""What may happen to a run in a round of `chaos`: a fault, and damage that is done afterwards."""

import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from faults import (
    FullDisk,
    KillAfterSaveOfStep,
    KillAtRename,
    KillAtValidation,
    KillInWrite,
    SignalAtBatch,
    UsedUpQuota,
)
from faults_in_parts import KillInPart, OnRank

STEPS_PER_EPOCH = 12  # of the runs of `chaos`
DISK_BYTES = 60_000  # more than any small file of these runs, less than a checkpoint or its part
Fault = Callable[[], None]


@dataclass(frozen=True)
class Kind:
    """A kind of round.

    Attributes:
        name: For the table.
        draw: Returns the fault of a round.
        statuses: Exit codes that it may end with, besides 0 where the job ends before it strikes.
        damage: What is done to the newest checkpoint afterwards.
    """

    name: str
    draw: Callable[[random.Random], Fault]
    statuses: tuple[int, ...]
    damage: Callable[[Path, random.Random], None] | None = None


def flip_a_bit(path: Path, draw: random.Random) -> None:
    """Change one bit in the middle half of a file, or of one of a folder's."""
    file = draw.choice(_files(path))
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content) // 4, 3 * len(content) // 4)] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def cut_off(path: Path, draw: random.Random) -> None:
    """Leave the beginning of a file, or of one of a folder's, or nothing."""
    file = draw.choice(_files(path))
    file.write_bytes(file.read_bytes()[: draw.choice([0, 100, file.stat().st_size // 2])])


def remove_one(path: Path, draw: random.Random) -> None:
    """Remove a file, or one of a folder's."""
    draw.choice(_files(path)).unlink()


def _files(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else [path]


def _kill(draw: random.Random) -> Fault:
    return SignalAtBatch(signal.SIGKILL, draw.randint(2, 12))


def _kill_in_part(draw: random.Random) -> Fault:
    return OnRank(draw.randint(0, 1), KillInPart(draw.randint(1, 5)))


KILLED = (-signal.SIGKILL,)
STOPPED = tuple(128 + number for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1))
KINDS = (
    Kind("killed in a training step", _kill, KILLED),
    Kind(
        "killed before a validation",
        lambda draw: KillAtValidation(draw.randint(1, 2), after=False),
        KILLED,
    ),
    Kind(
        "killed in a validation",
        lambda draw: SignalAtBatch(signal.SIGKILL, draw.randint(1, 2), "validation_step"),
        KILLED,
    ),
    Kind(
        "killed after a validation",
        lambda draw: KillAtValidation(draw.randint(1, 2), after=True),
        KILLED,
    ),
    Kind(
        "killed before a checkpoint gets its name",
        lambda draw: KillAtRename("last.ckpt", draw.randint(1, 5), after=False),
        KILLED,
    ),
    Kind(
        "killed when a checkpoint has its name",
        lambda draw: KillAtRename("last.ckpt", draw.randint(1, 5), after=True),
        KILLED,
    ),
    Kind(
        "killed in the middle of writing one", lambda draw: KillInWrite(draw.randint(1, 5)), KILLED
    ),
    Kind(
        "killed after the checkpoint of an epoch's last step",
        lambda draw: KillAfterSaveOfStep(STEPS_PER_EPOCH),
        KILLED,
    ),
    Kind(
        "SIGTERM, SIGINT or SIGUSR1 in a step",
        lambda draw: SignalAtBatch(
            draw.choice([signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]), draw.randint(1, 12)
        ),
        STOPPED,
    ),
    Kind(
        "SIGTERM in a validation",
        lambda draw: SignalAtBatch(signal.SIGTERM, draw.randint(1, 2), "validation_step"),
        STOPPED,
    ),
    Kind("disk full", lambda draw: FullDisk(DISK_BYTES), (1, 2)),
    Kind("quota used up", lambda draw: UsedUpQuota(DISK_BYTES), (2,)),
    Kind("killed; one bit of the newest checkpoint flipped", _kill, KILLED, flip_a_bit),
    Kind("killed; the newest checkpoint cut off", _kill, KILLED, cut_off),
    Kind("killed; the newest checkpoint gone, or a part of it", _kill, KILLED, remove_one),
    Kind("killed; the run's folder moved to another place", _kill, KILLED),
)
OF_BEST = (
    Kind(
        "killed between best.ckpt and last.ckpt",
        lambda draw: KillAtRename("best.ckpt", 1, after=True),
        KILLED,
    ),
)
OF_PARTS = (Kind("one of two killed in the middle of writing its part", _kill_in_part, KILLED),)

"""Rounds of faults upon one training job, until it ends; what it ends with is compared.

`python tests/chaos.py --rounds 200` runs jobs until there were so many rounds and prints a table.
"""

import argparse
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from chaos_kinds import KINDS, OF_BEST, OF_PARTS, STEPS_PER_EPOCH, STOPPED, Fault, Kind
from faults import NotANumber, Together
from launched import LIMIT_S, output, start

from ssl_swin.divided_checkpoint import load_state
from ssl_swin.encoders.swin import swin
from ssl_swin.weights.backbone import save_backbone

TINY = (
    "model.embed_dim=8",
    "model.depths=[1,1,1]",
    "model.num_heads=[1,1,2]",
    f"data.prepare.num_train={4 * STEPS_PER_EPOCH + 2}",  # the last two of an epoch are left out
    "data.prepare.num_val=8",
    "data.order.block=4",
    "data.order.pool=64",
    "logger=csv",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=3",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "callbacks.last.every_n_epochs=null",
    "callbacks.last.every_n_train_steps=2",
    "callbacks.last.save_on_train_epoch_end=null",
    "batch_size=4",
)
NO_PICTURES = "callbacks.reconstructions=null"  # larger than a checkpoint
TEACHER = "teacher"
MOST_ROUNDS = 40  # of one job; more means that it does not get on


@dataclass(frozen=True)
class Job:
    """What is run: a job, its settings, its number of processes.

    Attributes:
        name: For the table.
        job: Name of the script.
        settings: Besides the common ones.
        num_ranks: Processes.
        strategy: How the weights lie on them; "" for the usual one.
        always: Fault that the run without interruptions has too.
        has_teacher: Whether it learns from a backbone, in the folder TEACHER.
        more_kinds: Of rounds, besides those that any job may have.
    """

    name: str
    job: str = "pretrain"
    settings: tuple[str, ...] = ()
    num_ranks: int = 1
    strategy: str = ""
    always: Fault | None = None
    has_teacher: bool = False
    more_kinds: tuple[Kind, ...] = ()

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """All that its rounds are drawn from."""
        return KINDS + self.more_kinds

    @property
    def overrides(self) -> tuple[str, ...]:
        """The whole command line."""
        started = ("backbone=none", "model=swin_nano") if self.job == "finetune" else ()
        return (*started, *TINY, *self.settings)

    def folder(self, place: Path) -> Path:
        """The run's own folder."""
        (found,) = (place / "runs" / self.job).iterdir()
        return found


JOBS = (
    Job("pretrain", settings=("num_workers=1", NO_PICTURES)),
    Job(
        "pretrain, sparse, accumulated",
        settings=(
            NO_PICTURES,
            "objective=simmim_sparse",
            "num_workers=0",
            "trainer.accumulate_grad_batches=2",
            "callbacks.last.every_n_train_steps=1",
        ),
    ),
    Job(
        "pretrain, distillation",
        settings=(
            NO_PICTURES,
            "objective=distillation",
            f"objective.teacher={TEACHER}",
            "num_workers=0",
        ),
        has_teacher=True,
    ),
    Job(
        "pretrain, sparse iBOT with pixels",
        settings=(
            NO_PICTURES,
            "objective=ibot_sparse",
            "objective.hidden_dim=32",
            "objective.bottleneck_dim=8",
            "objective.num_prototypes=32",
            "objective.pixel_weight=1",
            "objective.freeze_prototypes_epochs=2",
            "num_workers=0",
        ),
    ),
    Job("fine-tune", job="finetune", settings=("num_workers=0",), more_kinds=OF_BEST),
    Job(
        "pretrain, 2 ranks, a loss that is NaN on one",
        settings=("num_workers=0", "batch_size=2", NO_PICTURES),
        num_ranks=2,
        always=NotANumber(step=7, rank=1),
    ),
    Job(
        "pretrain, MoBY, 2 ranks",
        settings=(
            "objective=moby",
            "objective.hidden_dim=32",
            "objective.out_dim=16",
            "objective.queue_length=16",
            "num_workers=0",
            "batch_size=2",
        ),
        num_ranks=2,
    ),
    Job(
        "pretrain, 2 ranks, divided weights, checkpoints in parts",
        settings=(
            "num_workers=0",
            "batch_size=2",
            NO_PICTURES,
            "trainer.sharded_checkpoints=true",
        ),
        num_ranks=2,
        strategy="fsdp",
        more_kinds=OF_PARTS,
    ),
)


@dataclass
class Outcome:
    """What happened to one job."""

    rounds: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)  # kind, exit codes
    differences: list[str] = field(default_factory=list)


def save_teacher(folder: Path) -> None:
    """Write a backbone that `objective=distillation` can learn from."""
    torch.manual_seed(1)
    sizes = {"embed_dim": 8, "depths": (1, 1, 1), "num_heads": (1, 1, 2)}
    encoder = swin(version=1, img_size_px=96, window_size=6, **sizes)
    save_backbone(folder, encoder, mean=(0.5,) * 3, std=(0.2,) * 3, card="")


def run_whole(job: Job, place: Path) -> None:
    """Run a job that nothing happens to.

    Raises:
        AssertionError: If it fails.
    """
    if job.has_teacher:
        save_teacher(place / TEACHER)
    statuses = _run(job, place, job.always)
    assert set(statuses) == {0}, output(place, 0)


def torment(
    job: Job, whole: Path, place: Path, draw: random.Random, kinds: Iterable[Kind] = ()
) -> Outcome:
    """Run a job with a fault in each round until it has ended by itself.

    Args:
        job: What to run.
        whole: Where it ran without any; its data and its teacher are copied.
        place: Working directory.
        draw: Chooses kinds and moments.
        kinds: Of the first rounds; all further ones are drawn.

    Raises:
        AssertionError: If a round ends in another way than its fault lets expect, or with a
            traceback, or the job does not get on.
    """
    outcome, planned = Outcome(), list(kinds)
    for given in ("data", TEACHER) if job.has_teacher else ("data",):
        shutil.copytree(whole / given, place / given)
    for _ in range(MOST_ROUNDS):
        kind = planned.pop(0) if planned else draw.choice(job.kinds)
        faults = (kind.draw(draw), *(() if job.always is None else (job.always,)))
        statuses = _run(job, place, Together(faults))
        outcome.rounds.append((kind.name, statuses))
        if set(statuses) == {0}:
            return outcome
        _check_end(kind, statuses, place, job)
        if kind.damage is not None:
            _damage_newest(kind.damage, job.folder(place), draw)
        if "moved" in kind.name:
            _move(place)
    raise AssertionError(f"{job.name}: not done after {MOST_ROUNDS} rounds: {outcome.rounds}")


def _run(job: Job, place: Path, fault: Fault | None) -> tuple[int, ...]:
    processes = start(job.overrides, place, job.num_ranks, job.job, job.strategy, fault)
    for process in processes:
        process.join(LIMIT_S)
        assert process.exitcode is not None, f"{job.name} hangs: {output(place, 0)}"
    return tuple(process.exitcode for process in processes)


def _check_end(kind: Kind, statuses: Sequence[int], place: Path, job: Job) -> None:
    expected = kind.statuses
    for rank, status in enumerate(statuses):
        printed = output(place, rank)
        if job.num_ranks == 1 or expected == STOPPED:
            assert status in expected, (kind.name, statuses, printed)
            assert 'File "' not in printed.rpartition(MARK)[2], (kind.name, printed)
        else:  # the fault strikes each rank by itself; who survives has lost a peer
            assert status != 0, (kind.name, statuses, printed)


MARK = "continuing from"


def _damage_newest(
    damage: Callable[[Path, random.Random], None], folder: Path, draw: random.Random
) -> None:
    """Damage the newest of two checkpoints or more."""
    checkpoints = sorted(
        folder.glob("checkpoints/*.ckpt"), key=lambda path: path.stat().st_mtime_ns
    )
    continued = [path for path in checkpoints if path.name != "best.ckpt"]
    if len(continued) >= 2:
        damage(continued[-1], draw)


def _move(place: Path) -> None:
    """Copy all of a run's folders as a person moves them to another disk."""
    copy = place.with_name(f"{place.name}_moved")
    shutil.copytree(place, copy, symlinks=True)
    shutil.rmtree(place)
    copy.rename(place)


def compare(job: Job, whole: Path, tormented: Path) -> list[str]:
    """Return in what the two differ: state, metrics."""
    expected, found = (
        load_state(job.folder(place) / "checkpoints/last.ckpt") for place in (whole, tormented)
    )
    differences = []
    for part in ("global_step", "state_dict", "optimizer_states", "lr_schedulers"):
        if not _equal(expected[part], found[part]):
            differences.append(part)
    tables = [(job.folder(place) / "metrics.csv").read_text() for place in (whole, tormented)]
    if _losses(tables[0]) != _losses(tables[1]):
        differences.append("metrics.csv")
    return differences


def _losses(table: str) -> list[tuple[str, ...]]:
    """Return step and losses of each row; times differ."""
    header, *rows = [line.split(",") for line in table.splitlines()]
    kept = [at for at, name in enumerate(header) if name == "step" or name.endswith("loss")]
    return [tuple(row[at] for at in kept) for row in rows]


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.equal(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


def main() -> None:
    """Run jobs in turn until there were enough rounds, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, outcomes = random.Random(options.seed), []
    with tempfile.TemporaryDirectory() as folder:
        wholes = [Path(folder) / f"whole{number}" for number in range(len(JOBS))]
        for job, place in zip(JOBS, wholes, strict=True):
            run_whole(job, place)
        while sum(len(outcome.rounds) for _, outcome in outcomes) < options.rounds:
            at = len(outcomes) % len(JOBS)
            place = Path(folder) / f"tormented{len(outcomes)}"
            outcome = torment(JOBS[at], wholes[at], place, draw)
            outcome.differences = compare(JOBS[at], wholes[at], place)
            outcomes.append((JOBS[at], outcome))
            print(
                f"{JOBS[at].name}: {len(outcome.rounds)} rounds, {outcome.differences or 'equal'}"
            )
    _print_table(outcomes)


def _print_table(outcomes: Sequence[tuple[Job, Outcome]]) -> None:
    print("\n| fault | rounds | exit codes |\n|---|---|---|")
    statuses: dict[str, Counter[int]] = {
        kind.name: Counter() for kind in (*KINDS, *OF_BEST, *OF_PARTS)
    }
    for _, outcome in outcomes:
        for kind, codes in outcome.rounds:
            statuses[kind].update(codes[:1])
    for name, found in statuses.items():
        codes = ", ".join(f"{code} ({number})" for code, number in sorted(found.items()))
        print(f"| {name} | {found.total()} | {codes} |")
    print("\n| job | runs | rounds | ended unlike an uninterrupted run |\n|---|---|---|---|")
    for job in JOBS:
        own = [outcome for other, outcome in outcomes if other is job]
        rounds = sum(len(outcome.rounds) for outcome in own)
        unlike = sum(bool(outcome.differences) for outcome in own)
        print(f"| {job.name} | {len(own)} | {rounds} | {unlike} |")


if __name__ == "__main__":
    main()

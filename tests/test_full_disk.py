"""A disk that is full in the middle of a run: one message, and the run goes on from what stays."""

import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from chaos import Job, compare, run_whole
from disks import BeforeRename, fill, free, remount, small_disk
from faults import AtBatch
from launched import LIMIT_S, start

from ssl_swin.runs.catalogue import Catalogue

pytestmark = pytest.mark.slow
USER_ERROR = 2
DISK_BYTES = 6_000_000  # more than a run of these takes
FULL = "No space left on device"
JOBS = (
    Job("pretrain", settings=("num_workers=0",)),
    Job("fine-tune", job="finetune", settings=("num_workers=0",)),
    Job("pretrain, 2 processes", settings=("num_workers=0", "batch_size=2"), num_ranks=2),
)


def run(
    job: Job, place: Path, fault: Callable[[], None] | None = None
) -> list[tuple[int | None, str]]:
    """Runs a job; returns the exit code of each process and all that it printed."""
    printed = [place / f"output{rank}.txt" for rank in range(job.num_ranks)]
    for path in printed:
        path.unlink(missing_ok=True)
    processes = start(job.overrides, place, job.num_ranks, job.job, fault=fault)
    for process in processes:
        process.join(LIMIT_S)
    return [(p.exitcode, path.read_text()) for p, path in zip(processes, printed, strict=True)]


def check_stopped(job: Job, place: Path, status: int | None, said: str, refused: str) -> None:
    """One message, which names a checkpoint that is whole, or says that there is none."""
    assert status == USER_ERROR, said
    assert 'File "' not in said, said
    *_, cause, what_stays = said.splitlines()
    assert re.match(rf"{job.job}.py: .*runs/{job.job}/", cause), said
    assert re.search(refused, cause), said
    checkpoints = job.folder(place) / "checkpoints"
    named = re.search(r"(runs/\S+\.ckpt) of step (\d+) stays: make room", what_stays)
    if named is None:
        assert "there is no earlier checkpoint: make room" in what_stays, said
        assert not list(checkpoints.glob("*.ckpt"))
        return
    assert Path(named[1]).parent == checkpoints.relative_to(place)
    entry = Catalogue(checkpoints).verified(Path(named[1]).name)
    assert (entry.step, entry.healthy) == (int(named[2]), True)


@pytest.mark.parametrize(
    ("job", "moments"),
    [
        (JOBS[0], [1, 2, 6, 12, "validation", 9]),
        (
            JOBS[0],
            [
                ".owner.json", "run_id", "config.yaml", "provenance.json", "metrics.csv",
                "step_0000000.png", "catalogue.json", "last.ckpt", "model.safetensors",
            ],
        ),
        (JOBS[1], [6, "validation", "best.ckpt", "last.ckpt", "model.safetensors"]),
        (JOBS[2], [1, 5]),
    ],
    ids=["batches", "files", "fine-tuning", "two processes"],
)  # fmt: skip
def test_full_disk__ends_the_run_which_goes_on_when_there_is_room(
    tmp_path: Path, job: Job, moments: list[int | str]
) -> None:
    whole, place = tmp_path / "whole", tmp_path / "full"
    run_whole(job, whole)
    shutil.copytree(whole / "data", place / "data")
    with small_disk(place / "runs", DISK_BYTES) as disk:
        for moment in moments:
            ended = run(job, place, at(moment, partial(fill, disk)))
            check_stopped(job, place, *ended[0], FULL)
            for _, said in ended[1:]:  # who has written nothing
                assert 'File "' not in said, said
            free(disk)
        assert {status for status, _ in run(job, place)} == {0}
        assert compare(job, whole, place) == []


def at(moment: int | str, happens: Callable[[], None]) -> Callable[[], None]:
    """Plants something before a batch of training, one of validation, or a file gets its name."""
    if moment == "validation":
        return AtBatch(happens, 1, "validation_step")
    return AtBatch(happens, moment) if isinstance(moment, int) else BeforeRename(happens, moment)


@pytest.mark.parametrize("moment", [1, 6, "last.ckpt", "model.safetensors"])
def test_read_only__in_mid_run(tmp_path: Path, moment: int | str) -> None:
    with small_disk(tmp_path / "runs", DISK_BYTES) as disk:
        (ended,) = run(JOBS[0], tmp_path, at(moment, partial(remount, disk, "ro")))
        check_stopped(JOBS[0], tmp_path, *ended, "Read-only file system|no permission")
        remount(disk, "rw")
        ((status, said),) = run(JOBS[0], tmp_path)
        assert status == 0, said

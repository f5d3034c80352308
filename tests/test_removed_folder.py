"""A run's folder that is removed or moved in mid-run: one message, and put back it goes on."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from chaos import NO_PICTURES, Job, compare, run_whole
from faults import AtBatch
from launched import LIMIT_S, output, start

pytestmark = pytest.mark.slow
USER_ERROR = 2
LATE = "callbacks.last.every_n_train_steps=6"  # at 1 no checkpoint is written yet
JOBS = {
    "pretrain": Job("pretrain", settings=("num_workers=0", LATE)),
    "finetune": Job("fine-tune", job="finetune", settings=("num_workers=0", LATE)),
    "in parts": Job(
        "in parts",
        settings=(
            "num_workers=0",
            "batch_size=2",
            NO_PICTURES,
            LATE,
            "trainer.sharded_checkpoints=true",
        ),
        num_ranks=2,
        strategy="fsdp",
    ),
}


def moved(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def made_anew(folder: Path) -> None:
    shutil.rmtree(folder)
    (folder / "reconstructions").mkdir(parents=True)


def without_checkpoints(folder: Path) -> None:
    shutil.rmtree(folder / "checkpoints")


def replaced_by_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


class Removal:
    """A run to which something happens, once, in its first process."""

    def __init__(self, job: Job, place: Path, how: Callable[[Path], None], moment: str) -> None:
        self.job, self.place = job, place
        self.run = place / f"runs/{job.job}/k"
        kind, _, nth = moment.partition(" ")
        happens = partial(_once, how, self.run, place / "happened")
        fault = AtBatch(happens, int(nth), f"{kind}_step")
        processes = self._start(fault)
        self.statuses = [process.exitcode for process in processes]
        self.said = output(place, 0)

    def _start(self, fault: Callable[[], None] | None = None) -> list:
        job = self.job
        settings = (*job.overrides, "name=k")
        processes = start(settings, self.place, job.num_ranks, job.job, job.strategy, fault)
        for process in processes:
            process.join(LIMIT_S)
        return processes

    def again(self) -> list[int]:
        """Gives the command again."""
        return [process.exitcode for process in self._start()]


def _once(how: Callable[[Path], None], run: Path, sign: Path) -> None:
    """Of several processes, one does it."""
    try:
        sign.touch(exist_ok=False)
    except FileExistsError:
        return
    how(run)


@pytest.mark.parametrize(
    ("name", "how", "moment"),
    [
        ("pretrain", shutil.rmtree, "training 1"),
        ("pretrain", shutil.rmtree, "validation 1"),
        ("pretrain", made_anew, "training 14"),
        ("pretrain", replaced_by_a_file, "training 1"),
        ("finetune", shutil.rmtree, "training 1"),
        ("finetune", made_anew, "validation 2"),
        ("in parts", shutil.rmtree, "training 14"),
    ],
)
def test_removed__ends_with_one_message(
    tmp_path: Path, name: str, how: Callable[[Path], None], moment: str
) -> None:
    removal = Removal(JOBS[name], tmp_path, how, moment)
    assert removal.statuses[0] == USER_ERROR, removal.said
    assert all(removal.statuses)  # the others lose the first one
    assert 'File "' not in removal.said
    *_, cause, what_stays = removal.said.splitlines()
    assert cause.endswith(f"/{removal.job.job}/k was moved or removed in mid-run, or its disk was")
    assert cause.startswith(f"{removal.job.job}.py: the run's folder runs/"), removal.said
    assert what_stays.startswith("stopped at step ")
    assert what_stays.endswith("without it, it begins anew")
    assert not list(removal.run.glob("checkpoints/*.ckpt"))


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_moved__goes_on_when_put_back(tmp_path: Path, name: str) -> None:
    whole, place = tmp_path / "whole", tmp_path / "moved"
    job = JOBS[name]
    run_whole(job, whole)
    shutil.copytree(whole / "data", place / "data")
    removal = Removal(job, place, moved, "training 9")
    assert removal.statuses == [USER_ERROR], removal.said
    assert not removal.run.exists()  # nothing was made anew in its place
    removal.run.with_name("elsewhere").rename(removal.run)
    assert removal.again() == [0], output(place, 0)
    assert "continuing from" in output(place, 0)
    assert compare(job, whole, place) == []


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_only_the_checkpoints_removed__are_written_anew(tmp_path: Path, name: str) -> None:
    whole, place = tmp_path / "whole", tmp_path / "removed"
    job = JOBS[name]
    run_whole(job, whole)
    shutil.copytree(whole / "data", place / "data")
    removal = Removal(job, place, without_checkpoints, "training 14")
    assert removal.statuses == [0], removal.said
    assert 'File "' not in removal.said
    assert compare(job, whole, place) == []

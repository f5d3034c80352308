"""Whatever happens to a run, it ends with the weights of one that nothing happened to."""

import random
from pathlib import Path

import pytest
from chaos import JOBS, KINDS, Job, compare, run_whole, torment


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_chaos__a_few_rounds(tmp_path: Path, job: Job) -> None:
    """Each job meets other kinds first, and its own; together they meet all of them."""
    check(job, tmp_path, seed=0, first=KINDS[JOBS.index(job) :: len(JOBS)] + job.more_kinds)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_chaos__many_rounds(tmp_path: Path, job: Job, seed: int) -> None:
    check(job, tmp_path, seed=seed, first=())


def check(job: Job, folder: Path, *, seed: int, first: tuple) -> None:
    run_whole(job, folder / "whole")
    outcome = torment(job, folder / "whole", folder / "tormented", random.Random(seed), first)
    assert compare(job, folder / "whole", folder / "tormented") == [], outcome.rounds

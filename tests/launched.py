"""Runs of the scripts in processes that a test can watch and kill.

They are forked from one that has imported everything, and started as torchrun would start them.
"""

import multiprocessing
import os
import runpy
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
LIMIT_S = 600
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["ssl_swin.jobs.pretrain", "hydra.main"])


def start(
    overrides: Sequence[str],
    folder: Path,
    num_ranks: int,
    job: str = "pretrain",
    strategy: str = "",
    fault: Callable[[], None] | None = None,
) -> list[Any]:
    """Starts a job in `folder`, one process a rank; each writes to `output{rank}.txt` there.

    `fault` is called in each process before the script runs.
    """
    folder.mkdir(exist_ok=True)
    strategy = strategy or ("ddp" if num_ranks > 1 else "auto")
    placed = tuple(overrides)
    if job != "linear_probe":  # which has no trainer
        placed += (f"trainer.devices={num_ranks}", f"trainer.strategy={strategy}")
    processes = []
    for rank, launched in enumerate(_environments(num_ranks)):
        arguments = (job, placed, folder, rank, launched, fault)
        processes.append(CONTEXT.Process(target=_run, args=arguments))
        processes[-1].start()
    return processes


def finish(
    overrides: Sequence[str],
    folder: Path,
    num_ranks: int,
    status: int = 0,
    job: str = "pretrain",
    strategy: str = "",
) -> None:
    """Runs to the end, and checks how it ended."""
    for rank, process in enumerate(start(overrides, folder, num_ranks, job, strategy)):
        process.join(LIMIT_S)
        assert process.exitcode == status, output(folder, rank)


def output(folder: Path, rank: int) -> str:
    """Gives all that a rank printed, over all starts in a folder."""
    return (folder / f"output{rank}.txt").read_text()


def _environments(num_ranks: int) -> list[dict[str, str]]:
    if num_ranks == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "TORCHELASTIC_RUN_ID": "none",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(num_ranks),
        "LOCAL_WORLD_SIZE": str(num_ranks),
        "GROUP_RANK": "0",
    }
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(num_ranks)]


def _run(
    job: str,
    overrides: Sequence[str],
    folder: Path,
    rank: int,
    launched: dict[str, str],
    fault: Callable[[], None] | None,
) -> None:
    from lightning.pytorch.utilities import rank_zero_only

    multiprocessing.set_start_method("fork", force=True)  # of workers, as in any other process
    os.environ.update(launched)
    rank_zero_only.rank = rank  # read from the environment when lightning was imported: too early
    torch.set_num_threads(1)
    os.chdir(folder)
    printed = os.open(f"output{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    if fault is not None:
        fault()
    sys.argv = [f"{job}.py", *overrides]
    runpy.run_path(str(ROOT / f"{job}.py"), run_name="__main__")

"""A run that is killed (SIGKILL) at random moments ends as one that is not.

The script itself runs, in processes forked from one that has imported everything, and as many of
them as there are ranks, started as torchrun would.
"""

import json
import multiprocessing
import os
import random
import runpy
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from ssl_swin.interop.safe_pickle import load_checkpoint

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
LIMIT_S = 120
TINY = (
    "model.embed_dim=8",
    "model.depths=[1,1,1]",
    "model.num_heads=[1,1,2]",
    "model.drop_path_rate=0.3",
    "data.prepare.num_train=106",
    "data.prepare.num_val=4",
    "data.order.block=4",
    "data.order.pool=64",
    "logger=csv",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.check_val_every_n_epoch=1",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "callbacks.batch_digest=true",
    "callbacks.last.every_n_epochs=null",
    "callbacks.last.every_n_train_steps=2",
    "callbacks.last.save_on_train_epoch_end=null",
)


class Setting(NamedTuple):
    """How a run is spread out."""

    num_ranks: int
    batch_size: int
    num_workers: int
    accumulate: int

    def overrides(self) -> tuple[str, ...]:
        return (
            *TINY,
            f"trainer.devices={self.num_ranks}",
            "trainer.strategy=" + ("ddp" if self.num_ranks > 1 else "auto"),
            f"batch_size={self.batch_size}",
            f"num_workers={self.num_workers}",
            f"trainer.accumulate_grad_batches={self.accumulate}",
        )


def pretrain(overrides: Sequence[str], folder: Path, rank: int, launched: dict[str, str]) -> None:
    """Runs in a process of its own; `launched` is what torchrun would put into its environment."""
    from lightning.pytorch.utilities import rank_zero_only

    multiprocessing.set_start_method("fork", force=True)  # of workers, as in any other process
    os.environ.update(launched)
    rank_zero_only.rank = rank  # read from the environment when lightning was imported: too early
    torch.set_num_threads(1)
    os.chdir(folder)
    output = os.open(f"output{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = ["pretrain.py", *overrides]
    runpy.run_path(str(ROOT / "pretrain.py"), run_name="__main__")


@pytest.fixture(scope="module")
def context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ssl_swin.launch.pretrain", "hydra.main"])
    return context


def start(context: Any, setting: Setting, folder: Path) -> list[Any]:
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = []
    for rank in range(setting.num_ranks):
        launched = {}
        if setting.num_ranks > 1:
            launched = {
                "TORCHELASTIC_RUN_ID": "none",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "WORLD_SIZE": str(setting.num_ranks),
                "LOCAL_WORLD_SIZE": str(setting.num_ranks),
                "GROUP_RANK": "0",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
            }
        arguments = (setting.overrides(), folder, rank, launched)
        ranks.append(context.Process(target=pretrain, args=arguments))
        ranks[-1].start()
    return ranks


def finish(context: Any, setting: Setting, folder: Path) -> None:
    ranks = start(context, setting, folder)
    for rank, process in enumerate(ranks):
        process.join(LIMIT_S)
        assert process.exitcode == 0, (folder / f"output{rank}.txt").read_text()[-3000:]


def kill_after(
    context: Any, setting: Setting, folder: Path, num_batches: int, draw: random.Random
) -> None:
    """Starts or continues a run, and kills it some time after its given number of batches."""
    ranks = start(context, setting, folder)
    deadline = time.monotonic() + LIMIT_S
    while batches_done(folder) < num_batches:
        assert all(process.is_alive() for process in ranks), [
            (folder / f"output{rank}.txt").read_text()[-3000:] for rank in range(len(ranks))
        ]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(draw.uniform(0, 0.04))
    for process in ranks:
        os.kill(process.pid, signal.SIGKILL)
    for process in ranks:
        process.join()
        assert process.exitcode == -signal.SIGKILL


def run_folder(folder: Path) -> Path:
    return folder / "runs/pretrain/swin_nano_demo"


def lines(folder: Path, rank: int) -> Iterator[dict[str, Any]]:
    """What a rank wrote of its batches, without a line that was being written at a kill."""
    path = run_folder(folder) / f"batch_digest/rank{rank}.jsonl"
    if path.exists():
        *whole, _ = path.read_bytes().split(b"\n")
        yield from map(json.loads, whole)


def batches_done(folder: Path) -> int:
    return max((27 * line["epoch"] + line["batch"] + 1 for line in lines(folder, 0)), default=0)


def by_place(batches: Iterable[dict[str, Any]]) -> dict[tuple[int, int], dict[str, Any]]:
    return {(batch["epoch"], batch["batch"]): batch for batch in batches}


def record(folder: Path, rank: int) -> dict[tuple[int, int], dict[str, Any]]:
    """Batches by (epoch, number); those that were trained on twice were the same both times."""
    batches: dict[tuple[int, int], dict[str, Any]] = {}
    for line in lines(folder, rank):
        key = line["epoch"], line["batch"]
        assert batches.setdefault(key, line) == line, key
    return batches


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Of the whole model, from the checkpoint that the finished run left."""
    state = load_checkpoint(run_folder(folder) / "checkpoints/last.ckpt")["state_dict"]
    assert len(state) > 20
    return state


@pytest.mark.parametrize(
    "setting",
    [
        Setting(num_ranks=1, batch_size=4, num_workers=2, accumulate=1),
        Setting(num_ranks=1, batch_size=4, num_workers=0, accumulate=3),
        Setting(num_ranks=2, batch_size=2, num_workers=0, accumulate=1),
        Setting(num_ranks=2, batch_size=2, num_workers=1, accumulate=3),
    ],
    ids=str,
)
def test_pretrain__killed_five_times_ends_the_same(
    context: Any, tmp_path: Path, setting: Setting
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(context, setting, whole)
    seed = sum(setting)
    draw = random.Random(seed)
    for moment in sorted(draw.sample(range(1, 50), k=5)):  # of 2 x 26 batches
        kill_after(context, setting, killed, moment, draw)
    finish(context, setting, killed)
    for rank in range(setting.num_ranks):
        expected = record(whole, rank)
        assert len(expected) == 52
        assert record(killed, rank) == expected
    found, expected_weights = weights(killed), weights(whole)
    assert found.keys() == expected_weights.keys()
    assert all(found[name].equal(tensor) for name, tensor in expected_weights.items())


def test_pretrain__continues_on_other_ranks_and_workers_in_the_same_order(
    context: Any, tmp_path: Path
) -> None:
    one = Setting(num_ranks=1, batch_size=4, num_workers=0, accumulate=1)
    two = Setting(num_ranks=2, batch_size=2, num_workers=1, accumulate=1)
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    draw = random.Random(0)
    finish(context, one, whole)
    kill_after(context, one, moved, 11, draw)
    kill_after(context, two, moved, 33, draw)
    finish(context, one._replace(num_workers=2), moved)
    expected = record(whole, rank=0)
    parts = [list(lines(moved, rank)) for rank in (0, 1)]
    alone = by_place(batch for batch in parts[0] if len(batch["names"]) == 4)
    first, second = (by_place(batch for batch in p if len(batch["names"]) == 2) for p in parts)
    assert len(first.keys() & second.keys()) >= 20
    for key, batch in expected.items():
        for field in ("names", "pixels", "masks"):
            if key in alone:
                assert alone[key][field] == batch[field], key
            if key in first and key in second:
                dealt_out = zip(first[key][field], second[key][field], strict=True)
                assert [item for pair in dealt_out for item in pair] == batch[field], key
    assert alone.keys() | (first.keys() & second.keys()) == expected.keys()

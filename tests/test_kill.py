"""A run that is killed (SIGKILL) at random moments ends as one that is not."""

import json
import os
import random
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from chaos import save_teacher
from launched import LIMIT_S, finish, output, start

from ssl_swin.safe_pickle import load_checkpoint

pytestmark = pytest.mark.slow
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
    "callbacks.batch_digest.enabled=true",
    "callbacks.last.every_n_epochs=null",
    "callbacks.last.every_n_train_steps=2",
    "callbacks.last.save_on_train_epoch_end=null",
)

SMALL_HEADS = ("objective.hidden_dim=32", "objective.out_dim=16", "objective.queue_length=64")
REFINED = ("objective.stages=[2,3]", "freeze_backbone_epochs=1")
SMALL_SCORES = (
    "objective.hidden_dim=32",
    "objective.bottleneck_dim=8",
    "objective.num_prototypes=32",
    "objective.pixel_weight=1",
)
LOCAL = ("objective.local_views=2", "objective.local_size_px=24")


class Setting(NamedTuple):
    """How a run is spread out."""

    num_ranks: int
    batch_size: int
    num_workers: int
    accumulate: int
    objective: str = "simmim"
    options: tuple[str, ...] = ()

    def overrides(self) -> tuple[str, ...]:
        return (
            *TINY,
            f"objective={self.objective}",
            f"batch_size={self.batch_size}",
            f"num_workers={self.num_workers}",
            f"trainer.accumulate_grad_batches={self.accumulate}",
            *self.options,
        )


def run(setting: Setting, folder: Path) -> None:
    finish(setting.overrides(), folder, setting.num_ranks)


def kill_after(setting: Setting, folder: Path, num_batches: int, draw: random.Random) -> None:
    """Starts or continues a run, and kills it some time after its given number of batches."""
    ranks = start(setting.overrides(), folder, setting.num_ranks)
    deadline = time.monotonic() + LIMIT_S
    while batches_done(folder) < num_batches:
        for rank, process in enumerate(ranks):
            assert process.is_alive(), output(folder, rank)
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
        Setting(num_ranks=2, batch_size=2, num_workers=1, accumulate=1, objective="simmim_sparse"),
        Setting(1, 4, 0, 1, "moby", SMALL_HEADS),
        Setting(2, 2, 0, 3, "moby", SMALL_HEADS),
        Setting(1, 4, 2, 1, "moby", (*SMALL_HEADS, *REFINED)),
        Setting(2, 2, 0, 3, "moby", (*SMALL_HEADS, *REFINED)),
        Setting(1, 4, 2, 1, "ibot", (*SMALL_SCORES, "objective.region_weight=0.5", *LOCAL)),
        Setting(2, 2, 0, 3, "ibot", (*SMALL_SCORES, "objective.mask_from_epoch=1")),
        Setting(2, 2, 1, 1, "ibot_sparse", SMALL_SCORES),
        Setting(1, 4, 0, 1, "distillation", ("objective.teacher=../teacher",)),
        Setting(2, 2, 0, 1, "distillation", ("objective.teacher=../teacher",)),
    ],
    ids=str,
)
def test_pretrain__killed_five_times_ends_the_same(tmp_path: Path, setting: Setting) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    save_teacher(tmp_path / "teacher")
    run(setting, whole)
    seed = sum(setting[:4])
    draw = random.Random(seed)
    for moment in sorted(draw.sample(range(1, 50), k=5)):  # of 2 x 26 batches
        kill_after(setting, killed, moment, draw)
    run(setting, killed)
    for rank in range(setting.num_ranks):
        expected = record(whole, rank)
        assert len(expected) == 52
        assert record(killed, rank) == expected
    found, expected_weights = weights(killed), weights(whole)
    assert found.keys() == expected_weights.keys()
    assert all(found[name].equal(tensor) for name, tensor in expected_weights.items())


def test_pretrain__continues_on_other_ranks_and_workers_in_the_same_order(tmp_path: Path) -> None:
    one = Setting(num_ranks=1, batch_size=4, num_workers=0, accumulate=1)
    two = Setting(num_ranks=2, batch_size=2, num_workers=1, accumulate=1)
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    draw = random.Random(0)
    run(one, whole)
    kill_after(one, moved, 11, draw)
    kill_after(two, moved, 33, draw)
    run(one._replace(num_workers=2), moved)
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

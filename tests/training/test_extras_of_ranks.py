"""An extra that fails on one of two processes fails on both, is told once, and costs no step."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from chaos import TINY
from faults import wrap
from launched import LIMIT_S, output, start

from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.runs.side_failures import SideFailures
from ssl_swin.safe_pickle import load_checkpoint
from ssl_swin.training import probed_features
from ssl_swin.training.datamodule import ImageDataModule

pytestmark = pytest.mark.slow
SETTINGS = (
    *TINY,
    "batch_size=2",
    "num_workers=0",
    "trainer.max_epochs=2",
    "callbacks.probes.every_n_steps=12",
    "callbacks.probes.max_time_ratio=1",
    "callbacks.probes.num_train_images=8",
    "callbacks.reconstructions.every_n_steps=12",
    "name=e",
)
PLACES: dict[str, tuple[Any, str]] = {
    "probe": (probed_features, "pooled"),
    "picture": (SimMIM, "figure"),
    "images": (ImageDataModule, "held_out_batch"),
}


@dataclass(frozen=True)
class FailsOn:
    """A probe, a picture, or the taking of a picture's images, that fails on one rank.

    Attributes:
        rank: Rank where it fails.
        what: Names in `PLACES`.
    """

    rank: int
    what: tuple[str, ...]

    def __call__(self) -> None:
        """Plant it."""

        def around(original: Callable[..., Any]) -> Callable[..., Any]:
            calls = count()

            def replacement(*args: Any, **others: Any) -> Any:
                is_due = "images" not in self.what or next(calls) == 0  # a check takes them too
                if is_due and os.environ["RANK"] == str(self.rank):
                    raise ZeroDivisionError("planted")
                return original(*args, **others)

            return replacement

        for each in self.what:
            wrap(*PLACES[each], around)


def run(folder: Path, fault: Callable[[], None] | None = None) -> dict[str, torch.Tensor]:
    """Trains on two processes to the end, and gives the weights."""
    processes = start(SETTINGS, folder, 2, fault=fault)
    for process in processes:
        process.join(LIMIT_S)
    assert [process.exitcode for process in processes] == [0, 0], output(folder, 0)
    return load_checkpoint(folder / "runs/pretrain/e/checkpoints/last.ckpt")["state_dict"]


def test_extras__that_fail_on_one_of_two_processes(tmp_path: Path) -> None:
    expected = run(tmp_path / "whole")
    for rank, what, pictures in ((0, ("probe", "picture"), 3), (1, ("probe", "picture"), 3),
                                 (1, ("images",), 1)):  # fmt: skip
        folder = tmp_path / f"{rank}{what[0]}"
        (folder / "data").parent.mkdir()
        (folder / "data").symlink_to(tmp_path / "whole/data")
        weights = run(folder, FailsOn(rank, what))
        assert all(weights[name].equal(value) for name, value in expected.items())
        said, others = (output(folder, number).splitlines() for number in (0, 1))
        problem = f"failed: on process {rank}: ZeroDivisionError: planted; training goes on"
        titles = [line.partition(" failed")[0] for line in said if problem in line]
        counts = SideFailures(folder / "runs/pretrain/e").counts()
        if "probe" in what:
            assert sorted(titles) == ["a picture", "the probes"], said
            assert counts == {"the probes": 3, "a picture": pictures}
        else:
            assert titles == ["a picture"] and counts == {"a picture": pictures}, said
            assert not list((folder / "runs/pretrain/e/reconstructions").glob("*.png"))
        assert not [line for line in others if "failed" in line]
        assert not [line for line in (*said, *others) if 'File "' in line]
        log = (folder / "runs/pretrain/e/errors.log").read_text()
        assert log.count("raise ZeroDivisionError") >= sum(counts.values())

"""After a return to a checkpoint, divided weights and their average are those of the checkpoint."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import NotANumber, Together, wrap
from launched import LIMIT_S, output, start
from test_sharded_combinations import FINETUNE, SETTINGS, WEIGHTS_DIFFER

from ssl_swin.divided_checkpoint import load_state
from ssl_swin.training.callbacks import collapse_alarm, skipped_steps
from ssl_swin.training.callbacks.collapse_alarm import CollapseAlarm
from ssl_swin.training.callbacks.ema import CURRENT, WeightEma
from ssl_swin.training.module import TrainingModule
from ssl_swin.training.sharding import own_part

pytestmark = pytest.mark.slow
NUM_RANKS = 2
RUN = Path("runs/finetune/f")
LENGTH = (
    "ema_decay=0.5",
    "name=f",
    "trainer.max_epochs=3",
    "callbacks.skipped_steps.max_in_a_row=3",
    "callbacks.last.every_n_epochs=null",
    "callbacks.last.every_n_train_steps=2",
    "callbacks.last.save_on_train_epoch_end=null",
    "callbacks.last.num_previous=9",
)
BAD_STEPS = (5, 6, 7)  # on the second process alone; a checkpoint of 6 steps lies in their midst
HEALTHY_STEP, LAST_STEP = 4, 12
IN_PARTS = ("trainer.sharded_checkpoints=true",)
ROLLBACK = ("callbacks.collapse_alarm.on_collapse=rollback",)


@dataclass(frozen=True)
class Collapse:
    """An alarm of step 7, seen in a step or after a validation, since when it goes back to 4.

    Attributes:
        moment: "on_train_batch_end" or "on_validation_end".
    """

    moment: str

    def __call__(self) -> None:
        """Plant it."""
        done: list[bool] = []

        def around(original: Callable[..., Any]) -> Callable[..., Any]:
            def replacement(alarm: CollapseAlarm, trainer: Any, module: Any, *more: Any) -> Any:
                original(alarm, trainer, module, *more)
                if trainer.global_step > BAD_STEPS[1] and not done:
                    done.append(True)
                    alarm._act(trainer, module, "planted", since=BAD_STEPS[0])

            return replacement

        wrap(CollapseAlarm, self.moment, around)


NANS = Together(tuple(NotANumber(step, rank=1) for step in BAD_STEPS))
CASES = {
    "whole": ("ddp", (), NANS),
    "divided": ("fsdp", (), NANS),
    "divided, in parts": ("fsdp", IN_PARTS, NANS),
    "a collapse in a step": ("fsdp", ROLLBACK, Collapse("on_train_batch_end")),
    "a collapse after a validation": (
        "fsdp",
        (*ROLLBACK, *IN_PARTS),
        Collapse("on_validation_end"),
    ),
}


@dataclass(frozen=True)
class NoteReturn:
    """Keeps what each process begins the next step with, and the checkpoints of the return.

    Attributes:
        folder: Where to.
    """

    folder: Path

    def __call__(self) -> None:
        """Plant it."""

        rank, steps = os.environ["RANK"], list[int]()

        def noting(original: Callable[..., Any]) -> Callable[..., Any]:
            def replacement(trainer: Any, module: Any, folder: Path, **settings: Any) -> Any:
                step = original(trainer, module, folder, **settings)
                steps.append(step)
                if rank == "0":
                    shutil.copytree(folder, self.folder / "then")
                return step

            return replacement

        def keeping(original: Callable[..., Any]) -> Callable[..., Any]:
            def replacement(module: TrainingModule, *args: Any) -> Any:
                if steps:
                    content = {"step": steps.pop(), **held(module.trainer, module)}
                    torch.save(content, self.folder / f"{rank}.pt")
                return original(module, *args)

            return replacement

        wrap(skipped_steps, "roll_back", noting)
        wrap(collapse_alarm, "roll_back", noting)
        wrap(TrainingModule, "training_step", keeping)


def held(trainer: Any, module: Any) -> dict[str, Any]:
    """Gives this process's own weights, average and state of the optimiser."""
    (ema,) = (each for each in trainer.callbacks if isinstance(each, WeightEma))
    (optimizer,) = trainer.optimizers
    return {
        "weights": {name: own_part(value) for name, value in module.state_dict().items()},
        "average": {name: own_part(value) for name, value in ema._in_training.by_name().items()},
        "num_averaged": ema._in_training.num_steps,
        "optimizer": {
            key: {name: own_part(value) for name, value in values.items()}
            for key, values in optimizer.state_dict()["state"].items()
        },
    }


class Returned:
    """A run that went back once, and ended."""

    def __init__(self, root: Path, name: str) -> None:
        strategy, options, cause = CASES[name]
        self.place, self.is_divided = root / name, strategy == "fsdp"
        self.place.mkdir()
        settings = (*FINETUNE, *SETTINGS, *LENGTH, *options, f"data.root={root}/data")
        fault = Together((cause, NoteReturn(self.place)))
        for process in start(settings, self.place, NUM_RANKS, "finetune", strategy, fault):
            process.join(LIMIT_S)
            assert process.exitcode == 0, output(self.place, 0)

    def held(self, rank: int) -> dict[str, Any]:
        return torch.load(self.place / f"{rank}.pt")

    def checkpoint(self, step: int) -> dict[str, Any]:
        """Gives the checkpoint of then."""
        states = map(load_state, (self.place / "then").glob("last*.ckpt"))
        (found,) = (state for state in states if state["global_step"] == step)
        return found

    def end(self) -> dict[str, Any]:
        return load_state(self.place / RUN / "checkpoints/last.ckpt")

    def part(self, whole: torch.Tensor, rank: int) -> torch.Tensor:
        """Gives a rank's rows of a tensor, as FSDP2 divides it."""
        if not (self.is_divided and whole.dim()):
            return whole
        rows = whole.chunk(NUM_RANKS)
        return rows[rank] if rank < len(rows) else whole[:0]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Returned]:
    root = tmp_path_factory.mktemp("runs")
    return {name: Returned(root, name) for name in CASES}


@pytest.mark.parametrize("rank", range(NUM_RANKS))
@pytest.mark.parametrize("name", CASES)
def test_return__leaves_what_the_checkpoint_holds(
    runs: dict[str, Returned], name: str, rank: int
) -> None:
    run = runs[name]
    found, expected = run.held(rank), run.checkpoint(HEALTHY_STEP)
    assert found["step"] == HEALTHY_STEP
    assert found["num_averaged"] == int(expected["averaging_state"]["n_averaged"]) == HEALTHY_STEP
    (optimizer,) = expected["optimizer_states"]
    pairs = [(found["weights"][key], value) for key, value in expected[CURRENT].items()]
    pairs += [(value, expected["state_dict"][key]) for key, value in found["average"].items()]
    for key, values in optimizer["state"].items():
        pairs += [(found["optimizer"][key][name], value) for name, value in values.items()]
    assert len(pairs) > 100
    for ours, theirs in pairs:
        assert ours.equal(run.part(theirs, rank))


@pytest.mark.parametrize("name", CASES)
def test_return__was_a_change_of_weights_and_of_their_average(
    runs: dict[str, Returned], name: str
) -> None:
    before, later = (runs[name].checkpoint(step) for step in (HEALTHY_STEP, 6))
    for part in ("state_dict", CURRENT):
        assert not before[part]["model.head.weight"].equal(later[part]["model.head.weight"])
    assert not before["state_dict"]["model.head.weight"].equal(before[CURRENT]["model.head.weight"])


def test_return__is_the_same_however_the_weights_lie(runs: dict[str, Returned]) -> None:
    whole, divided, in_parts, *_ = (runs[name].end() for name in CASES)
    assert whole["global_step"] == divided["global_step"] == in_parts["global_step"] == LAST_STEP
    for part in ("state_dict", CURRENT):
        torch.testing.assert_close(divided[part], whole[part], **WEIGHTS_DIFFER)
        torch.testing.assert_close(in_parts[part], divided[part], rtol=0, atol=0)

"""A best.ckpt that is not what was written is never handed over, and costs no run."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import ssl_swin
from ssl_swin.jobs import training_tasks as job
from ssl_swin.safe_pickle import load_checkpoint

pytestmark = pytest.mark.slow
SETTINGS = [
    "backbone=none",
    "model=swin_nano",
    "model.embed_dim=8",
    "model.depths=[1,1,1]",
    "model.num_heads=[1,1,2]",
    "data.prepare.num_train=24",
    "data.prepare.num_val=10",
    "batch_size=4",
    "num_workers=0",
    "logger=csv",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.enable_progress_bar=false",
    "ema_decay=0.5",
    "name=f",
]
RUN = Path("runs/finetune/f")
BEST, LAST = RUN / "checkpoints/best.ckpt", RUN / "checkpoints/last.ckpt"


def flip(best: Path) -> None:
    content = bytearray(best.read_bytes())
    content[len(content) // 2] ^= 8
    best.write_bytes(content)


def of_another_run(best: Path) -> None:
    checkpoint = load_checkpoint(best)
    state = {name: torch.zeros_like(value) for name, value in checkpoint["state_dict"].items()}
    run = checkpoint["run"] | {"id": "another"}
    torch.save(checkpoint | {"state_dict": state, "run": run, "global_step": 5}, best)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "flipped": flip,
    "cut": lambda best: best.write_bytes(best.read_bytes()[: best.stat().st_size // 2]),
    "empty": lambda best: best.write_bytes(b""),
    "a stranger's": lambda best: torch.save({"model": {}}, best),
    "another run's": of_another_run,
    "gone": lambda best: best.unlink(),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a finished run, beside which a copy of it lies."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("finished")
        patch.chdir(folder)
        ssl_swin.finetune(SETTINGS)
        shutil.copytree(RUN, "whole")
        yield folder


@pytest.fixture
def handed_over(finished: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """What a test's run exports; the test finds the finished run whole."""
    exported: list[dict[str, torch.Tensor]] = []

    def save(folder: Path, task: Any, **others: Any) -> None:
        exported.append({name: value.clone() for name, value in task.state_dict().items()})

    shutil.rmtree(RUN)
    shutil.copytree("whole", RUN)
    monkeypatch.setattr(job, "save_task", save)
    return exported


def check(
    handed_over: list[dict[str, torch.Tensor]], weights: Path, told: str, *, no_best: bool = True
) -> None:
    (found,) = handed_over
    expected = load_checkpoint(weights)["state_dict"]
    assert all(torch.equal(expected[f"model.{name}"], value) for name, value in found.items())
    lines = [line for line in told.splitlines() if "best.ckpt" in line]
    note, *rest = lines
    assert note.startswith("note: ") and note.endswith("it no longer counts as the best"), told
    assert len([line for line in rest if not line.startswith("  best ")]) == 0, told
    assert ("the weights of the last step are handed over" in told) == no_best, told


@pytest.mark.parametrize("damage", DAMAGES)
def test_between_the_last_epoch_and_the_hand_over(handed_over, damage, monkeypatch, capsys):
    shutil.rmtree(RUN)
    fit = job.fit

    def fit_then_damage(*args: Any) -> None:
        fit(*args)
        DAMAGES[damage](BEST)

    monkeypatch.setattr(job, "fit", fit_then_damage)
    ssl_swin.finetune(SETTINGS)
    check(handed_over, LAST, capsys.readouterr().out)


@pytest.mark.parametrize("damage", DAMAGES)
def test_of_a_finished_run_that_is_started_again(handed_over, damage, capsys):
    DAMAGES[damage](BEST)
    ssl_swin.finetune(SETTINGS)
    check(handed_over, LAST, capsys.readouterr().out)


@pytest.mark.parametrize("damage", DAMAGES)
def test_of_a_run_that_goes_on__a_later_epoch_is_the_best(handed_over, damage, capsys):
    LAST.unlink()  # what is left is of the first epoch
    DAMAGES[damage](BEST)
    ssl_swin.finetune(SETTINGS)
    check(handed_over, BEST, capsys.readouterr().out, no_best=False)
    assert load_checkpoint(BEST)["global_step"] == 12


def test_whole__is_handed_over_without_a_word(handed_over, capsys):
    ssl_swin.finetune(SETTINGS)
    told = capsys.readouterr().out
    assert "note: " not in told.replace("note: data_overrides", "")
    assert f"\n  best       {BEST}\n" in told
    (found,) = handed_over
    expected = load_checkpoint(BEST)["state_dict"]
    assert all(torch.equal(expected[f"model.{name}"], value) for name, value in found.items())

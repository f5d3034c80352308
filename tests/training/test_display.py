"""What a run shows: by the clock of the test, and of whole jobs in a terminal and into a file."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar

from ssl_swin.training.display import Display
from ssl_swin.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
LINE = re.compile(
    r"step (\d+) of 12 · epoch (\d) of 3 · train/loss [\d.]+( · val/loss [\d.]+)? · "
    r"[\d.,]+ images/s · waiting for data \d+ %( · \d+ s left)?"
)
SMALL = (
    "trainer=cpu logger=csv trainer.max_epochs=3 batch_size=8 num_workers=0 "
    "trainer.accumulate_grad_batches=1 model.depths=[1,1] model.num_heads=[1,2] "
    "callbacks.reconstructions=null callbacks.probes=null trainer.check_val_every_n_epoch=1 "
    "data.prepare.num_train=32 data.prepare.num_val=8 trainer.progress_every_s=1e-6"
).split()


class Run:
    """Plays Lightning's hooks to the display by the clock."""

    def __init__(self, *, step: int = 0, every_s: float = 300.0, **trainer: Any) -> None:
        self.now_s = 5000.0
        self.display: Any = Display(every_s, clock=lambda: self.now_s)
        settings = {
            "global_step": step,
            "current_epoch": 2,
            "max_epochs": 24,
            "max_steps": -1,
            "num_training_batches": 784,
            "accumulate_grad_batches": 2,
            "world_size": 4,
            "is_global_zero": True,
            "sanity_checking": False,
            "callback_metrics": {"train/loss": torch.tensor(0.41234)},
            "num_val_batches": [40],
            "checkpoint_callbacks": [],
        }
        self.trainer = SimpleNamespace(**{**settings, **trainer})
        self.display.setup(self.trainer, None, "fit")
        self.display.on_train_start(self.trainer, None)

    def step(self, number: int = 1, *, wait_s: float = 0.0, work_s: float = 1.0) -> None:
        """Two batches of 8 images each."""
        for batch in range(2 * number):
            self.now_s += wait_s
            self.display.on_train_batch_start(self.trainer, None, None, 0)
            self.now_s += work_s
            self.trainer.global_step += batch % 2
            images = SimpleNamespace(names=8 * ["x"])
            self.display.on_train_batch_end(self.trainer, None, None, images, 0)


def test_display__lines_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run()
    run.step(121, wait_s=0.25, work_s=0.75)  # 4 devices, 8 images each in 1 s
    assert capsys.readouterr().out.splitlines() == [
        f"step {step} of 9,408 · epoch 3 of 24 · train/loss 0.4123 · 32 images/s · "
        f"waiting for data 25 %{left}"
        for step, left in [
            (1, ""),  # how long a step takes is not known yet
            (16, " · 5 h 14 min left"),
            (39, " · 5 h 13 min left"),
            (73, " · 5 h 12 min left"),
        ]
    ]


def test_display__resumed(capsys: pytest.CaptureFixture[str]) -> None:
    """Counts on from the checkpoint's step; the time left is by the steps of this start alone."""
    run = Run(step=9000, every_s=1.0)
    run.step(2)
    run.step(2, work_s=2.0)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" · ")[0] for line in lines] == [
        f"step {step:,} of 9,408" for step in (9001, 9002, 9003, 9004)
    ]
    assert lines[1].endswith("14 min left")  # 406 steps of 2 s
    assert lines[3].endswith("23 min left")  # 404 of (2 + 4 + 4) / 3 s


def test_display__validation(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(every_s=10.0, max_steps=100)
    run.step(1)
    run.display.on_validation_start(run.trainer, None)
    for batch in range(40):
        run.now_s += 1.0
        run.display.on_validation_batch_end(run.trainer, None, None, None, batch)
    run.trainer.callback_metrics["val/loss"] = torch.tensor(0.5)
    run.display.on_validation_end(run.trainer, None)
    run.step(3, work_s=0.5)
    run.display.on_train_end(run.trainer, None)
    first, *validating, last = capsys.readouterr().out.splitlines()
    assert first.startswith("step 1 of 100 · ")
    assert validating == [
        f"step 1 of 100 · validation batch {batch} of 40" for batch in (10, 20, 30, 40)
    ]
    assert " · val/loss 0.5 · " in last and last.startswith("step 4 of 100 · ")


def test_display__reads_no_value_between_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A value of a device that is read waits for the device."""

    class Metrics:
        num_read = 0

        def get(self, name: str) -> None:
            self.num_read += 1

    run = Run(callback_metrics=Metrics())
    run.step(50)
    assert run.trainer.callback_metrics.num_read == len(capsys.readouterr().out.splitlines()) == 3


def test_display__one_process_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    Run(is_global_zero=False).step(100)
    assert capsys.readouterr().out == ""


def test_trainer__shows_in_one_way() -> None:
    def shown(**settings: Any) -> list[type]:
        trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, **settings)
        bars = (Display, TQDMProgressBar, RichProgressBar)
        return [type(each) for each in trainer.callbacks if isinstance(each, bars)]  # type: ignore[attr-defined]

    assert shown() == [Display]
    assert shown(enable_progress_bar=None) == [Display]
    assert shown(enable_progress_bar=False) == []
    assert shown(callbacks=[TQDMProgressBar()]) == [TQDMProgressBar]


def command(run_dir: Path, *settings: str) -> list[str]:
    data = f"data.root={run_dir.parent / 'data'}"
    return [
        *(sys.executable, str(ROOT / "pretrain.py"), *SMALL),
        *(data, f"run_dir={run_dir}", *settings),
    ]


@pytest.mark.slow
def test_display__of_a_job_into_a_file_and_resumed(tmp_path: Path) -> None:
    def shown(*settings: str) -> list[re.Match[str]]:
        log = tmp_path / "log.txt"
        with log.open("w") as file:
            done = subprocess.run(command(tmp_path / "run", *settings), stdout=file, stderr=file)
        text = log.read_text()
        assert done.returncode == 0, text
        assert "\r" not in text and "\x1b" not in text
        steps = [line for line in text.splitlines() if line.startswith("step ")]
        assert all(" · validation batch " in line or LINE.fullmatch(line) for line in steps), steps
        return [found for line in steps if (found := LINE.fullmatch(line))]

    first = shown()
    assert [int(line[1]) for line in first] == list(range(1, 13))
    assert [int(line[2]) for line in first] == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]
    assert [line[3] is None for line in first] == 4 * [True] + 8 * [False]
    states = tmp_path / "run" / "checkpoints"
    ends = sorted(states.glob("last_*.ckpt"))
    assert ends, "no earlier state to go on from"
    step = int(ends[0].stem.removeprefix("last_"))
    resumed = shown(f"resume={ends[0]}", f"run_dir={tmp_path / 'again'}")
    assert [int(line[1]) for line in resumed] == list(range(step + 1, 13))


@pytest.mark.slow
def test_display__of_a_job_in_a_terminal_of_80_columns(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()  # of 0 columns: taken for 80
    environment = {**os.environ, "TERM": "xterm"}
    job = subprocess.Popen(
        command(tmp_path / "run"), stdout=theirs, stderr=theirs, stdin=theirs, env=environment
    )
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 65536):
            shown += block
    except OSError:  # Linux's way to say that the other end is closed
        pass
    os.close(ours)
    text = shown.decode()
    assert job.wait(timeout=60) == 0, text
    assert "v_num" not in text
    drawn = [line for line in re.split(r"\r\x1b\[K|\r?\n", text) if "/12 · " in line or "━" in line]
    assert len(drawn) >= 2, text
    assert all(len(line) < 80 for line in drawn), drawn
    assert any(
        re.search(r"loss [\d.]+ · [\d.]+ images/s · data wait \d+ %", each) for each in drawn
    )
    assert "\nfinished run: 12 steps" in text.replace("\r\x1b[K", "").replace("\r", "")

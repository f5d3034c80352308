"""Signals to a process with all that it has started, as terminals and schedulers send them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from launched import LIMIT_S, ROOT, finish, output, start
from wandb_files import wandb_history, wandb_records

pytestmark = pytest.mark.slow
TINY = (
    "model.embed_dim=8",
    "model.depths=[1,1,1]",
    "model.num_heads=[1,1,2]",
    "data.prepare.num_train=32",
    "data.prepare.num_val=8",
    "data.order.block=4",
    "batch_size=4",
    "num_workers=2",
    "logger=csv",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=500",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "callbacks.reconstructions=null",
    "callbacks.probes=null",
)
CLASSIFIER = ("backbone=none", "model=swin_nano", *TINY[:3])
FINETUNE = (
    *CLASSIFIER,
    *(option for option in TINY[3:] if not option.startswith("callbacks")),
    "ema_decay=0.9",
)
PROBE = (*CLASSIFIER, "data.prepare.num_train=32", "data.prepare.num_val=8", "linear.epochs=100000")
RUN = "runs/pretrain/swin_nano_demo"


def begin(overrides: Sequence[str], folder: Path, job: str = "pretrain") -> BaseProcess:
    """Starts a job as the first of a process group of its own."""
    (process,) = start(overrides, folder, 1, job, fault=os.setsid)
    return process


def wait_until(happened: Callable[[], object], process: BaseProcess, folder: Path) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not happened():
        assert process.is_alive() and time.monotonic() < deadline, output(folder, 0)
        time.sleep(0.01)


def send(process: BaseProcess, number: int) -> None:
    assert process.pid is not None
    os.killpg(process.pid, number)


def check_ended(process: BaseProcess, folder: Path, status: int) -> str:
    """Returns what it printed, once nothing is left of it: no process, no unfinished file."""
    process.join(LIMIT_S)
    said = output(folder, 0)
    assert process.exitcode == status, said
    assert 'File "' not in said
    deadline = time.monotonic() + 10
    while is_group_alive(process):
        assert time.monotonic() < deadline, "a process was left behind"
        time.sleep(0.05)
    assert not list(folder.rglob("*.tmp"))
    return said


def is_group_alive(process: BaseProcess) -> bool:
    try:
        send(process, 0)
    except ProcessLookupError:
        return False
    return True


def num_rows(folder: Path, run: str = RUN) -> int:
    path = folder / run / "metrics.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


def test_pretrain__sigterm_to_the_group_with_loading_processes(tmp_path: Path) -> None:
    process = begin(TINY, tmp_path)
    wait_until(lambda: num_rows(tmp_path) > 3, process, tmp_path)
    send(process, signal.SIGTERM)
    said = check_ended(process, tmp_path, 143)
    assert f"saved in {RUN}/checkpoints/last.ckpt; to go on: " in said.splitlines()[-1]


def test_finetune__sigterm_to_the_group_with_averages_and_best(tmp_path: Path) -> None:
    process = begin(FINETUNE, tmp_path, "finetune")
    best = "runs/finetune/*/checkpoints/best.ckpt"
    wait_until(lambda: list(tmp_path.glob(best)), process, tmp_path)
    send(process, signal.SIGTERM)
    said = check_ended(process, tmp_path, 143)
    assert "saved in runs/finetune/" in said.splitlines()[-1]
    process = begin(FINETUNE, tmp_path, "finetune")
    wait_until(lambda: "continuing from" in output(tmp_path, 0), process, tmp_path)
    send(process, signal.SIGTERM)
    check_ended(process, tmp_path, 143)


def test_linear_probe__sigterm_to_the_group(tmp_path: Path) -> None:
    process = begin((*PROBE, "logger=csv"), tmp_path, "linear_probe")
    wait_until(lambda: list(tmp_path.glob("runs/features/**/*.npy")), process, tmp_path)
    send(process, signal.SIGTERM)
    said = check_ended(process, tmp_path, 143)
    assert "stopped by SIGTERM; there was nothing new to save; to go on: " in said


def test_pretrain__sigterm_while_the_data_is_drawn(tmp_path: Path) -> None:
    brief = ("trainer.max_epochs=1", "trainer.max_steps=2")
    drawn = (*TINY, "data.prepare.num_train=600", *brief)
    process = begin(drawn, tmp_path)
    wait_until(lambda: list(tmp_path.glob("data/*/*")), process, tmp_path)
    send(process, signal.SIGTERM)
    said = check_ended(process, tmp_path, 143)
    assert "stopped by SIGTERM; there was nothing new to save; to go on: " in said
    assert not (tmp_path / RUN).exists()
    finish(drawn, tmp_path, 1)  # completes the data too


def slow_disk() -> None:
    """Lets a checkpoint take for ever to reach the disk."""
    from ssl_swin.training.checkpointing import writing

    os.setsid()
    writing.fsync = lambda path: time.sleep(LIMIT_S)


def test_pretrain__a_second_ctrl_c_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    (process,) = start(TINY, tmp_path, 1, fault=slow_disk)
    wait_until(lambda: num_rows(tmp_path), process, tmp_path)
    send(process, signal.SIGINT)
    wait_until(lambda: list(tmp_path.rglob("*.ckpt.*.tmp")), process, tmp_path)
    time.sleep(0.2)  # two that come together are one
    before = time.monotonic()
    send(process, signal.SIGINT)
    said = check_ended(process, tmp_path, 130)
    assert time.monotonic() - before < 5
    assert "Ctrl-C: saving at the next step, then stopping; once more stops at once" in said
    assert said.splitlines()[-1] == "stopped at once by Ctrl-C; what was not saved is lost"


def test_pretrain__killed_while_it_saves_leaves_nothing_for_long(tmp_path: Path) -> None:
    brief = (*TINY, "trainer.max_epochs=1", "callbacks.last.every_n_epochs=1")
    (process,) = start(brief, tmp_path, 1, fault=slow_disk)
    wait_until(lambda: list(tmp_path.rglob("*.ckpt.*.tmp")), process, tmp_path)
    send(process, signal.SIGKILL)
    process.join(LIMIT_S)
    assert list(tmp_path.rglob("*.ckpt.*.tmp"))
    for unfinished in tmp_path.rglob("*.tmp"):
        os.utime(unfinished, (1e9, 1e9))  # before the next process was forked
    finish(brief, tmp_path, 1)
    assert not list(tmp_path.rglob("*.tmp"))


def test_python__ctrl_c_in_a_call_saves_and_ends_the_script(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import ssl_swin\nssl_swin.pretrain({list(TINY)!r})\nprint('never')\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        while not num_rows(tmp_path):
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == -signal.SIGINT, said  # as Python ends after a Ctrl-C
    assert said.splitlines()[-1] == "KeyboardInterrupt"
    assert said.count("Traceback") == 1
    assert f"saved in {RUN}/checkpoints/last.ckpt\n" in said
    assert "never" not in said
    assert (tmp_path / RUN / "checkpoints/last.ckpt").exists()


def test_pretrain__a_second_process_is_refused(tmp_path: Path) -> None:
    first = begin(TINY, tmp_path)
    wait_until(lambda: num_rows(tmp_path), first, tmp_path)
    here = f"{RUN} is in use: process {first.pid} on "
    finish(TINY, tmp_path, 1, 2)
    assert here in output(tmp_path, 0)
    assert "choose another name=" in output(tmp_path, 0)
    send(first, signal.SIGTERM)
    check_ended(first, tmp_path, 143)


SLURM = {
    "SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "mim", "SLURM_NTASKS": "1", "SLURM_NNODES": "1",
    "SLURM_NTASKS_PER_NODE": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0",
    "SLURM_JOB_NODELIST": "localhost", "SLURM_STEP_ID": "0",
}  # fmt: skip


def in_slurm() -> None:
    """Pretends that srun has started this process, on a machine with a stand-in for scontrol."""
    os.setsid()
    Path("bin").mkdir(exist_ok=True)
    stand_in = Path("bin/scontrol")
    stand_in.write_text(f'#!/bin/sh\necho "$@" >> "{Path.cwd()}/asked"\n')
    stand_in.chmod(0o755)
    os.environ.update(SLURM, PATH=f"{Path('bin').absolute()}:{os.environ['PATH']}")


def test_slurm__a_requeued_job_goes_on_in_its_run_and_dashboard(tmp_path: Path) -> None:
    online = (*TINY, "logger=wandb", "trainer.max_epochs=4")
    (process,) = start(online, tmp_path, 1, fault=in_slurm)
    wait_until(lambda: num_rows(tmp_path), process, tmp_path)
    send(process, signal.SIGUSR1)
    said = check_ended(process, tmp_path, 138)
    assert (tmp_path / "asked").read_text() == "requeue 12\n"
    assert said.splitlines()[-1] == (
        "pretrain.py: Slurm job 12 is requeued and will go on from there"
    )
    (again,) = start(online, tmp_path, 1, fault=in_slurm)
    check_ended(again, tmp_path, 0)
    assert [path.name for path in (tmp_path / "runs/pretrain").iterdir()] == ["swin_nano_demo"]
    files = sorted((tmp_path / RUN).glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 1  # with what the run logged before
    heads = [r.run for r in wandb_records(files[0]) if r.WhichOneof("record_type") == "run"]
    assert {head.run_id for head in heads} == {(tmp_path / RUN / "run_id").read_text()}
    logged = [row for row in wandb_history(files[0]) if "train/loss" in row]
    assert [row["trainer/global_step"] for row in logged] == list(range(1, 33))

"""A Slurm job goes back into its queue, with a stand-in for scontrol."""

from pathlib import Path

import pytest

from ssl_swin.launch.requeue import requeue_slurm_job, slurm_job


def scontrol(folder: Path, status: int) -> None:
    program = folder / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" > {folder}/asked\necho disabled >&2\nexit {status}\n')
    program.chmod(0o755)


@pytest.fixture(autouse=True)
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)


def test_requeue__calls_scontrol(tmp_path: Path) -> None:
    scontrol(tmp_path, 0)
    assert requeue_slurm_job() == "Slurm job 12 is requeued and will go on from there"
    assert (tmp_path / "asked").read_text() == "requeue 12\n"


def test_requeue__says_why_not(tmp_path: Path) -> None:
    assert "there is no scontrol on PATH" in requeue_slurm_job()
    scontrol(tmp_path, 1)
    assert requeue_slurm_job().endswith("scontrol says: disabled")


def test_requeue__outside_of_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID")
    assert requeue_slurm_job() == ""


def test_slurm_job__of_an_array() -> None:
    environment = {"SLURM_JOB_ID": "15", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}
    assert slurm_job(environment) == "12_3"

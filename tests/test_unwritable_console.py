"""A job whose output nobody takes: it ends as if somebody did."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from chaos import TINY
from launched import ROOT

pytestmark = pytest.mark.slow
SHORT = (*TINY, "num_workers=0", "trainer.max_epochs=1", "name=k")


@pytest.mark.parametrize(
    ("shell", "job", "more", "told"),
    [
        ("{} 2>said | head -1; echo ${{PIPESTATUS[0]}} >status", "pretrain", [], "Broken pipe"),
        ("{} 2>said >/dev/full; echo $? >status", "finetune", [], "No space left on device"),
        ("{} <&- >&- 2>&-; echo $? >status", "pretrain", ["logger=wandb"], ""),
        ("{} 2>&1 | true; echo ${{PIPESTATUS[0]}} >status", "pretrain", ["logger=wandb"], ""),
    ],
)
def test_job__goes_on(tmp_path: Path, shell: str, job: str, more: list[str], told: str) -> None:
    settings = (*(("backbone=none", "model=swin_nano") if job == "finetune" else ()), *SHORT, *more)
    command = " ".join([sys.executable, str(ROOT / f"{job}.py"), *settings])
    environment = {**os.environ, "WANDB_MODE": "offline"}
    subprocess.run(
        ["bash", "-c", shell.format(command)], cwd=tmp_path, env=environment, check=False
    )
    said = (tmp_path / "said").read_text() if told else ""
    assert (tmp_path / "status").read_text() == "0\n", said
    assert 'File "' not in said
    assert [line for line in said.splitlines() if told in line and "the run goes on" in line] == [
        line for line in said.splitlines() if "takes no text" in line
    ]
    assert bool(told) == ("takes no text" in said)
    run = tmp_path / f"runs/{job}/k"
    assert json.loads((run / "provenance.json").read_text())["status"] == "finished"
    assert len((run / "metrics.csv").read_text().splitlines()) >= 13
    assert (run / "checkpoints/last.ckpt").is_file()

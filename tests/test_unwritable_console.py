"""Output that nobody takes: a run goes on to its end, a command says so."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from chaos import TINY
from launched import ROOT
from PIL import Image

from ssl_swin.cli import main

pytestmark = pytest.mark.slow
PRINTING = (
    *("stats {}", "check {}", "recipes", "--help", "--version", "pack --help"),
    *("pretrain --cfg job", "pretrain --help", "pretrain --version", "pretrain --info searchpath"),
)
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


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name in ("cats/one.png", "dogs/two.png"):
        (folder / name).parent.mkdir()
        Image.new("RGB", (40, 40), (200, 30, 30)).save(folder / name)
    assert main(["pack", str(folder), str(folder / "shards"), "--workers", "0"]) == 0
    return folder / "shards"


@pytest.mark.parametrize("words", PRINTING)
@pytest.mark.parametrize(
    ("shell", "status"),
    [
        ("{} >/dev/full", 2),
        ("{} | true; exit ${{PIPESTATUS[0]}}", 0),
        ("{} >&-", 0),
        ("{} 2>&1 >/dev/null | true; exit ${{PIPESTATUS[0]}}", 0),
    ],
)
def test_command__tells_that_its_text_was_lost(
    shards: Path, tmp_path: Path, words: str, shell: str, status: int
) -> None:
    command = f"{sys.executable} -m ssl_swin {words.format(shards)}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", shell.format(command)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if "takes no text" in line]
    assert len(lines) == (status == 2), done.stderr
    lost = "the output takes no text (No space left on device)"
    assert all(line.endswith(lost) for line in lines)

"""The scripts under torchrun itself."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[1]
LIMIT_S = 120
SETTINGS = (
    "model.embed_dim=8",
    "model.depths=[1,1,1]",
    "model.num_heads=[1,1,2]",
    "data.prepare.num_train=32",
    "data.prepare.num_val=8",
    "batch_size=4",
    "num_workers=1",
    "logger=csv",
    "trainer=ddp",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=500",
    "trainer.log_every_n_steps=1",
    "trainer.enable_progress_bar=false",
    "callbacks.reconstructions=null",
    "callbacks.probes=null",
    "name=t",
)


def stopped_by_sigterm(folder: Path, after_steps: int) -> tuple[int, str]:
    """Starts two processes, and sends SIGTERM to torchrun; returns the step saved and the output.

    Only torchrun gets the signal, as from a scheduler; it passes it on.
    """
    metrics = folder / "runs/pretrain/t/metrics.csv"
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*words, "--standalone", str(ROOT / "pretrain.py"), *SETTINGS],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + LIMIT_S
        while not metrics.exists() or len(metrics.read_text().splitlines()) <= after_steps:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.terminate()
        said, _ = process.communicate(timeout=60)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # nobody is left
    found = re.search(r"stopped by SIGTERM after step (\d+), saved in .*last\.ckpt", said)
    assert found is not None, said
    assert "the same torchrun command goes on from there" in said
    assert said.count("stopped by") == 1
    assert process.returncode not in (0, -signal.SIGTERM)  # torchrun has a code of its own
    return int(found[1]), said


def test_torchrun__sigterm_saves_and_the_same_command_goes_on(tmp_path: Path) -> None:
    first, _ = stopped_by_sigterm(tmp_path, 3)
    second, said = stopped_by_sigterm(tmp_path, first + 3)
    assert "continuing from runs/pretrain/t/checkpoints/last.ckpt" in said
    assert second > first

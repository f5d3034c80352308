import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssl_swin.launch.config_files import compose_job, group_options
from ssl_swin.launch.resolvers import register_resolvers

ROOT = Path(__file__).parents[2]
TINY = (
    "model.embed_dim=8 model.depths=[1,1,1] model.num_heads=[1,1,2] data.prepare.num_train=64 "
    "data.prepare.num_val=8 batch_size=4 trainer.enable_progress_bar=false"
).split()


@pytest.mark.slow
@pytest.mark.parametrize("option", group_options("debug"))
@pytest.mark.parametrize("job", ["pretrain", "finetune"])
def test_debug__has_a_folder_of_its_own_and_one_process(job: str, option: str) -> None:
    register_resolvers()
    needed = ["backbone=none", "model=swin_nano"] if job == "finetune" else []
    cfg = compose_job(job, [f"debug={option}", *needed])
    assert cfg.run_dir.startswith(f"runs/debug/{job}_2")
    assert (cfg.num_workers, cfg.trainer.devices) == (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "option", "steps"),
    [
        ("pretrain", "limit", 30),
        ("pretrain", "overfit", 200),
        ("pretrain", "profiler", 16),
        ("finetune", "fast_dev_run", 1),
        ("finetune", "overfit", 200),
    ],
)
def test_debug__runs(tmp_path: Path, job: str, option: str, steps: int) -> None:
    needed = ["backbone=none", "model=swin_nano"] if job == "finetune" else []
    done = subprocess.run(
        [sys.executable, str(ROOT / f"{job}.py"), f"debug={option}", *needed, *TINY],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (folder,) = (tmp_path / "runs/debug").iterdir()
    with (folder / "metrics.csv").open(newline="") as file:
        assert max(int(row["step"]) for row in csv.DictReader(file)) == steps
    assert (folder / "fit-profile.txt").is_file() == (option == "profiler")

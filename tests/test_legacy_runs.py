"""Runs that an earlier version made are continued; see tests/legacy/README.md."""

import json
import tarfile
from pathlib import Path

import pytest
from launched import finish, output

from ssl_swin.cli import main as ssl_swin_command

pytestmark = pytest.mark.slow
LEGACY = Path(__file__).parent / "legacy" / "version_0_1_0.tar.xz"
DATA = (
    "data.prepare.num_train=24",
    "data.prepare.num_val=8",
    "data.prepare.size_px=48",
    "data.order.block=4",
    "data.order.pool=8",
    "batch_size=4",
    "num_workers=0",
    "logger=csv",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "callbacks.last.every_n_epochs=null",
    "callbacks.last.save_on_train_epoch_end=null",
    "callbacks.batch_digest.enabled=true",
)
PRETRAIN = (
    "model=swin_nano",
    "model.img_size_px=48",
    "model.patch_size_px=2",
    "model.embed_dim=4",
    "model.depths=[1,1,1]",
    "model.num_heads=[1,1,2]",
    "callbacks.last.every_n_train_steps=8",
    "callbacks.milestones=null",
    "callbacks.probes=null",
    "callbacks.reconstructions=null",
)
COMMANDS = {
    "pretrain/simmim": (*PRETRAIN, "objective=simmim", "name=simmim"),
    "pretrain/simmim_sparse": (*PRETRAIN, "objective=simmim_sparse", "name=simmim_sparse"),
    "finetune/simmim": (
        "backbone=runs/pretrain/simmim",
        "name=simmim",
        "+callbacks.last.every_n_train_steps=8",
    ),
}
FIRST, LAST = 9, 12  # steps that a continued run makes


def steps(digests: Path) -> dict[int, dict[str, object]]:
    """The last line of each step: a continued run appends."""
    lines = [json.loads(line) for line in digests.read_text().splitlines()]
    return {line["step"]: line for line in lines}


def make_index_version_1(shards: Path) -> None:
    """Reduces an index to what version 1 had: class names, and no place of any image."""
    (shards / "index.bin").unlink()
    path = shards / "index.json"
    content = json.loads(path.read_text())
    content = {key: content[key] for key in ("format", "classes")} | {"version": 1, "splits": {}}
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("run", "index_version"), [*((run, 2) for run in COMMANDS), ("pretrain/simmim", 1)]
)
def test_run_of_version_0_1_0__continues_as_it_would_have_gone_on(
    run: str, index_version: int, tmp_path: Path
) -> None:
    with tarfile.open(LEGACY) as archive:
        archive.extractall(tmp_path, filter="data")
    if index_version == 1:
        make_index_version_1(tmp_path / "data/demo_48px")
        assert ssl_swin_command(["index", str(tmp_path / "data/demo_48px")]) == 0  # as the job says
    job = run.partition("/")[0]
    digests = tmp_path / "runs" / run / "batch_digest" / "rank0.jsonl"
    uninterrupted = steps(digests)
    digests.unlink()
    if job == "finetune":  # a backbone is found by its run, and 0.1.0 had left one
        finish((*DATA, *COMMANDS["pretrain/simmim"]), tmp_path, 1)
    finish((*DATA, *COMMANDS[run]), tmp_path, 1, job=job)
    assert f"continuing from runs/{run}/checkpoints/last.ckpt" in output(tmp_path, 0)
    continued = steps(digests)
    assert list(continued) == list(range(FIRST, LAST + 1))
    for step, line in continued.items():
        before = uninterrupted[step]
        for column in ("names", "pixels"):
            assert line[column] == before[column], f"{column} of step {step}"
        assert line.get("masks") == before.get("masks")
        loss, expected = (float.fromhex(str(each["loss"])) for each in (line, before))
        assert loss == pytest.approx(expected, rel=1e-5, abs=0)

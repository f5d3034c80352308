"""Whole runs of objective=distillation: what is handed on, and a teacher that moves or changes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from ssl_swin.safe_pickle import load_checkpoint

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
SMALL = (
    "model.embed_dim=8",
    "model.depths=[1,1,1]",
    "model.num_heads=[1,1,2]",
    "data.prepare.num_train=24",
    "data.prepare.num_val=8",
    "batch_size=4",
    "num_workers=0",
    "logger=csv",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.check_val_every_n_epoch=1",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "callbacks.last.every_n_epochs=null",
    "callbacks.last.every_n_train_steps=4",  # of 6
    "callbacks.last.save_on_train_epoch_end=null",
)
STUDENT = ("objective=distillation", "name=student")


def job(folder: Path, *options: str, script: str = "pretrain") -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / f"{script}.py"), *options],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that a run made, and its student."""
    folder = tmp_path_factory.mktemp("runs")
    code, printed = job(folder, *SMALL, "name=teacher", "callbacks.probes=null")
    assert code == 0, printed
    code, printed = job(folder, *SMALL, *STUDENT, "objective.teacher=runs/pretrain/teacher")
    assert code == 0, printed
    assert "feature distillation from runs/pretrain/teacher (width 32, 6x6 cells)" in printed
    assert printed.count("note: feature distillation has nothing to draw: no reconstructions") == 1
    assert "  pictures " not in printed
    return folder


def test_student__is_handed_on_without_its_teacher(runs: Path) -> None:
    run = runs / "runs/pretrain/student"
    assert not (run / "reconstructions").exists() and (run / "report.html").is_file()
    columns = (run / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/loss", "val/loss", "val/loss_vs_mean", "probe/knn_top1/stage3"} <= {*columns}
    assert [each.name for each in (run / "backbone").glob("*.safetensors")] == ["model.safetensors"]
    state = load_checkpoint(run / "checkpoints/last.ckpt")["state_dict"]
    assert not [name for name in state if "teacher" in name]
    card = (run / "backbone/README.md").read_text()
    assert "feature distillation from runs/pretrain/teacher" in card
    backbone = ("backbone=runs/pretrain/student", "data.prepare.num_train=24")
    code, printed = job(runs, *backbone, "data.prepare.num_val=8", "device=cpu", "name=probe",
                        script="linear_probe")  # fmt: skip
    assert code == 0, printed


def test_student__continues_with_a_teacher_that_moved(runs: Path, tmp_path: Path) -> None:
    before = load_file(runs / "runs/pretrain/student/backbone/model.safetensors")
    shutil.copytree(runs / "runs/pretrain/teacher/backbone", tmp_path / "moved")
    moved = f"objective.teacher={tmp_path}/moved"
    code, printed = job(runs, *SMALL, *STUDENT, moved)
    assert code == 0 and "continuing from" in printed, printed
    after = load_file(runs / "runs/pretrain/student/backbone/model.safetensors")
    assert all(after[name].equal(tensor) for name, tensor in before.items())


def test_student__refuses_a_teacher_that_changed_or_went(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "runs/pretrain/teacher/backbone", tmp_path / "changed")
    state = load_file(tmp_path / "changed/model.safetensors")
    state["norm.bias"] += 1e-3
    save_file(state, tmp_path / "changed/model.safetensors")
    code, printed = job(runs, *SMALL, *STUDENT, f"objective.teacher={tmp_path}/changed")
    assert code == 2 and 'File "' not in printed
    assert "objective.teacher is not what this run was trained with" in printed
    code, printed = job(runs, *SMALL, *STUDENT, f"objective.teacher={tmp_path}/gone")
    assert code == 2 and 'File "' not in printed
    assert f"objective.teacher={tmp_path}/gone: no such folder" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("data.channels=1", "data.mean=[0.5]", "data.std=[0.2]"), "takes images of 3 channels"),
        (("model.img_size_px=64", "model.window_size=4", "objective.teacher_size_px=96"),
         "makes 6x6 cells of 96x96 px, and the student 4x4"),
    ],
)  # fmt: skip
def test_teacher__that_does_not_fit(runs: Path, options: tuple[str, ...], message: str) -> None:
    teacher = "objective.teacher=runs/pretrain/teacher"
    given = (*SMALL, "objective=distillation", "name=other", teacher, *options)
    code, printed = job(runs, *given)
    assert code == 2 and 'File "' not in printed
    assert message in printed

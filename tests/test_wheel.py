"""The wheel alone trains: built offline, installed beside the libraries, run in an empty folder."""

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY = (
    "data.prepare.num_train=24",
    "data.prepare.num_val=20",
    "batch_size=8",
    "num_workers=0",
    "trainer.max_epochs=1",
    "trainer.enable_progress_bar=false",
    "logger=csv",
)
NANO = ("model.embed_dim=8", "model.depths=[1,1,1]", "model.num_heads=[1,1,2]")

pytestmark = pytest.mark.slow


def printed(*command: str | Path, cwd: Path) -> str:
    """Run a command that knows nothing of the checkout; return what it printed."""
    env = {"PATH": "", "HOME": str(cwd), "OMP_NUM_THREADS": "1", "PIP_NO_INDEX": "1"}
    result = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=500, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that holds the wheel, and sees the libraries of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("ssl_swin", "hydra_plugins"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip")
    printed(*pip, "wheel", "--no-deps", "--no-build-isolation", ".", "-w", folder, cwd=source)
    (wheel,) = folder.glob("ssl_swin-*.whl")
    shutil.rmtree(source)
    environment = folder / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    printed(*pip, "--python", python, "install", "--no-deps", wheel, cwd=folder)
    (packages,) = environment.glob("lib/python*/site-packages")
    # Files of this kind inside that folder are not read, so that no editable install is seen.
    (packages / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    where = printed(python, "-c", "import ssl_swin; print(ssl_swin.__file__)", cwd=folder)
    assert Path(where.strip()).is_relative_to(packages)
    return environment / "bin"


@pytest.fixture(scope="module")
def workplace(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a tiny model has been pretrained."""
    folder = tmp_path_factory.mktemp("workplace")
    told = printed(installed / "ssl-swin", "pretrain", *TINY, *NANO, "name=tiny", cwd=folder)
    assert "ssl-swin linear-probe backbone=runs/pretrain/tiny data=demo" in told
    return folder


def test_wheel__fine_tunes_what_it_pretrained(installed: Path, workplace: Path) -> None:
    run = workplace / "runs/pretrain/tiny"
    assert json.loads((run / "provenance.json").read_text())["status"] == "finished"
    printed(installed / "ssl-swin", "finetune", f"backbone={run}", *TINY, cwd=workplace)
    tuned = workplace / "runs/finetune/tiny_demo"
    assert json.loads((tuned / "provenance.json").read_text())["status"] == "finished"
    assert (tuned / "classifier/model.safetensors").is_file()


def test_wheel__lists_recipes_and_draws_a_batch(installed: Path, workplace: Path) -> None:
    recipes = printed(installed / "ssl-swin", "recipes", cwd=workplace).splitlines()
    files = list((ROOT / "ssl_swin/conf/experiment").glob("*.yaml"))
    assert len(recipes) == 1 + len(files)
    options = (*TINY[:2], "--images", "2", "--out", "batch.png")
    told = printed(installed / "ssl-swin", "show", *options, cwd=workplace)
    assert told.splitlines()[-1].startswith("batch.png: 2 images of epoch 0, 3 x 96 x 96; ")


def test_wheel__takes_experiments_of_the_user(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "mine/experiment").mkdir(parents=True)
    experiment = tmp_path / "mine/experiment/pretrain_mine.yaml"
    experiment.write_text("# @package _global_\nbatch_size: 3\n")
    options = ("--config-dir", "mine", "experiment=pretrain_mine", "--cfg", "job")
    cfg = printed(installed / "ssl-swin", "pretrain", *options, cwd=tmp_path)
    assert "batch_size: 3" in cfg.splitlines()

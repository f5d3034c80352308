"""The three scripts end to end, as a user starts them."""

import csv
import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from wandb_files import wandb_config, wandb_history, wandb_records, wandb_summary

from ssl_swin.cli import main as ssl_swin_command
from ssl_swin.runs.metrics import declared
from ssl_swin.weights.backbone import load_backbone

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
TINY = (
    "model.embed_dim=8",
    "model.depths=[1,1,1]",
    "model.num_heads=[1,1,2]",
    "data.prepare.num_train=40",
    "data.prepare.num_val=20",
    "batch_size=8",
    "num_workers=0",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
)
DATA = ("data.prepare.num_train=40", "data.prepare.num_val=20")
BRIEF = (*TINY, "trainer.max_epochs=2", "callbacks.reconstructions.every_n_steps=5")


def start(script: str, *overrides: str, cwd: Path) -> str:
    """Runs a script; gives what it printed."""
    command = [sys.executable, str(ROOT / f"{script}.py"), *overrides]
    result = subprocess.run(
        command, cwd=cwd, env=environment(cwd), capture_output=True, text=True, timeout=500
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def environment(home: Path) -> dict[str, str]:
    """No account, no key; one thread, since sums depend on how many share them."""
    return {"PATH": "", "HOME": str(home), "OMP_NUM_THREADS": "1"}


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo has been pretrained for ten steps."""
    folder = tmp_path_factory.mktemp("workplace")
    printed = start("pretrain", *BRIEF, "logger.artifacts=true", cwd=folder)
    (folder / "printed").write_text(printed)
    return folder


@pytest.fixture(scope="module")
def run(workplace: Path) -> Path:
    return workplace / "runs/pretrain/swin_nano_demo"


def test_pretrain__leaves_what_the_run_folder_promises(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "config.yaml",
        "provenance.json",
        "metrics.csv",
        "probes.png",
        "checkpoints",
        "reconstructions",
        "backbone",
        "report.html",
        "wandb",
    }
    pictures = sorted(path.name for path in (run / "reconstructions").iterdir())
    assert pictures == ["step_0000000.png", "step_0000005.png", "step_0000010.png"]
    assert json.loads((run / "provenance.json").read_text())["status"] == "finished"


def test_pretrain__logs_every_step_once(run: Path) -> None:
    losses = [float(row["train/loss"]) for row in metrics(run) if row["train/loss"]]
    assert len(losses) == 10
    assert all(np.isfinite(losses))


def test_pretrain__says_what_to_type_next(workplace: Path) -> None:
    printed = (workplace / "printed").read_text()
    for job in ("linear_probe", "finetune"):
        script = f"{sys.executable} {ROOT}/{job}.py"
        assert f"  {script} backbone=runs/pretrain/swin_nano_demo data=demo" in printed


def test_pretrain__backbone_in_timm_equals_ours(run: Path) -> None:
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    theirs = timm.create_model(f"local-dir:{run}/backbone", pretrained=True, num_classes=0).eval()
    ours = load_backbone(run).encoder.eval()
    with torch.no_grad():
        timm_map = theirs.forward_features(images).permute(0, 3, 1, 2)
        torch.testing.assert_close(timm_map, ours(images), rtol=0, atol=1e-5)
    card = (run / "backbone/README.md").read_text()
    assert "40 images" in card
    assert "10 optimiser steps" in card


BRIEF_PROBE = (
    "linear.epochs=12",
    "logger=csv",
    "linear.base_lrs=[0.1,1]",
    "knn.ks=[5]",
    "num_workers=0",
    *DATA,
)


def test_linear_probe__reports_the_whole_grid_and_extracts_once(workplace: Path, run: Path) -> None:
    printed = start("linear_probe", f"backbone={run}", *BRIEF_PROBE, cwd=workplace)
    folder = workplace / "runs/linear_probe/swin_nano_demo_demo"
    results = json.loads((folder / "results.json").read_text())
    assert sorted(results) == ["knn", "linear"]
    cells = [(c["stage"], c["pooling"], c["base_lr"]) for c in results["linear"]["grid"]]
    assert cells == [(s, p, r) for s in (1, 2, 3) for p in ("mean", "max") for r in (0.1, 1)]
    best = max(cell["val_top1_percent"] for cell in results["linear"]["grid"])
    assert results["linear"]["top1_percent"] == {"val": best}
    assert "chosen on val: stage" in printed
    check_declared(folder)
    assert Image.open(folder / "grid.png").width > 200
    taken = list(csv.DictReader((folder / "confusion_val/confusion.csv").open()))
    assert sum(int(row["images"]) for row in taken) == 20
    right = sum(int(row["images"]) for row in taken if row["true"] == row["predicted"])
    assert 100 * right / 20 == best

    stored = sorted(workplace.glob("runs/features/*/*.npy"))
    assert len(stored) == 2 * (6 + 1)  # two splits of six arrays and their labels
    times = [path.stat().st_mtime_ns for path in stored]
    start("linear_probe", f"backbone={run}", *BRIEF_PROBE, "name=again", "seed=1", cwd=workplace)
    assert [path.stat().st_mtime_ns for path in stored] == times
    assert sorted(workplace.glob("runs/features/*/*.npy")) == stored


def test_finetune__leaves_a_classifier_that_timm_loads(workplace: Path, run: Path) -> None:
    options = ("trainer.max_epochs=1", "batch_size=8", "num_workers=0", *DATA)
    printed = start("finetune", f"backbone={run}/backbone", *options, cwd=workplace)
    folder = workplace / "runs/finetune/swin_nano_demo_demo"
    assert "val/top1" in printed
    check_declared(folder)
    assert (folder / "checkpoints/best.ckpt").is_file()
    model = timm.create_model(f"local-dir:{folder}/classifier", pretrained=True)
    assert model(torch.zeros(1, 3, 96, 96)).shape == (1, 10)


def check_declared(folder: Path) -> None:
    """Every metric that a job logs is known, with its unit and direction."""
    names = set(metrics(folder)[0]) - {"step", "epoch", "samples_seen"}
    assert len(names) > 3
    assert {name for name in names if declared(name) is None} == set()


def test_wandb__offline_run_holds_scalars_and_pictures(run: Path) -> None:
    check_declared(run)
    (file,) = run.glob("wandb/offline-run-*/run-*.wandb")
    records = list(wandb_records(file))
    rows = wandb_history(file)
    logged = [row["train/loss"] for row in rows if "train/loss" in row]
    written = [float(row["train/loss"]) for row in metrics(run) if row["train/loss"]]
    assert logged == pytest.approx(written, rel=1e-5)
    best = min(float(row["val/loss"]) for row in metrics(run) if row.get("val/loss"))
    assert wandb_summary(file)["best/val/loss"] == pytest.approx(best, rel=1e-5)
    assert any(key.startswith("recon/grid") for row in rows for key in row)
    kept = [r.artifact for r in records if r.WhichOneof("record_type") == "artifact"]
    identity = (run / "run_id").read_text()
    (data,) = [artifact for artifact in kept if artifact.type == "dataset"]
    assert re.fullmatch(r"dataset-[0-9a-f]{16}", data.name)
    kept.remove(data)
    assert {artifact.type: artifact.name for artifact in kept} == {
        kind: f"{kind}-{identity}" for kind in ("backbone", "features", "reconstructions")
    }
    for artifact in kept:
        held = {content.path for content in artifact.manifest.contents}
        assert held == {path.name for path in (run / artifact.type).iterdir()}
    names = [r.run for r in records if r.WhichOneof("record_type") == "run"]
    assert (names[0].project, names[0].display_name) == ("ssl_swin", "swin_nano_demo")
    assert names[0].run_id == (run / "run_id").read_text()
    assert names[0].job_type == "pretrain"
    config = wandb_config(file)
    provenance = json.loads((run / "provenance.json").read_text())
    asked = yaml.safe_load((run / "config.yaml").read_text())
    assert {key: config[key] for key in asked} == json.loads(json.dumps(asked))
    assert config["provenance"]["git"] == provenance["git"]
    assert config["provenance"]["data"] == provenance["data"] != {}


def test_pretrain__resumed_equals_uninterrupted(tmp_path: Path) -> None:
    """Killed in the second of two epochs and continued by the same command: the same weights."""
    options = (*BRIEF, "logger=csv")
    start("pretrain", *options, "name=whole", cwd=tmp_path)
    stop_after_first_epoch(tmp_path, options)
    printed = start("pretrain", *options, "name=stopped", cwd=tmp_path)
    assert "continuing from" in printed
    whole, stopped = (
        torch.load(tmp_path / f"runs/pretrain/{name}/checkpoints/last.ckpt", weights_only=True)
        for name in ("whole", "stopped")
    )
    assert whole["global_step"] == stopped["global_step"] == 10
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(tensor, stopped["state_dict"][name]), name
    losses = [
        [row["train/loss"] for row in metrics(tmp_path / "runs/pretrain" / name)]
        for name in ("whole", "stopped")
    ]
    assert losses[0] == losses[1]


def stop_after_first_epoch(cwd: Path, options: tuple[str, ...]) -> None:
    """Kills a run as soon as its first checkpoint is there."""
    command = [sys.executable, str(ROOT / "pretrain.py"), *options, "name=stopped"]
    checkpoint = cwd / "runs/pretrain/stopped/checkpoints/last.ckpt"
    script = subprocess.Popen(command, cwd=cwd, env=environment(cwd), stdout=subprocess.DEVNULL)
    while not checkpoint.exists():
        assert script.poll() is None
    script.kill()
    script.wait()


def test_pretrain__one_command_again_says_it_is_done(workplace: Path) -> None:
    card = workplace / "runs/pretrain/swin_nano_demo/backbone/README.md"
    before = card.read_text()
    printed = start("pretrain", *BRIEF, cwd=workplace)
    (line,) = (line for line in printed.splitlines() if line.startswith("finished "))
    assert line.startswith("finished swin_nano_demo: 10 steps")
    (measured,) = (line for line in before.splitlines() if line.startswith("| last measured | "))
    assert measured == f"| last measured | {line.partition('; ')[2]} |" and "val/loss " in line
    assert measured in card.read_text().splitlines()
    # Killed between its last step and its end: what was measured is in the file of metrics alone.
    (workplace / "runs/pretrain/swin_nano_demo/provenance.json").unlink()
    start("pretrain", *BRIEF, cwd=workplace)
    (again,) = (line for line in card.read_text().splitlines() if "last measured" in line)
    assert sorted(again.split("| ")[2].rstrip(" |").split(", ")) == sorted(
        measured.split("| ")[2].rstrip(" |").split(", ")
    )


def test_multirun__one_folder_and_one_wandb_run_each(workplace: Path) -> None:
    sweep = ("objective.mask_ratio=0.5,0.7", "trainer.max_epochs=1", "name=ratios")
    options = [o for o in BRIEF if "max_epochs" not in o]
    start("pretrain", "--multirun", *options, *sweep, cwd=workplace)
    runs = list((workplace / "runs/pretrain/ratios_sweep").glob("*mask_ratio-0.[57]*"))
    assert len(runs) == 2
    files = [next(run.glob("wandb/offline-run-*/run-*.wandb")) for run in runs]
    heads = [
        next(r.run for r in wandb_records(file) if r.WhichOneof("record_type") == "run")
        for file in files
    ]
    assert len({head.run_id for head in heads}) == 2
    assert {head.run_group for head in heads} == {"ratios_sweep"}


def test_pretrain__swin_b_on_synset_tars_makes_a_step(tmp_path: Path) -> None:
    """The real layout of ImageNet-22k in miniature: per-synset tars, packed, one optimiser step."""
    source = tmp_path / "winter21"
    source.mkdir()
    generator = np.random.default_rng(0)
    for synset in ("n01440764", "n02119789"):
        with tarfile.open(source / f"{synset}.tar", "w") as tar:
            for number in range(4):
                picture = io.BytesIO()
                pixels = generator.integers(0, 255, (64, 80, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(picture, "jpeg")
                member = tarfile.TarInfo(f"{synset}_{number}.JPEG")
                member.size = picture.tell()
                picture.seek(0)
                tar.addfile(member, picture)
    assert ssl_swin_command(["pack", str(source), f"{tmp_path}/in22k", "--val-ratio", "0.2"]) == 0
    options = (
        "model=swin_b",
        "data=imagenet22k",
        f"data.root={tmp_path}/in22k",
        "batch_size=2",
        "num_workers=0",
        "trainer.max_steps=1",
        "callbacks.reconstructions.num_images=1",
        "logger=csv",
    )
    printed = start("pretrain", *options, cwd=tmp_path)
    assert "22 of 36 mask patches of 32 px masked" in printed
    assert "finished swin_b_imagenet22k: 1 steps" in printed
    assert load_backbone(tmp_path / "runs/pretrain/swin_b_imagenet22k").encoder.embed_dim == 128


def test_pretrain__two_processes(tmp_path: Path) -> None:
    """DDP over gloo: equal batches on both, one run folder, one row per step."""
    options = (*BRIEF, "trainer.accelerator=cpu", "trainer.devices=2", "logger=csv")
    start("pretrain", *options, "batch_size=4", cwd=tmp_path)
    run = tmp_path / "runs/pretrain/swin_nano_demo"
    assert [row["step"] for row in metrics(run) if row["train/loss"]] == [
        str(i) for i in range(1, 11)
    ]


def test_pretrain__gives_up_with_a_code_of_its_own(tmp_path: Path) -> None:
    """A rate at which nothing is finite: neither success nor a mistake of the command line."""
    words = [*TINY, "optim.base_lr=1e6", "schedule.warmup_epochs=0", "name=g"]
    words += ["trainer.gradient_clip_val=null", "trainer.max_epochs=6"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "pretrain.py"), *words],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3, done.stderr[-2000:]
    assert "5 steps in a row were not finite" in done.stderr
    assert "ssl-swin replay runs/pretrain/g --step 5" in done.stderr
    assert not (tmp_path / "runs/pretrain/g/backbone").exists()

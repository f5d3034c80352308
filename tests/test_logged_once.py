"""After kills, metrics.csv and every dashboard hold each logged step once, from step 0."""

import csv
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from launched import LIMIT_S, finish, output, start
from wandb_files import wandb_history

pytestmark = pytest.mark.slow
SETTINGS = (
    "model.embed_dim=8",
    "model.depths=[1,1,1]",
    "model.num_heads=[1,1,2]",
    "data.prepare.num_train=40",
    "data.prepare.num_val=8",
    "batch_size=8",
    "num_workers=0",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "trainer.max_epochs=3",
    "trainer.check_val_every_n_epoch=1",
    "callbacks.reconstructions.every_n_steps=4",
    "callbacks.last.every_n_epochs=null",
    "callbacks.last.every_n_train_steps=2",
    "callbacks.last.save_on_train_epoch_end=null",
    "name=k",
)
STEPS = list(range(16))  # 0, the untrained model, and three epochs of five
PICTURES = [0, 4, 8, 12, 15]


def rows(folder: Path) -> list[dict[str, str]]:
    path = folder / "runs/pretrain/k/metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def kill_at(folder: Path, step: int, logger: str) -> None:
    """Starts or continues the run, and kills it when metrics.csv has a step."""
    (process,) = start((*SETTINGS, f"logger={logger}"), folder, 1)
    deadline = time.monotonic() + LIMIT_S
    while not any(row["step"] == str(step) for row in rows(folder)):
        assert process.is_alive(), output(folder, 0)
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def killed_twice(folder: Path, logger: str) -> list[dict[str, str]]:
    for step in (5, 11):
        kill_at(folder, step, logger)
    finish((*SETTINGS, f"logger={logger}"), folder, 1)
    return rows(folder)


def test_wandb__one_run_holds_every_step_once(tmp_path: Path) -> None:
    written = killed_twice(tmp_path, "wandb")
    assert [int(row["step"]) for row in written] == STEPS
    assert [int(row["samples_seen"]) for row in written] == [8 * step for step in STEPS]
    assert [row["step"] for row in written if row["val/loss"]] == ["5", "10", "15"]
    (file,) = tmp_path.glob("runs/pretrain/k/wandb/offline-run-*/run-*.wandb")
    history = wandb_history(file)
    logged = [row for row in history if "samples_seen" in row]
    assert [row["trainer/global_step"] for row in logged] == STEPS
    for name in ("train/loss", "val/loss", "probe/knn_top1/stage1", "samples_seen"):
        expected = [float(row[name]) for row in written if row[name]]
        assert [row[name] for row in logged if name in row] == pytest.approx(expected), name
    pictures = [row for row in history if any(key.startswith("recon/grid") for key in row)]
    assert [row["trainer/global_step"] for row in pictures] == PICTURES


def test_tensorboard__holds_every_step_once(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_file_loader",
        reason="tensorboard is not installed: pip install 'ssl_swin[tensorboard]'",
    )
    written = killed_twice(tmp_path, "tensorboard")
    found: dict[str, list[tuple[int, Any]]] = {}
    hyperparameters: dict[str, Any] = {}
    for path in sorted(tmp_path.glob("runs/pretrain/k/tensorboard/*tfevents*")):
        for event in accumulator.EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "hparams":
                    assert value.tag not in hyperparameters  # of one start alone
                    hyperparameters[value.tag] = value.metadata.plugin_data.content
                    continue
                number = value.tensor.float_val[0] if value.tensor.float_val else None
                found.setdefault(value.tag, []).append((event.step, number))
    logged = set(written[0]) - {"step"}
    assert {name for name, values in found.items() if values[0][1] is not None} == logged
    assert {"train/loss", "val/loss", "probe/knn_top1/stage1", "samples_seen"} <= logged
    for name in logged:
        expected = [(int(row["step"]), float(row[name])) for row in written if row[name]]
        assert [step for step, _ in found[name]] == [step for step, _ in expected], name
        values = pytest.approx([value for _, value in expected], rel=1e-6)  # digits of the file
        assert [value for _, value in found[name]] == values, name
    assert [step for step, _ in found["recon/grid"]] == PICTURES
    assert "hp_metric" not in found
    settings = tensorboard_settings(hyperparameters["_hparams_/session_start_info"])
    config = yaml.safe_load((tmp_path / "runs/pretrain/k/config.yaml").read_text())
    assert (settings["optim.base_lr"], settings["name"]) == (config["optim"]["base_lr"], "k")
    assert settings["provenance.data.train"]


def tensorboard_settings(content: bytes) -> dict[str, Any]:
    """Reads the hyperparameters of a run."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    info = HParamsPluginData.FromString(content).session_start_info
    kinds = {key: value.WhichOneof("kind") for key, value in info.hparams.items()}
    return {key: getattr(info.hparams[key], kind) for key, kind in kinds.items()}

"""Callbacks and loggers that fail: the training goes on, and the failure is written down."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import Logger

from ssl_swin.runs.side_failures import SideFailures
from ssl_swin.training.callbacks.reconstructions import Reconstructions
from ssl_swin.training.extras import Extra, guard_logger


class Failing(Extra):
    title = "a watcher"

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_train_batch_end(self, *args: Any) -> None:
        raise self.error


def test_extra__that_fails_at_every_step_costs_no_step(pretrain, tmp_path: Path, capsys) -> None:
    assert pretrain(Failing(RuntimeError("CUDA out of memory"))).global_step == 6
    assert SideFailures(tmp_path).counts() == {"a watcher": 6}
    told = [line for line in capsys.readouterr().out.splitlines() if "a watcher" in line]
    assert told == [
        "a watcher failed: RuntimeError: CUDA out of memory; training goes on, the traceback is "
        f"in {tmp_path}/errors.log"
    ]


def test_extra__lets_a_request_to_stop_pass(pretrain) -> None:
    with pytest.raises(SystemExit):
        pretrain(Failing(SystemExit(143)))


def test_extra__a_probe_and_a_picture_leave_the_model_in_training(
    pretrain, make_probes, tmp_path: Path, monkeypatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("ssl_swin.probing.stage_scores.knn_predict", fail)
    trainer = pretrain(make_probes(tmp_path, every_n_steps=3))
    assert trainer.global_step == 6 and trainer.lightning_module.training
    monkeypatch.setattr("ssl_swin.objectives.simmim.SimMIM.figure", fail)
    trainer = pretrain(Reconstructions(tmp_path / "p", every_n_steps=2, num_images=2))
    assert trainer.global_step == 6 and trainer.lightning_module.model.training
    assert SideFailures(tmp_path).counts() == {"the probes": 3, "a picture": 4}


class Breaking(Logger):
    """A dashboard whose process dies after two rows."""

    name, version = "breaking", 0

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.calls.append("log_metrics")
        if len(self.calls) == 3:
            raise ConnectionResetError("Connection lost")

    def log_image(self, *args: Any, **kwargs: Any) -> None:
        pass

    def finalize(self, status: str) -> None:
        raise AssertionError("a logger that has failed is left alone")


def test_guard_logger__the_run_goes_on_with_its_metrics_file(
    pretrain, logged, tmp_path: Path, capsys
) -> None:
    logger = Breaking()
    guard_logger(logger, SideFailures(tmp_path))
    trainer = pretrain(Extra(), loggers=[logger], log_every_n_steps=1)
    assert len(logged(trainer, "train/loss")) == 6
    assert len(logger.calls) == 3
    assert "Breaking failed: ConnectionResetError: Connection lost" in capsys.readouterr().out

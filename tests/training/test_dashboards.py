from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import Logger, WandbLogger
from PIL import Image

from ssl_swin.runs.metrics_file import MetricsFile
from ssl_swin.training.callbacks.keep_metrics import catch_up
from ssl_swin.training.dashboards import Dashboard, WandbDashboard, dashboard
from ssl_swin.training.metrics_csv import MetricsCsv
from ssl_swin.training.progress import StepAt


class Rows(Logger):
    """A logger that keeps what it is given."""

    name, version = "rows", "0"

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, Any]]] = []
        self.pictures: list[int] = []

    def log_hyperparams(self, params: Any) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, metrics))

    def log_image(self, key: str, images: list[Any], step: int) -> None:
        self.pictures.append(step)


class Run(WandbLogger):
    """Weights & Biases without its process."""

    def __init__(self, folder: Path, *, offline: bool, summary: dict[str, Any]) -> None:
        super().__init__(save_dir=folder, id="abc")
        self.run = SimpleNamespace(
            offline=offline, summary=summary, dir=str(folder / "wandb/offline-run-2027-abc/files")
        )
        self.logged: list[dict[str, Any]] = []

    @property
    def experiment(self) -> Any:
        return self.run

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.logged.append({**metrics, "trainer/global_step": step})

    def log_image(self, key: str, images: list[Any], step: int) -> None:
        self.logged.append({key: images, "trainer/global_step": step})


@pytest.fixture
def metrics(tmp_path: Path) -> MetricsFile:
    file = MetricsFile(tmp_path / "metrics.csv")
    for step in (0, 2, 4, 6):
        file.write(step, {"samples_seen": 4 * step, "loss": step / 2})
    return file


def test_dashboard__passes_each_step_on_once_and_whole():
    rows, progress = Rows(), StepAt(0, 0)
    passing = dashboard(rows, progress)
    passing.log_metrics({"probe": 1}, 0)
    passing.log_metrics({"probe2": 2}, 0)
    assert rows.rows == []  # more may come
    progress.step, progress.samples_seen = 1, 4
    passing.log_metrics({"loss": 3}, 0)  # as Lightning counts
    assert rows.rows == [(0, {"samples_seen": 0, "probe": 1, "probe2": 2})]
    passing.finalize("failed")
    assert rows.rows[1:] == [(1, {"samples_seen": 4, "loss": 3})]


def test_dashboard__a_picture_comes_after_the_rows_before_it():
    rows, progress = Rows(), StepAt(0)
    passing = dashboard(rows, progress)
    passing.log_metrics({"a": 1})
    progress.step = 1
    passing.log_image("recon/grid", [None], step=1)
    assert rows.rows == [(0, {"a": 1})]
    assert rows.pictures == [1]


def test_wandb__is_not_told_again_what_its_sweep_has_set(tmp_path, monkeypatch):
    run, told = Run(tmp_path, offline=True, summary={}), []
    run.run.config = {"seed": 1, "optim": {"base_lr": 1}}
    monkeypatch.setattr(run, "log_hyperparams", told.append)
    passing = dashboard(run, StepAt(0))
    passing.log_hyperparams({"seed": 1, "optim": {"base_lr": 2}, "backbone": None})
    assert told == [{"optim": {"base_lr": 2}, "backbone": None}]


def test_dashboard__of_an_unknown_logger_has_what_a_checkpoint_covers(metrics):
    rows, progress = Rows(), StepAt(4)
    passing = Dashboard(rows, progress)
    passing.catch_up(metrics, 4)
    passing.log_metrics({"loss": 9})
    progress.step = 6
    passing.log_metrics({"loss": 9})
    passing.flush()
    assert rows.rows == [(6, {"loss": 9})]


def test_wandb_offline__is_written_anew_and_earlier_files_go(metrics, tmp_path):
    mine, other = (tmp_path / f"wandb/offline-run-2026-{id}" for id in ("abc", "xyz"))
    own = tmp_path / "wandb/offline-run-2027-abc"  # of this start
    for folder in (mine, other, own):
        folder.mkdir(parents=True)
    run, progress = Run(tmp_path, offline=True, summary={}), StepAt(4)
    passing = dashboard(run, progress)
    assert passing.lacks_pictures_from == 0
    passing.catch_up(metrics, 4)
    assert [row["trainer/global_step"] for row in run.logged] == [0, 2, 4]
    assert run.logged[1] == {"samples_seen": 8, "loss": 1, "step": 2, "trainer/global_step": 2}
    assert [folder.exists() for folder in (mine, other, own)] == [False, True, True]
    passing.log_metrics({"loss": 9})
    progress.step = 6
    passing.log_metrics({"loss": 9})
    passing.finalize("success")
    assert [row["trainer/global_step"] for row in run.logged] == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("has", "sent", "has_pictures_to"),
    [
        ({}, [0, 2, 4, 5, 6, 7], -1),  # the server never heard of the run
        ({"step": 0, "trainer/global_step": 2}, [2, 4, 5, 6, 7], 2),  # it lost the end
        ({"step": 6, "trainer/global_step": 6}, [7], 6),  # it has more than the checkpoint
    ],
)
def test_wandb_online__is_asked_for_what_it_has(metrics, tmp_path, has, sent, has_pictures_to):
    folder = tmp_path / "wandb/offline-run-2026-abc"
    folder.mkdir(parents=True)
    run, progress = Run(tmp_path, offline=False, summary=has), StepAt(4)
    passing = WandbDashboard(run, progress)
    passing.catch_up(metrics, 4)
    assert passing.lacks_pictures_from == has_pictures_to + 1
    for progress.step in (5, 6, 7):
        passing.log_metrics({"loss": 9})
    passing.finalize("success")
    assert [row["trainer/global_step"] for row in run.logged] == sent
    assert folder.exists()


def test_wandb_online__pictures_are_not_sent_twice(metrics, tmp_path):
    has = {"step": 2, "trainer/global_step": 4}
    run, progress = Run(tmp_path, offline=False, summary=has), StepAt(2)
    passing = WandbDashboard(run, progress)
    passing.catch_up(metrics, 2)
    for progress.step in (4, 6):
        passing.log_image("recon/grid", [Image.new("RGB", (1, 1))], step=progress.step)
    assert [row["trainer/global_step"] for row in run.logged] == [6]


def test_catch_up__goes_from_metrics_csv_to_every_dashboard(metrics, tmp_path):
    run = Run(tmp_path, offline=True, summary={})
    progress = StepAt(2)
    file = MetricsCsv(metrics.path, resume=True, progress=progress)
    catch_up([file, dashboard(run, progress), Rows()], 2)
    assert [row["step"] for row in run.logged] == [0, 2]


def test_wandb__best_values_stand_in_the_summary(metrics, tmp_path):
    for offline, summary, expected in (
        (True, {}, 3),
        (False, {"step": 4, "best/val/loss": 2}, 2),  # of a step whose rows are not sent again
    ):
        run, progress = Run(tmp_path, offline=offline, summary=summary), StepAt(4)
        file = MetricsFile(tmp_path / f"{offline}.csv")
        for step, loss in ((2, 3), (4, 5)):
            file.write(step, {"val/loss": loss, "train/loss": 0})
        passing = dashboard(run, progress)
        passing.catch_up(file, 4)
        progress.step = 6
        passing.log_metrics({"val/loss": 4})
        passing.finalize("success")
        assert {key: value for key, value in summary.items() if key != "step"} == {
            "best/val/loss": expected
        }

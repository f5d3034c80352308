from pathlib import Path

import pytest

from ssl_swin.training.metrics_csv import MetricsCsv
from ssl_swin.training.progress import StepAt


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "metrics.csv"


def test_metrics_csv__one_row_per_step_that_is_done(path):
    progress = StepAt(0, 0)
    logger = MetricsCsv(path, resume=False, progress=progress)
    logger.log_metrics({"probe/top1": 25}, step=0)
    progress.step, progress.samples_seen = 10, 640
    logger.log_metrics({"train/loss": 0.5, "epoch": 0.0}, step=9)  # Lightning's step is one less
    logger.log_metrics({"perf/samples_per_s": 1234.5678901}, step=9)
    logger.log_metrics({"train/loss": 0.25}, step=None)  # the last word counts
    progress.step, progress.samples_seen = 20, 1280
    logger.log_metrics({"val/loss": 1e-9, "epoch": 1.0}, step=19)
    assert path.read_text().splitlines() == [  # before anything is closed
        "step,epoch,samples_seen,probe/top1,train/loss,perf/samples_per_s,val/loss",
        "0,,0,25,,,",
        "10,0,640,,0.25,1234.568,",
        "20,1,1280,,,,1e-09",
    ]


def test_metrics_csv__of_what_is_not_trained_counts_no_samples(path):
    progress = StepAt(3)
    MetricsCsv(path, resume=False, progress=progress).log_metrics({"a": 1}, 3)
    assert path.read_text() == "step,epoch,samples_seen,a\n3,,,1\n"


def test_metrics_csv__starts_anew_where_nothing_is_resumed(path):
    for resume, steps in ((False, [0]), (False, [1]), (True, [1, 2])):
        logger = MetricsCsv(path, resume=resume, progress=StepAt(steps[-1]))
        logger.log_metrics({"a": 1}, steps[-1])
        logger.finalize("success")
        assert [line.partition(",")[0] for line in path.read_text().splitlines()[1:]] == [
            str(step) for step in steps
        ]


def test_metrics_csv__writes_nothing_without_metrics(path):
    logger = MetricsCsv(path, resume=True, progress=StepAt())
    logger.log_hyperparams({"lr": 1})
    logger.save()
    logger.finalize("success")
    assert not path.exists()


def test_training__every_row_says_how_many_images_were_seen(pretrain, logged):
    from lightning.pytorch import Callback

    trainer = pretrain(Callback(), log_every_n_steps=1)  # 4 images a step
    seen = logged(trainer, "samples_seen")
    assert seen == {step: 4 * step for step in range(1, 7)}
    assert list(logged(trainer, "val/loss")) == [3, 6]

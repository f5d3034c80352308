"""Soft Teacher in whole runs: which images it takes, what it logs, and that it goes on exactly."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_objects import CLASSES, pictures
from launched import finish, start
from PIL import Image
from test_detect_job import (
    BRIEF,
    SHARDS,
    batches,
    last_values,
    refusal,
    run,
    sending,
    shards,
    workplace,
)

from ssl_swin.cli import main
from ssl_swin.errors import UserError
from ssl_swin.jobs.replay import replay
from ssl_swin.safe_pickle import load_checkpoint
from ssl_swin.tasks.detection import Detection
from ssl_swin.weights.detector import load_detector

__all__ = ["shards", "workplace"]  # fixtures

SEMI = (
    *SHARDS,
    "semi=soft_teacher",
    "labels.number=4",
    "batch_size=1",
    "semi.num_unlabelled=2",
    "semi.warmup_steps=0",
    "semi.least_score=0.05",  # of a network that knows nothing
    "semi.sure_score=0.2",
    "semi.most_deviation=1.0",
    "semi.weak.short_px=[40,64]",
    "semi.weak.long_px=96",
)


@pytest.mark.slow
def test_soft_teacher__learns_from_the_images_that_labels_leave_out(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(*SEMI, "semi.evaluated=teacher")
    output = capsys.readouterr().out
    assert "labels: 4 of 8 training images" in output and "without boxes: 4 images" in output
    found = last_values()
    assert found["train/unsup_loss_class"] > 0 and found["train/unsup_loss_rpn_class"] > 0
    assert found["train/pseudo_boxes"] > 0 and found["train/pseudo_boxes_firm"] > 0
    assert found["step"] == 2  # an epoch is a pass over these images, two at a time
    state = load_checkpoint(Path("run/checkpoints/last.ckpt"))["state_dict"]
    teacher = {name for name in state if name.startswith("model.semi.teacher.")}
    students = {name for name in state if name not in teacher}
    assert len(teacher) == len(students)
    weights = load_detector("run").model.rcnn.heads.box_heads[0].classes.weight
    name = "rcnn.heads.box_heads.0.classes.weight"
    assert weights.equal(state[f"model.semi.teacher.{name}"])
    assert not weights.equal(state[f"model.{name}"])


REFUSED = {
    "labels.number=null": "labels.ratio and labels.number leave no image out",
    "semi.num_unlabelled=5": "4 images without labels cannot fill one batch of 5",
    "semi.unlabelled_root=nowhere": "nowhere",
    "semi.momentum=1": "semi.momentum must be",
    "semi.strong.num_erased=[3,1]": "num_erased must be",
    "semi.strong.factor=[0,1]": "factor must be",
    "semi._target_=ssl_swin.WeakView": "semi",
    "data.reader=stream labels.number=null semi.unlabelled_root=photos": "data.reader=stream",
}


def test_soft_teacher__refuses_before_anything_is_written(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for overrides, words in REFUSED.items():
        error = refusal(capsys, *SEMI, "task.with_masks=true", *overrides.split())
        assert words in error, overrides


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
def test_soft_teacher__takes_images_from_elsewhere(
    shards: Path, capsys: pytest.CaptureFixture[str], packed: bool
) -> None:
    for number in range(6):
        path = Path(f"more/some/{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (50, 60, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    root = "more"
    if packed:
        asked = ["pack", "more", "shards_of_more", "--no-labels", "--val-ratio", "0"]
        assert main([*asked, "--workers", "0"]) == 0
        root = "shards_of_more"
    run(*SEMI, f"semi.unlabelled_root={root}", "labels.number=null", "num_workers=2")
    assert "without boxes: 6 images" in capsys.readouterr().out
    assert last_values()["step"] == 3 and load_detector("run").classes == CLASSES


@pytest.mark.slow
def test_soft_teacher__warms_up_and_says_so_of_pixels_that_are_no_colours(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = ["data.channels=1", "data.mean=[0.5]", "data.std=[0.5]", "backbone=none", "model=swin_t"]
    error = refusal(capsys, *SEMI, *one)
    assert "semi.strong.colours=false" in error
    run(*SEMI, "semi.warmup_steps=2")
    assert not any("unsup" in name for name in last_values())
    run(*SEMI, "semi.warmup_steps=1", "run_dir=later", "optim=sgd_detection")
    state = load_checkpoint(Path("later/checkpoints/last.ckpt"))["optimizer_states"][0]["state"]
    assert all(each.keys() == {"momentum_buffer"} for each in state.values()) and state
    assert last_values("later")["train/unsup_loss_class"] > 0


@pytest.mark.slow
def test_soft_teacher__is_planned_and_overfitted(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(*SEMI, "plan=true")
    assert "plan of run" in capsys.readouterr().out and not Path("run").exists()
    run(*SEMI, "batch_size=3", "+trainer.overfit_batches=1")  # measured on what is learned
    assert last_values()["val/map"] >= 0


@pytest.mark.slow
@pytest.mark.parametrize(("num_ranks", "signal"), [(1, "SIGKILL"), (2, "SIGTERM")])
@pytest.mark.parametrize("task", ["mask_rcnn", "cascade_mask_rcnn"])
def test_soft_teacher__a_run_that_was_killed_equals_one_that_was_not(
    shards: Path, num_ranks: int, signal: str, task: str
) -> None:
    """Weights of both, images of both kinds and both views, to the bit."""
    settings = [
        *(*BRIEF, *SEMI, f"task={task}", "trainer.max_epochs=4", "model.drop_path_rate=0.3"),
        *("callbacks.batch_digest.enabled=true", "callbacks.last.every_n_train_steps=1"),
        *("callbacks.last.every_n_epochs=null", "callbacks.last.save_on_train_epoch_end=null"),
        f"semi.num_unlabelled={2 // num_ranks}",
    ]
    whole, parts = [*settings, "run_dir=whole"], [*settings, "run_dir=parts"]
    finish(whole, shards, num_ranks, job="detect")
    for process in start([*parts, sending(signal, 3)], shards, num_ranks, "detect"):
        process.join()
        assert process.exitcode != 0
    finish(parts, shards, num_ranks, job="detect")
    for rank in range(num_ranks):
        seen, expected = (batches(folder, rank) for folder in ("parts", "whole"))
        assert seen == expected and len(expected) == 8
        fields = {"labelled.boxes", "unlabelled.weak", "unlabelled.strong", "unlabelled.to_weak"}
        assert fields <= expected[0, 0].keys()
    ended, expected_end = (
        load_checkpoint(Path(folder) / "checkpoints/last.ckpt") for folder in ("parts", "whole")
    )
    assert any("semi.teacher" in name for name in expected_end["state_dict"])
    for name, tensor in expected_end["state_dict"].items():
        assert tensor.equal(ended["state_dict"][name]), name


class InfiniteOnce(Detection):
    """An infinite loss at one step, with a finite gradient that can be compared."""

    def forward(self, batch: Any, normalize: Any) -> Any:
        output = super().forward(batch, normalize)
        is_then = self.training and self.semi is not None and self.semi._step == 2
        return output._replace(loss=output.loss + (float("inf") if is_then else 0.0))


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_replay__of_both_kinds_of_images_to_the_bit(shards: Path, num_ranks: int) -> None:
    """Other images, views, draws or a teacher that had moved on would have another gradient."""
    finish(
        [
            *(*BRIEF, *SEMI, "task._target_=test_soft_teacher_job.InfiniteOnce"),
            *("trainer.max_epochs=2", f"semi.num_unlabelled={2 // num_ranks}"),
            "model.drop_path_rate=0.3",
        ],
        shards,
        num_ranks,
        job="detect",
    )
    record, _, found = replay(Path("run"), None, [], device="cpu")
    assert record.step == 2 and [batch.rank for batch in record.batches] == list(range(num_ranks))
    assert record.gradient_norm == found.gradient_norm.hex()
    for batch in found.batches:
        assert batch.loss == math.inf and batch.recorded.beside == [1, 0]
        assert batch.sample_losses is not None
        assert len(batch.sample_losses) == len(batch.recorded.names) == 1 + 2 // num_ranks
        assert all(0 < loss < math.inf for loss in batch.sample_losses)
    path = Path(f"run/nonfinite/step_{record.step:07d}.json")
    content = json.loads(path.read_text())
    for batch in content["batches"]:
        batch["beside"] = None  # as earlier versions wrote it
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="lacks the batch's place in this data"):
        replay(Path("run"), None, [], device="cpu")


def test_soft_teacher__has_pictures_to_learn_from() -> None:
    """The world of these tests: four of eight pictures of training keep their boxes."""
    names: list[Any] = [name for split, name, _ in pictures() if split == "train"]
    assert len(names) == 8

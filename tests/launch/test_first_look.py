"""What is found before the first step, and what `plan=true` prints."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ssl_swin
from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.sources.image_folder import FolderDataset
from ssl_swin.data.subset import Subset
from ssl_swin.errors import UserError
from ssl_swin.files import check_can_be_made
from ssl_swin.launch.first_look import _check_labels, _check_readable
from ssl_swin.launch.first_look import _tell_few_images as tell_few_images
from ssl_swin.launch.first_look import _tell_never_written as tell_never_written
from ssl_swin.launch.first_look import _tell_of_milestones as tell_of_milestones
from ssl_swin.launch.first_look import _tell_overlap as tell_overlap
from ssl_swin.optim.schedules import RunLength


def test_check_writable__a_file_in_the_way_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match=r"cannot create the folder .*: .*runs is a file"):
        check_can_be_made(tmp_path / "runs/pretrain/a", "run_dir")
    check_can_be_made(tmp_path / "new/pretrain/a", "run_dir")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("batches", "bad"), [([], []), ([], [("a.png", "truncated")])])
def test_check_readable__a_split_of_which_nothing_can_be_read(batches: Any, bad: Any) -> None:
    class Batches(list[Any]):
        bad_samples = bad

    reader: Any = SimpleNamespace(eval_loader=lambda *args: Batches(batches))
    data: Any = SimpleNamespace(eval_samples=None, collate=None)
    what = "a.png: truncated" if bad else "val: it holds none"
    with pytest.raises(UserError, match=f"no image of val can be read, the first is {what}"):
        _check_readable("val", reader, data)
    reader.eval_loader = lambda *args: Batches([1])
    _check_readable("val", reader, data)


def test_check_labels__a_class_that_train_does_not_name() -> None:
    reader = IndexedSplit.__new__(IndexedSplit)
    reader.dataset = SimpleNamespace(labels=lambda: np.array([0, 3, -1]))  # type: ignore[assignment]
    _check_labels("val", reader, 4)
    with pytest.raises(UserError, match="val has an image of class 3, and train names 3 classes"):
        _check_labels("val", reader, 3)


@pytest.mark.parametrize(
    ("milestones", "words"),
    [
        ([8, 11], ""),
        ([11], ""),
        ([8, 12], "=[8, 12] lies beyond the run's 12 epochs: the learning rate does not fall"),
        ([2, 5], "=[2, 5] is early in the run's 12 epochs: more than half of them"),
        ([], ""),
        (None, ""),
    ],
)
def test_tell_of_milestones__that_are_of_another_length(
    capsys: pytest.CaptureFixture[str], milestones: list[int] | None, words: str
) -> None:
    schedule = {} if milestones is None else {"milestone_epochs": milestones}
    run: Any = SimpleNamespace(cfg=SimpleNamespace(schedule=schedule))
    tell_of_milestones(run, RunLength(1, 12, 1))
    said = capsys.readouterr().out
    assert (words in said) if words else not said


def test_tell_never_written__of_probes_and_checkpoints_beyond_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    callbacks = {"pictures": {"every_n_epochs": 9}, "last": {"every_n_epochs": 8}, "off": None}
    run: Any = SimpleNamespace(config={"callbacks": callbacks})
    tell_never_written(run, RunLength(1, 8, 1))
    assert capsys.readouterr().out.startswith("note: callbacks.pictures.every_n_epochs=9 is more")


def test_tell_overlap__of_splits_that_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for shade in range(3):
        Image.new("L", (8, 8), shade).save(tmp_path / f"{shade}.png")
    order = OrderConstants(block=2, pool=8, lanes=1)
    train = IndexedSplit(FolderDataset(tmp_path), order)
    val = IndexedSplit(Subset(train.dataset, [1, 2]), order)
    stream: Any = SimpleNamespace(num_samples=3)
    data: Any = SimpleNamespace(readers={"train": train, "val": val, "test": stream})
    tell_overlap(data)
    printed = capsys.readouterr().out
    assert printed.startswith("note: 2 of 2 images of val that were looked at are in train too")
    assert printed.count("note:") == 1
    data.readers = {"train": stream, "val": val}
    tell_overlap(data)
    assert capsys.readouterr().out == ""


def test_tell_few_images__of_a_picture_of_more_images_than_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    callbacks = {
        "reconstructions": {"num_images": 8},
        "probes": {"num_val_images": 9},
        "a": None,
    }
    run: Any = SimpleNamespace(config={"callbacks": callbacks})
    readers = {"train": SimpleNamespace(num_samples=99), "val": SimpleNamespace(num_samples=5)}
    data: Any = SimpleNamespace(readers=readers)
    tell_few_images(run, data)
    said = "note: callbacks.reconstructions.num_images=8 is more than the 5 images of val: so many"
    assert capsys.readouterr().out.startswith(said)
    del readers["val"]
    tell_few_images(run, data)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_plan__prints_the_run_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = ("model.embed_dim=8", "model.depths=[1,1,1]", "model.num_heads=[1,1,2]")
    data = ("data.prepare.num_train=40", "data.prepare.num_val=20", "num_workers=0")
    options = ("logger=csv", "batch_size=8", "trainer.max_epochs=3", "callbacks.milestones=null")
    folder = ssl_swin.pretrain([*tiny, *data, *options, "plan=true"])
    assert [path.name for path in tmp_path.iterdir()] == ["data"] and not folder.exists()
    printed = capsys.readouterr().out.partition("plan of ")[2]
    assert max(map(len, printed.splitlines())) <= 80
    for row in (
        "mask ratio     0.6111, asked 0.6",
        "batch          8 images a step",
        "learning rate  0.00025 at its peak, for this batch; steps of warm-up: 5",
        "length         15 steps, 5 an epoch, 3 epochs",
        "disk           ",
    ):
        assert row in printed
    assert "3 checkpoints of " in " ".join(printed.split())

import errno
import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch

from ssl_swin.disk_errors import DiskError
from ssl_swin.errors import TrainingGaveUp, UserError
from ssl_swin.runs.catalogue import Catalogue
from ssl_swin.runs.checkpoint_files import read_facts
from ssl_swin.runs.place import Place
from ssl_swin.runs.retention import Retention
from ssl_swin.training.checkpointing import writing
from ssl_swin.training.checkpointing.io import AtomicCheckpointIO

CHECKPOINT = {
    "state_dict": {"weight": torch.arange(6.0).view(2, 3), "scale": torch.tensor(2.5).bfloat16()},
    "epoch": 3,
    "global_step": 77,
    "optimizer_states": [],
    "loops": {"fit_loop": {"state_dict": {}, "progress": {"ready": 1, "is_last_batch": False}}},
    "lr_schedulers": [{"base_lrs": [1e-3, 5e-4], "last_epoch": 77}],
}


class Planted:
    """Unpickles into a shell command that leaves a marker file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_save_checkpoint__round_trip(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(CHECKPOINT, path)
    loaded = AtomicCheckpointIO().load_checkpoint(path)
    torch.testing.assert_close(loaded.pop("state_dict"), CHECKPOINT["state_dict"], rtol=0, atol=0)
    assert loaded.pop("run") == {"id": "", "config": None}
    assert loaded == {name: value for name, value in CHECKPOINT.items() if name != "state_dict"}
    assert sorted(os.listdir(path.parent)) == ["catalogue.json", "last.ckpt"]


def test_load_checkpoint__refuses_planted_code(tmp_path):
    path, marker = tmp_path / "last.ckpt", tmp_path / "executed"
    AtomicCheckpointIO().save_checkpoint({**CHECKPOINT, "callbacks": Planted(marker)}, path)
    with pytest.raises(UserError, match=rf"{path} .*'{os.system.__module__}\.system'"):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=False)  # Lightning may ask for it
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists()  # so it would have run


@pytest.mark.parametrize("stage", ["pickling", "fsync", "rename"])
def test_save_checkpoint__failure_leaves_the_old_file(tmp_path, monkeypatch, stage):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(CHECKPOINT, path)
    before = path.read_bytes()

    def full_disk(*args: object) -> None:
        raise OSError(28, "No space left on device")

    new = {**CHECKPOINT, "global_step": 78}
    if stage == "pickling":
        new["callbacks"] = lambda: None
    else:
        monkeypatch.setattr(os, {"fsync": "fsync", "rename": "replace"}[stage], full_disk)
    with pytest.raises((DiskError, AttributeError, RuntimeError), match=r"space|pickle"):
        AtomicCheckpointIO().save_checkpoint(new, path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["catalogue.json", "last.ckpt"]
    assert AtomicCheckpointIO().load_checkpoint(path)["global_step"] == 77


def test_load_checkpoint__truncated(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(CHECKPOINT, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="is truncated"):
        AtomicCheckpointIO().load_checkpoint(path)


def full_disk(*args: object, **others: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("at", ["write", "fsync", "replace", "link"])
def test_save_checkpoint__a_full_disk_is_one_message_and_the_last_stays(tmp_path, monkeypatch, at):
    run = tmp_path / "run"
    path = run / "checkpoints" / "last.ckpt"
    io = AtomicCheckpointIO()
    run.mkdir()
    io.retain("last.ckpt", Retention(1, None))
    io.save_checkpoint(CHECKPOINT, path)
    new = {**CHECKPOINT, "global_step": 78}
    if at == "write":
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    elif at == "link":  # and no other name either
        monkeypatch.setattr(os, "link", full_disk)
        monkeypatch.setattr(os, "replace", full_disk)
    else:
        monkeypatch.setattr(os, at, full_disk)
    try:
        with pytest.raises(DiskError) as stopped:
            io.save_checkpoint(new, path)
    finally:
        if at == "write":
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            signal.signal(signal.SIGXFSZ, before)
    monkeypatch.undo()
    said = str(stopped.value)
    assert said.startswith(f"cannot write {path}") and said.endswith(("device", "File too large"))
    assert not [name for name in os.listdir(path.parent) if name.endswith(".tmp")]
    assert AtomicCheckpointIO().load_checkpoint(path)["global_step"] == 77


def test_save_checkpoint__what_the_disk_gives_back_is_compared(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(CHECKPOINT, path)
    before = path.read_bytes()
    monkeypatch.setattr(writing, "checksum", lambda path: "0")
    with pytest.raises(DiskError, match="does not hold what was written to it: check the disk"):
        AtomicCheckpointIO().save_checkpoint({**CHECKPOINT, "global_step": 78}, path)
    assert path.read_bytes() == before


def test_save_checkpoint__weights_that_are_not_finite_are_never_written(tmp_path):
    path = tmp_path / "last.ckpt"
    bad = {**CHECKPOINT, "state_dict": {"weight": torch.tensor([1.0, torch.nan])}}
    with pytest.raises(TrainingGaveUp, match=r"at step 77 .*not finite \(state_dict.weight\)"):
        AtomicCheckpointIO().save_checkpoint(bad, path)
    assert os.listdir(tmp_path) == []


def test_save_checkpoint__a_removed_run_folder_is_noticed(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    place = Place(run)
    place.note()
    io = AtomicCheckpointIO(check_place=place.check)
    io.save_checkpoint(CHECKPOINT, run / "checkpoints/last.ckpt")
    shutil.rmtree(run / "checkpoints")  # made anew
    io.save_checkpoint(CHECKPOINT, run / "checkpoints/last.ckpt")
    os.rename(run, tmp_path / "elsewhere")
    with pytest.raises(DiskError, match=f"the run's folder {run} was moved or removed in mid-run"):
        io.save_checkpoint(CHECKPOINT, run / "checkpoints/last.ckpt")
    assert not run.exists()
    run.mkdir()
    with pytest.raises(DiskError, match=f"the run's folder {run} was moved or removed in mid-run"):
        io.save_checkpoint(CHECKPOINT, run / "checkpoints/last.ckpt")


@pytest.mark.parametrize("at", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS])
def test_save_checkpoint__what_else_a_disk_says_is_one_message_too(
    tmp_path, monkeypatch, number, at
):
    """A quota is told by NFS when a file is synced or closed, and not when it is written."""
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(CHECKPOINT, path)

    def refuse(*args: object, **others: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, at, refuse)
    with pytest.raises(DiskError, match=f"^cannot write {path}: {os.strerror(number)}$"):
        AtomicCheckpointIO().save_checkpoint({**CHECKPOINT, "global_step": 78}, path)
    monkeypatch.undo()
    assert not list(tmp_path.glob(".*.tmp"))
    assert AtomicCheckpointIO().load_checkpoint(path)["global_step"] == 77


@pytest.mark.parametrize("links", [True, False])
def test_save_checkpoint__keeps_previous_states(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *names: exec("raise OSError(1, 'no links')"))
    io = AtomicCheckpointIO()
    io.retain("last.ckpt", Retention(2, None))
    for step in range(5):
        io.save_checkpoint({**CHECKPOINT, "global_step": step}, tmp_path / "last.ckpt")
    names = ["catalogue.json", "last.ckpt", "last_0000002.ckpt", "last_0000003.ckpt"]
    assert sorted(os.listdir(tmp_path)) == names
    catalogue = Catalogue(tmp_path)
    assert [catalogue.verified(name).step for name in names[1:]] == [4, 2, 3]


def test_save_checkpoint__carries_identity_and_configuration(tmp_path):
    io = AtomicCheckpointIO(identity=lambda: "abcd", config={"seed": 3})
    io.save_checkpoint(CHECKPOINT, tmp_path / "last.ckpt")
    facts = read_facts(tmp_path / "last.ckpt")
    assert (facts.step, facts.run, facts.config) == (77, "abcd", {"seed": 3})

import os
from pathlib import Path

import pytest
import torch

from ssl_swin.errors import UserError
from ssl_swin.files import DiskError
from ssl_swin.training.checkpointing.io import AtomicCheckpointIO

CHECKPOINT = {
    "state_dict": {"weight": torch.arange(6.0).view(2, 3), "scale": torch.tensor(2.5).bfloat16()},
    "epoch": 3,
    "global_step": 77,
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

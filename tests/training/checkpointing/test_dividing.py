"""What one process alone can tell of writing in parts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import distribute_tensor

from ssl_swin.disk_errors import DiskError
from ssl_swin.divided_checkpoint import load_state
from ssl_swin.errors import UserError
from ssl_swin.runs.checkpoint_files import RUN
from ssl_swin.runs.folder import RunFolder
from ssl_swin.stopping.stopped import PeerLostError
from ssl_swin.training.checkpointing import dividing
from ssl_swin.training.checkpointing.dividing import bad_tensors
from ssl_swin.training.checkpointing.io import AtomicCheckpointIO


@pytest.fixture
def alone() -> Iterator[DeviceMesh]:
    """A distributed run of this process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_save_parts__a_removed_run_folder_is_noticed(tmp_path: Path, alone: DeviceMesh) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.place.note()
    weight = torch.arange(6.0).view(2, 3)
    checkpoint = {"global_step": 4, "state_dict": {"weight": distribute_tensor(weight, alone)}}
    io = AtomicCheckpointIO(check_place=run.place.check, identity=run.identity)
    io.save_parts(checkpoint, run.last_checkpoint)
    saved = load_state(run.last_checkpoint)
    assert saved["state_dict"]["weight"].equal(weight)
    assert saved[RUN]["id"] == run.known_identity() != ""
    run.path.rename(tmp_path / "elsewhere")
    with pytest.raises(DiskError, match=f"folder {run.path} was moved or removed in mid-run"):
        io.save_parts(checkpoint, run.last_checkpoint)
    assert not run.path.exists()


def test_bad_tensors__names_weights_and_moments_but_not_scores() -> None:
    bad = torch.tensor([1.0, torch.nan])
    checkpoint = {
        "state_dict": {"weight": bad, "bias": torch.ones(2)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.tensor([torch.inf])}}}],
        "callbacks": {"best": bad},
    }
    found = ["optimizer_states.0.state.0.exp_avg", "state_dict.weight"]
    assert bad_tensors(checkpoint) == found
    assert bad_tensors({"state_dict": {"bias": torch.ones(2)}}) == []


@pytest.mark.parametrize(
    ("raised", "here", "elsewhere"),
    [
        (OSError(28, "No space left on device"), DiskError, DiskError),
        (RuntimeError("torch"), RuntimeError, PeerLostError),
        (UserError("no folder"), UserError, UserError),
        (KeyError("a bug"), KeyError, PeerLostError),
    ],
)
def test_together__whatever_one_raises_ends_all(monkeypatch, raised, here, elsewhere) -> None:
    sent: list = []
    monkeypatch.setattr(dividing.dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dividing, "gather_objects", lambda own: [*sent, sent.append(own) or own])

    def fail() -> None:
        raise raised

    with pytest.raises(here):
        dividing._together(Path("last.ckpt"), fail)
    assert len(sent) == 1  # the one that fails does not leave before it has told
    with pytest.raises(elsewhere, match=str(raised.args[-1])) as told:
        dividing._together(Path("last.ckpt"), lambda: "done")
    assert type(told.value) is elsewhere

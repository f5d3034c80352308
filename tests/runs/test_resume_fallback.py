"""What a run is continued from where its newest state cannot be used."""

import json
import math
import os
from pathlib import Path

import pytest
import torch

from ssl_swin.errors import UserError
from ssl_swin.runs.catalogue import Catalogue, entry_of
from ssl_swin.runs.checkpoint_files import checksum
from ssl_swin.runs.folder import RunFolder
from ssl_swin.runs.resume import Resumption, checkpoint_to_resume

CONFIG = {"name": "first", "seed": 0, "trainer": {"max_epochs": 3}}
FREE = ("name", "resume")


def save(
    path: Path, step: int, run: str = "aaaaaaaaaa", value: float = 1.0, **others: object
) -> None:
    path.parent.mkdir(exist_ok=True)
    content = {
        "state_dict": {"w": torch.full((500,), value)},
        "loops": {},
        "optimizer_states": [],
        "global_step": step,
        "run": {"id": run, "config": CONFIG},
        **others,
    }
    torch.save(content, path)
    new = entry_of(path, path.name, step=step, found=checksum(path), run=run)
    Catalogue(path.parent).add(new)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.start(CONFIG, {}, identity="aaaaaaaaaa")
    for name, step in (("step_10", 10), ("last_0000020", 20), ("last", 30)):
        save(folder.checkpoints / f"{name}.ckpt", step)
    return folder


def resumed(run: RunFolder, resume: str = "auto", **changes: object) -> Resumption:
    return checkpoint_to_resume(run, resume, CONFIG | changes, FREE)


def start_of(run: RunFolder) -> str:
    checkpoint = resumed(run).checkpoint
    assert checkpoint is not None
    return checkpoint.name


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGES = {
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:700]),
    "empty": lambda path: path.write_bytes(b""),
    "a stranger's": lambda path: torch.save({"model": {}}, path),
    "another run's": lambda path: save(path, 30, run="bbbbbbbbbb"),
    "not finite": lambda path: (save(path, 30, value=math.nan), forget(path.parent)),
    "gone": lambda path: path.unlink(),
    "dangling": lambda path: (path.unlink(), path.symlink_to("/nonexistent/last.ckpt")),
}


def forget(folder: Path) -> None:
    (folder / "catalogue.json").unlink()


@pytest.mark.parametrize("damage", DAMAGES)
def test_auto__falls_back_to_the_newest_whole_state_and_says_so(run, damage):
    DAMAGES[damage](run.last_checkpoint)
    found = resumed(run)
    assert found.checkpoint == run.checkpoints / "last_0000020.ckpt"
    (note,) = found.notes
    assert note.startswith("note: ") and str(run.last_checkpoint) in note and "\n" not in note
    assert note.endswith("; going on from last_0000020.ckpt, step 20")
    flip(run.checkpoints / "last_0000020.ckpt")
    assert start_of(run) == "step_10.ckpt"


def test_auto__whole_says_nothing(run):
    assert resumed(run) == Resumption(run.last_checkpoint, "aaaaaaaaaa")


def test_auto__nothing_whole_is_refused_and_nothing_is_overwritten(run):
    for path in run.checkpoints.glob("*.ckpt"):
        path.write_bytes(b"x")
    with pytest.raises(
        UserError, match=r"^no checkpoint of .*run can be continued:\n  .*last\.ckpt"
    ):
        resumed(run)


def test_auto__unhealthy_states_are_not_gone_back_to(run):
    Catalogue(run.checkpoints).mark_unhealthy_from(15)
    assert start_of(run) == "step_10.ckpt"


def test_start__sets_aside_what_was_damaged(run):
    flip(run.last_checkpoint)
    found = resumed(run)
    (note,) = run.start(CONFIG, {}, resumed=True, damaged=found.damaged)
    assert (
        note
        == f"note: {run.last_checkpoint} is damaged or no file of this run: now last.ckpt.damaged"
    )
    assert not run.last_checkpoint.exists()
    assert start_of(run) == "last_0000020.ckpt"


def test_given__a_damaged_one_is_refused_with_the_whole_ones(run):
    flip(run.last_checkpoint)
    with pytest.raises(UserError) as refusal:
        resumed(run, str(run.last_checkpoint))
    message = str(refusal.value)
    assert message.startswith(f"resume={run.last_checkpoint}: ")
    assert (
        f"whole are {run.checkpoints}/last_0000020.ckpt (step 20), {run.checkpoints}/step_10"
        in message
    )
    assert resumed(run, str(run.checkpoints / "step_10.ckpt")).checkpoint is not None


def test_given__a_run_that_has_gone_on_from_there_is_not_started_from_there_again(run):
    given = str(run.checkpoints / "step_10.ckpt")
    run.start(CONFIG | {"resume": given}, {}, resumed=True)
    assert start_from(run, given) == "step_10.ckpt"  # nothing of its own since then
    save(run.last_checkpoint, 15)
    found = resumed(run, given)
    assert found.checkpoint == run.last_checkpoint
    assert "has gone on since it was started with resume=" in found.notes[0]
    run.start(CONFIG | {"resume": given}, {}, resumed=True)  # stopped before it saved again
    assert start_from(run, given) == "last.ckpt"
    run.start(CONFIG | {"resume": "auto"}, {}, resumed=True)
    assert start_from(run, given) == "step_10.ckpt"  # asked for anew


def start_from(run: RunFolder, given: str) -> str:
    checkpoint = resumed(run, given).checkpoint
    assert checkpoint is not None
    return checkpoint.name


@pytest.mark.parametrize("content", [None, b"", b"a: \xff", b"[1"])
def test_config__missing_or_damaged_is_that_of_the_checkpoint(run, content):
    run.config.unlink() if content is None else run.config.write_bytes(content)
    found = resumed(run)
    assert found.checkpoint == run.last_checkpoint
    assert found.notes[0].endswith("the configuration of its checkpoint is taken")
    assert (run.config in found.damaged) == (content is not None)
    with pytest.raises(UserError, match="seed: was 0, now 1"):
        resumed(run, seed=1)


def test_config__missing_beside_old_checkpoints_is_refused_with_the_way_out(run):
    run.config.unlink()
    for path in run.checkpoints.glob("*.ckpt"):
        path.unlink()
    save(run.last_checkpoint, 30, run={})
    forget(run.checkpoints)
    content = torch.load(run.last_checkpoint)
    del content["run"]
    torch.save(content, run.last_checkpoint)
    with pytest.raises(
        UserError, match=rf"without its config\.yaml, and .*resume={run.last_checkpoint}"
    ):
        resumed(run)
    found = resumed(run, str(run.last_checkpoint))
    assert found.checkpoint == run.last_checkpoint
    assert "the configuration asked for now is taken" in found.notes[0]


def test_identity__lost_is_that_of_the_checkpoint(run):
    for content in (None, b"", b"../x", b"\xff", b"aaaa"):
        path = run.path / "run_id"
        path.unlink() if content is None else path.write_bytes(content)
        found = resumed(run)
        run.start(CONFIG, {}, resumed=True, identity=found.identity, damaged=found.damaged)
        assert run.identity() == "aaaaaaaaaa"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 9000])
def test_provenance__damaged_is_set_aside(run, content):
    run.provenance.write_bytes(content)
    (note,) = run.start(CONFIG, {}, resumed=True)
    assert note.endswith("now provenance.json.damaged")
    assert json.loads(run.provenance.read_text())["earlier_s"] == 0.0
    assert run.finish(2.0) == 2.0


def test_start__removes_temporary_files_of_killed_processes(run):
    old = run.checkpoints / ".last.ckpt.ab1_cdef.tmp"
    new, others = run.path / ".metrics.csv.abcdefgh.tmp", run.path / ".mine.tmp"
    for path in (old, new, others):
        path.touch()
    os.utime(old, (1e9, 1e9))
    os.utime(others, (1e9, 1e9))
    run.start(CONFIG, {}, resumed=True)
    assert [path.exists() for path in (old, new, others)] == [False, True, True]


def test_newest_whole__a_changed_run_id_is_named_with_the_way_out(run: RunFolder) -> None:
    run.identity_file.write_text("aaaaaaaaab")
    with pytest.raises(UserError) as refused:
        resumed(run)
    *told, way_out = str(refused.value).splitlines()
    assert (
        f"{run.last_checkpoint} is of another run (aaaaaaaaaa, this one is aaaaaaaaab)" in told[1]
    )
    assert f"if they are this run's own, {run.identity_file} is what is wrong: remove" in way_out
    assert run.identity_file.read_text() == "aaaaaaaaab"  # nothing is touched
    run.identity_file.unlink()  # as told
    assert start_of(run) == "last.ckpt"
    assert resumed(run).identity == "aaaaaaaaaa"


def test_newest_whole__checkpoints_of_several_runs_are_no_sign_of_a_wrong_run_id(
    run: RunFolder,
) -> None:
    run.identity_file.write_text("aaaaaaaaab")
    save(run.last_checkpoint, 30, run="bbbbbbbbbb")
    with pytest.raises(UserError, match=r"put a good copy in its place, or choose another name=$"):
        resumed(run)

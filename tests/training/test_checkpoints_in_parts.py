"""Checkpoints to which each process adds its part: the same training, and as hard to lose."""

import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from faults import FullDisk, KillAtRename, SignalAtBatch
from faults_in_parts import BugInPart, NotFiniteAtSave
from launched import LIMIT_S, finish, output, start
from safetensors.torch import load_file
from test_sharded_combinations import SETTINGS

from ssl_swin.cli import main
from ssl_swin.divided_checkpoint import META, load_state
from ssl_swin.errors import UserError
from ssl_swin.launch.artifacts import local_backbone
from ssl_swin.launch.script import FAILURE, GAVE_UP
from ssl_swin.runs.checkpoint_files import read_facts
from ssl_swin.weights.backbone import WEIGHTS

pytestmark = pytest.mark.slow
IN_PARTS = "trainer.sharded_checkpoints=true"
LENGTH = (
    "trainer.max_epochs=2",
    "callbacks.last.every_n_epochs=null",
    "callbacks.last.every_n_train_steps=2",
    "callbacks.last.save_on_train_epoch_end=null",
    "callbacks.milestones.every_n_epochs=1",
)
STEP, LAST_STEP = 4, 8
DISK_BYTES = 30_000  # more than any other file of these runs, less than a part
NO_PICTURES = "callbacks.reconstructions=null"


class Job:
    """A run, all of them with sixteen images a step."""

    def __init__(self, root: Path, name: str, num_ranks: int, strategy: str) -> None:
        self.place, self.num_ranks, self.strategy = root / name, num_ranks, strategy
        self.settings = (*SETTINGS, *LENGTH, f"data.root={root}/data",
                         f"batch_size={16 // num_ranks}")  # fmt: skip
        self.checkpoints = self.place / "runs/pretrain/swin_nano_demo/checkpoints"

    def run(self, *options: str) -> "Job":
        finish((*self.settings, *options), self.place, self.num_ranks, strategy=self.strategy)
        return self

    def with_fault(self, fault, *options: str) -> list[int]:
        settings = (*self.settings, *options)
        started = start(settings, self.place, self.num_ranks, strategy=self.strategy, fault=fault)
        for process in started:
            process.join(LIMIT_S)
        return [process.exitcode for process in started]

    def state(self, name: str = "last") -> dict:
        return load_state(self.checkpoints / f"{name}.ckpt")

    @property
    def said(self) -> str:
        return output(self.place, 0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(root: Path) -> Job:
    return Job(root, "whole", 2, "fsdp").run()


@pytest.fixture(scope="module")
def parts(root: Path) -> Job:
    return Job(root, "parts", 2, "fsdp").run(IN_PARTS)


def assert_same(ours: dict, theirs: dict) -> None:
    assert ours["global_step"] == theirs["global_step"]
    (state,), (expected,) = ours["optimizer_states"], theirs["optimizer_states"]
    assert state["param_groups"] == expected["param_groups"]
    assert ours["lr_schedulers"] == theirs["lr_schedulers"]
    torch.testing.assert_close(state["state"], expected["state"], rtol=0, atol=0)
    torch.testing.assert_close(ours["state_dict"], theirs["state_dict"], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["last", "step_0000004"])
def test_content__equals_that_of_one_file(whole: Job, parts: Job, name: str) -> None:
    folder = parts.checkpoints / f"{name}.ckpt"
    shards = [f"shard-0000{rank}-model-00001-of-00001.safetensors" for rank in (1, 2)]
    assert sorted(path.name for path in folder.iterdir()) == [META, *shards]
    assert_same(parts.state(name), whole.state(name))
    assert not list(parts.checkpoints.glob(".*"))


@pytest.mark.parametrize(
    ("before", "num_ranks", "strategy", "options"),
    [
        ("parts", 1, "auto", ()),
        ("parts", 2, "ddp", ()),
        ("parts", 1, "fsdp", (IN_PARTS,)),
        ("whole", 2, "fsdp", (IN_PARTS,)),
    ],
)
def test_resume__equals_that_from_one_file(
    root: Path, before: str, num_ranks: int, strategy: str, options: tuple[str, ...],
    whole: Job, parts: Job, tmp_path: Path,
) -> None:  # fmt: skip
    ended = []
    for source, extra in ((parts if before == "parts" else whole, options), (whole, ())):
        job = Job(root, f"{tmp_path.name}_{len(ended)}", num_ranks, strategy)
        resume = f"resume={source.checkpoints}/step_{STEP:07d}.ckpt"
        ended.append(job.run(resume, *extra).state())
    assert ended[0]["global_step"] == LAST_STEP
    assert_same(*ended)


@pytest.mark.parametrize("after", [False, True])
def test_kill__at_the_rename_leaves_a_whole_state(root: Path, parts: Job, after: bool) -> None:
    job = Job(root, f"killed_{after}", 2, "fsdp")
    codes = job.with_fault(KillAtRename("last.ckpt", 3, after=after), IN_PARTS)
    assert all(codes)
    job.run(IN_PARTS)
    assert_same(job.state(), parts.state())


def test_kill__between_the_two_renames_goes_on_from_the_previous_state(
    root: Path, parts: Job
) -> None:
    job = Job(root, "between", 2, "fsdp")
    codes = job.with_fault(KillAtRename("last_0000004.ckpt", 1, after=True), IN_PARTS)
    assert all(codes)
    assert not (job.checkpoints / "last.ckpt").exists()
    assert job.state("last_0000004")["global_step"] == STEP
    assert list(job.checkpoints.glob(".last.ckpt.*.tmp"))  # the next state, without its name
    assert any(job.with_fault(SignalAtBatch(signal.SIGKILL, 1), IN_PARTS))
    assert not list(job.place.rglob(".*.tmp"))  # whoever starts removes it
    job.run(IN_PARTS)
    assert re.search(r"note: there is no \S+/last.ckpt; going on from \S+, step 4", job.said)
    assert_same(job.state(), parts.state())


def test_not_finite__on_one_of_two_processes_is_written_by_none(root: Path, parts: Job) -> None:
    job = Job(root, "not_finite", 2, "fsdp")
    codes = job.with_fault(NotFiniteAtSave(step=STEP, rank=1), IN_PARTS)
    assert codes == [GAVE_UP, GAVE_UP]
    assert "at step 4 weights or the optimiser's state are not finite" in job.said
    assert 'File "' not in job.said + output(job.place, 1)
    assert [path.name for path in job.checkpoints.glob("*.ckpt")] == ["last.ckpt"]
    assert job.state()["global_step"] == STEP // 2
    assert not list(job.checkpoints.glob(".*.tmp"))
    job.run(IN_PARTS)
    assert_same(job.state(), parts.state())


@pytest.mark.parametrize("rank", [0, 1])
def test_bug__in_one_of_two_processes_ends_both(root: Path, rank: int) -> None:
    job = Job(root, f"bug_{rank}", 2, "fsdp")
    codes = job.with_fault(BugInPart(rank), IN_PARTS, "trainer.timeout_s=600")  # more than LIMIT_S
    assert codes == [FAILURE, FAILURE]
    said, others = (output(job.place, number) for number in (rank, 1 - rank))
    assert said.endswith("ZeroDivisionError: planted\n")
    assert 'File "' in said
    assert f"process {rank} could not do its part of" in others
    assert "ZeroDivisionError: planted" in others
    assert 'File "' not in others
    assert not list(job.checkpoints.iterdir())


def test_full_disk__is_one_message_and_the_last_stays(root: Path) -> None:
    job = Job(root, "full", 2, "fsdp")
    assert job.with_fault(SignalAtBatch(signal.SIGTERM, 3), IN_PARTS, NO_PICTURES) == [143, 143]
    before = job.state()
    codes = job.with_fault(FullDisk(DISK_BYTES), IN_PARTS, NO_PICTURES)
    assert all(code in (1, 2) for code in codes), job.said
    assert "File too large" in job.said
    assert f"last.ckpt of step {before['global_step']} stays: make room" in job.said
    assert 'File "' not in job.said
    assert_same(job.state(), before)
    assert not list(job.checkpoints.glob(".*.tmp"))


@pytest.mark.parametrize("damage", ["bit", "cut", "gone"])
def test_damaged_part__is_found_and_the_one_before_taken(
    parts: Job, root: Path, damage: str
) -> None:
    job = Job(root, f"damaged_{damage}", 2, "fsdp")
    shutil.copytree(parts.place, job.place)
    shutil.rmtree(job.checkpoints / f"step_{LAST_STEP:07d}.ckpt")
    part = sorted((job.checkpoints / "last.ckpt").glob("shard-*"))[1]
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        part.unlink()
    else:
        part.write_bytes(content if damage == "bit" else content[: len(content) // 2])
    with pytest.raises(UserError, match=r"incomplete|damaged"):
        read_facts(job.checkpoints / "last.ckpt")
    job.run(IN_PARTS)
    assert "going on from" in job.said
    assert_same(job.state(), parts.state())


def test_hand_off__of_a_run_that_was_stopped(parts: Job, root: Path, tmp_path: Path) -> None:
    job = Job(root, "stopped", 2, "fsdp")
    shutil.copytree(parts.place, job.place)
    run = job.checkpoints.parent
    expected = load_file(run / "backbone/model.safetensors")
    shutil.rmtree(run / "backbone")
    last = job.checkpoints / "last.ckpt"
    for number, reference in enumerate((run, job.checkpoints, last)):
        found = local_backbone(str(reference), tmp_path / str(number))
        torch.testing.assert_close(load_file(found / WEIGHTS), expected, rtol=0, atol=0)
    for number, reference in enumerate((run, last)):
        assert main(["import", str(reference), str(tmp_path / f"imported{number}")]) == 0
        found = load_file(tmp_path / f"imported{number}" / WEIGHTS)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        exported = tmp_path / f"{number}.pth"
        assert main(["export", str(reference), "--to", "simmim", str(exported)]) == 0
        assert exported.is_file()

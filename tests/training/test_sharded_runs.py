"""Two processes train as one: replicated (DDP) or divided (FSDP2), also after a change of either.

All runs see the same sixteen images a step, in one batch or in two of eight.
"""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from faults import BugInForward
from launched import LIMIT_S, finish, output, start
from PIL import Image
from safetensors.torch import load_file

from ssl_swin.safe_pickle import load_checkpoint

pytestmark = pytest.mark.slow
SETTINGS = (
    "model.embed_dim=8",
    "model.depths=[1,1,1]",
    "model.num_heads=[1,1,2]",
    "data.prepare.num_train=64",
    "data.prepare.num_val=21",  # eleven for one process, ten for the other: two batches and one
    "num_workers=0",
    "logger=csv",
    "optim.base_lr=0.01",
    "schedule.warmup_epochs=0",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.max_epochs=3",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "callbacks.milestones.every_n_epochs=1",
    "callbacks.last.every_n_epochs=3",
    "callbacks.probes.every_n_steps=4",
    "callbacks.probes.max_time_ratio=1",
    "callbacks.probes.num_train_images=32",
    "callbacks.probes.k=5",
    "callbacks.reconstructions.every_n_steps=4",
)
NUM_RANKS, NUM_STEPS, STEPS_PER_EPOCH = 2, 12, 4
# By the order of sums; a gradient of L1 also changes its sign where a prediction is just right.
WEIGHTS_DIFFER = {"rtol": 1e-4, "atol": 2e-6}
COMPARED = {
    "train/loss": 1e-5,
    "val/loss": 1e-5,
    "val/loss_vs_mean": 1e-2,  # a mean of ratios, one per batch
    "val/psnr": 1e-5,
    "optim/grad_norm": 1e-3,
    "probe/knn_top1/stage3": 0,
    "probe/linear_top1/stage1": 0,
    "rep/rankme/stage3": 1e-3,
    "rep/std_mean/stage2": 1e-3,
    "rep/cka_to_init/stage3": 1e-3,
}
MOST_OFF = 3  # of 255, in a picture


class Job:
    """A run and what it left."""

    def __init__(self, root: Path, name: str, strategy: str, *options: str) -> None:
        num_ranks = 1 if strategy == "auto" else NUM_RANKS
        size = f"batch_size={16 // num_ranks}"
        placed = (size, f"data.root={root}/data")
        finish((*SETTINGS, *placed, *options), root / name, num_ranks, strategy=strategy)
        self.folder = root / name / "runs/pretrain/swin_nano_demo"

    def checkpoint(self, step: int) -> Path:
        return self.folder / f"checkpoints/step_{step:07d}.ckpt"

    def weights(self) -> dict[str, torch.Tensor]:
        return load_file(self.folder / "backbone/model.safetensors")

    def logged(self, name: str, after: int = 0) -> list[float]:
        with (self.folder / "metrics.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) >= after]
        return [float(row[name]) for row in rows if row[name]]

    def picture(self, step: int) -> np.ndarray:
        return np.asarray(Image.open(self.folder / f"reconstructions/step_{step:07d}.png"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def one(root: Path) -> Job:
    return Job(root, "one", "auto")


@pytest.fixture(scope="module")
def fsdp(root: Path) -> Job:
    return Job(root, "fsdp", "fsdp", "model.grad_checkpointing=true")


def assert_same_training(ours: Job, theirs: Job, after: int = 0) -> None:
    for name, tolerance in COMPARED.items():
        if after and "to_init" in name:  # the first network's features are in the other's folder
            continue
        values = ours.logged(name, after)
        assert values  # a probe of the first step there is older than the checkpoint
        expected = theirs.logged(name, after)[-len(values) :]
        np.testing.assert_allclose(values, expected, rtol=tolerance)
    torch.testing.assert_close(ours.weights(), theirs.weights(), **WEIGHTS_DIFFER)


def test_ddp__equals_one_process(root: Path, one: Job) -> None:
    ddp = Job(root, "ddp", "ddp")
    assert len(ddp.logged("train/loss")) == NUM_STEPS
    assert_same_training(ddp, one)
    for step in (0, NUM_STEPS):
        assert np.abs(ddp.picture(step) - one.picture(step).astype(int)).max() <= MOST_OFF
    start = load_checkpoint(one.checkpoint(STEPS_PER_EPOCH))["state_dict"]
    moved = [not one.weights()[name].equal(start[f"model.encoder.model.{name}"])
             for name in ("patch_embed.proj.weight", "norm.weight")]  # fmt: skip
    assert all(moved)


def test_fsdp__equals_one_process_and_leaves_the_same_checkpoint(one: Job, fsdp: Job) -> None:
    assert_same_training(fsdp, one)
    assert np.abs(fsdp.picture(NUM_STEPS) - one.picture(NUM_STEPS).astype(int)).max() <= MOST_OFF
    ours, theirs = (load_checkpoint(job.checkpoint(STEPS_PER_EPOCH)) for job in (fsdp, one))
    torch.testing.assert_close(ours["state_dict"], theirs["state_dict"], **WEIGHTS_DIFFER)
    (state,), (expected,) = ours["optimizer_states"], theirs["optimizer_states"]
    assert state["param_groups"] == expected["param_groups"]
    torch.testing.assert_close(state["state"], expected["state"], **WEIGHTS_DIFFER)
    assert ours.keys() == theirs.keys()


def test_fsdp__an_error_amid_a_forward_pass_is_what_is_told(root: Path, tmp_path: Path) -> None:
    settings = (*SETTINGS, "batch_size=16", f"data.root={root}/data")
    (process,) = start(settings, tmp_path, 1, strategy="fsdp", fault=BugInForward())
    process.join(LIMIT_S)
    assert process.exitcode == 1
    assert output(tmp_path, 0).endswith("ZeroDivisionError: planted\n")


@pytest.mark.parametrize(("before", "after"), [("fsdp", "auto"), ("one", "fsdp")])
def test_resume__on_another_number_of_processes(
    root: Path, before: str, after: str, request: pytest.FixtureRequest, one: Job
) -> None:
    checkpoint = request.getfixturevalue(before).checkpoint(STEPS_PER_EPOCH)
    resumed = Job(root, f"{before}_then_{after}", after, f"resume={checkpoint}")
    assert len(resumed.logged("train/loss")) == NUM_STEPS - STEPS_PER_EPOCH
    assert_same_training(resumed, one, after=STEPS_PER_EPOCH)

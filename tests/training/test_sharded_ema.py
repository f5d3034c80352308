"""The average of divided weights (FSDP2) is that of whole ones (DDP), resumed and handed on too."""

import csv
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from faults import SignalAtBatch
from launched import LIMIT_S, finish, output, start
from safetensors.torch import load_file
from test_sharded_combinations import FINETUNE, SETTINGS, WEIGHTS_DIFFER

from ssl_swin.divided_checkpoint import load_state

pytestmark = pytest.mark.slow
STEP, LAST_STEP, NUM_VAL = 4, 8, 21
IN_PARTS = "trainer.sharded_checkpoints=true"
LENGTH = (
    "ema_decay=0.5",
    "name=f",
    "trainer.max_epochs=2",
    f"data.prepare.num_val={NUM_VAL}",
)
RESUMED = f"last_{STEP:07d}.ckpt"


class Job:
    """A run, all of them with sixteen images a step."""

    def __init__(self, root: Path, name: str, num_ranks: int, strategy: str) -> None:
        self.place, self.num_ranks, self.strategy = root / name, num_ranks, strategy
        size = (f"data.root={root}/data", f"batch_size={16 // num_ranks}")
        self.settings = (*FINETUNE, *SETTINGS, *LENGTH, *size)
        self.folder = self.place / "runs/finetune/f"

    def run(self, *options: str) -> "Job":
        settings = (*self.settings, *options)
        finish(settings, self.place, self.num_ranks, job="finetune", strategy=self.strategy)
        return self

    def state(self, name: str = "last.ckpt") -> dict:
        return load_state(self.folder / "checkpoints" / name)

    def handed_on(self) -> dict[str, torch.Tensor]:
        return load_file(self.folder / "classifier/model.safetensors")

    def logged(self, name: str) -> list[float]:
        with (self.folder / "metrics.csv").open() as file:
            return [float(row[name]) for row in csv.DictReader(file) if row[name]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def ddp(root: Path) -> Job:
    return Job(root, "ddp", 2, "ddp").run()


@pytest.fixture(scope="module")
def fsdp(root: Path) -> Job:
    return Job(root, "fsdp", 2, "fsdp").run()


@pytest.fixture(scope="module")
def parts(root: Path) -> Job:
    return Job(root, "parts", 2, "fsdp").run(IN_PARTS)


def assert_same_state(ours: dict, theirs: dict, **differ: float) -> None:
    assert ours["global_step"] == theirs["global_step"]
    assert ours["averaging_state"]["n_averaged"] == theirs["averaging_state"]["n_averaged"]
    for part in ("state_dict", "current_model_state"):
        torch.testing.assert_close(ours[part], theirs[part], **differ)


def test_fsdp__averages_as_ddp(ddp: Job, fsdp: Job) -> None:
    assert_same_state(fsdp.state(), ddp.state(), **WEIGHTS_DIFFER)
    for name in ("train/loss", "val/loss", "val/loss_best"):
        assert ddp.logged(name)
        np.testing.assert_allclose(fsdp.logged(name), ddp.logged(name), rtol=1e-5)
    torch.testing.assert_close(fsdp.handed_on(), ddp.handed_on(), **WEIGHTS_DIFFER)


def test_fsdp__the_average_is_no_copy_of_the_weights(fsdp: Job) -> None:
    state, best = fsdp.state(), fsdp.state("best.ckpt")
    assert state["averaging_state"]["n_averaged"] == LAST_STEP
    name = "model.head.weight"
    away = (state["state_dict"][name] - state["current_model_state"][name]).abs().max()
    assert away > 10 * WEIGHTS_DIFFER["atol"]
    assert fsdp.handed_on()["head.fc.weight"].equal(best["state_dict"][name])


def test_in_parts__the_bits_of_one_file(fsdp: Job, parts: Job) -> None:
    for name in ("last.ckpt", RESUMED):
        assert (parts.folder / "checkpoints" / name).is_dir()
        assert_same_state(parts.state(name), fsdp.state(name), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("num_ranks", "strategy", "options"),
    [(1, "auto", ()), (2, "ddp", ()), (2, "fsdp", (IN_PARTS,))],
)
def test_resume__in_parts_as_from_one_file(
    root: Path, fsdp: Job, parts: Job, tmp_path: Path, num_ranks: int, strategy: str,
    options: tuple[str, ...],
) -> None:  # fmt: skip
    ended = []
    for source in (fsdp, parts):
        job = Job(root, f"{tmp_path.name}_{len(ended)}", num_ranks, strategy)
        ended.append(job.run(f"resume={source.folder}/checkpoints/{RESUMED}", *options).state())
    assert_same_state(*ended, rtol=0, atol=0)
    if strategy == "fsdp":
        assert_same_state(ended[0], fsdp.state(), rtol=0, atol=0)
    elif num_ranks == 2:  # one process mixes sixteen images with one another, and two eight each
        assert_same_state(ended[0], fsdp.state(), **WEIGHTS_DIFFER)


@pytest.mark.parametrize("options", [(), (IN_PARTS,)])
def test_stopped_in_a_validation__goes_on_exactly(
    root: Path, fsdp: Job, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Amid a validation the average is in place of the weights."""
    job = Job(root, tmp_path.name, 2, "fsdp")
    fault = SignalAtBatch(signal.SIGTERM, 1, "validation_step")
    settings = (*job.settings, *options)
    for process in start(settings, job.place, 2, "finetune", "fsdp", fault):
        process.join(LIMIT_S)
        assert process.exitcode == 128 + signal.SIGTERM, output(job.place, 0)
    assert_same_state(job.state(), fsdp.state(RESUMED), rtol=0, atol=0)
    job.run(*options)
    assert_same_state(job.state(), fsdp.state(), rtol=0, atol=0)
    assert job.logged("val/loss") == fsdp.logged("val/loss")


def test_classes_predicted__are_those_of_all_processes_together(ddp: Job, fsdp: Job) -> None:
    """Each image is counted once, also where one process has fewer of them."""
    folders = [job.folder / "confusion_val" for job in (ddp, fsdp)]
    for name in ("confusion.csv", "mistakes.png"):
        replicated, divided = ((folder / name).read_bytes() for folder in folders)
        assert replicated == divided
    with (folders[0] / "per_class.csv").open() as file:
        assert sum(int(row["images"]) for row in csv.DictReader(file)) == NUM_VAL

"""Files of a fine-tuning's folder and of its dashboard: gone, empty, cut, or a folder instead.

The checkpoints are left alone, of which others tell; the run goes on to the same end. A folder
where a file of the run has to be written is refused, in one message.
"""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from chaos import Job, compare
from faults import SignalAtBatch
from launched import LIMIT_S, output, start

pytestmark = pytest.mark.slow
JOB = Job("fine-tune", job="finetune", settings=("num_workers=0", "logger=wandb", "name=k"))
RUN = Path("runs/finetune/k")
USER_ERROR = 2


def a_folder(path: Path) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


def unreadable(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path.chmod(0)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b"") and None,
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]) and None,
    "unreadable": unreadable,
}


def run(place: Path, *statuses: int, fault: Callable[[], None] | None = None) -> str:
    (place / "output0.txt").unlink(missing_ok=True)
    (process,) = start(JOB.overrides, place, 1, JOB.job, fault=fault)
    process.join(LIMIT_S)
    said = output(place, 0)
    assert process.exitcode in statuses, said
    assert 'File "' not in said, said
    return said


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to, `whole`, and one killed in its second epoch, `killed`."""
    folder = tmp_path_factory.mktemp("root")
    run(folder / "whole", 0)
    shutil.copytree(folder / "whole/data", folder / "killed/data")
    run(folder / "killed", -signal.SIGKILL, fault=SignalAtBatch(signal.SIGKILL, 20))
    return folder


def files(run_folder: Path, *, of_wandb: bool) -> list[Path]:
    found = [path for path in sorted(run_folder.rglob("*")) if path.is_file()]
    beside = [path for path in found if path.suffix != ".ckpt" and path.name != ".lock"]
    is_its = {path: "wandb" in path.relative_to(run_folder).parts for path in beside}
    return [path for path in beside if is_its[path] == of_wandb]


def check(root: Path, place: Path, damage: str, *, of_wandb: bool) -> None:
    shutil.copytree(root / "killed", place, symlinks=True)
    damaged = files(place / RUN, of_wandb=of_wandb)
    assert len(damaged) >= 3
    for path in damaged:
        DAMAGES[damage](path)
    run(place, 0)
    differences = compare(JOB, root / "whole", place)
    assert differences in ([], ["metrics.csv"])  # whose earlier rows are lost
    assert of_wandb <= (differences == [])


@pytest.mark.parametrize("damage", DAMAGES)
def test_all_files_beside_the_checkpoints(root: Path, tmp_path: Path, damage: str) -> None:
    check(root, tmp_path / "run", damage, of_wandb=False)


@pytest.mark.parametrize(
    "name", ["config.yaml", "provenance.json", "run_id", "metrics.csv", ".owner.json"]
)
def test_a_folder_in_the_place_of(root: Path, tmp_path: Path, name: str) -> None:
    place = tmp_path / "run"
    shutil.copytree(root / "killed", place, symlinks=True)
    a_folder(place / RUN / name)
    said = run(place, 0, USER_ERROR)
    refused = [line for line in said.splitlines() if line.startswith("finetune.py: ")]
    if refused:
        (message,) = refused
        assert str(RUN / name) in message
        shutil.rmtree(place / RUN / name)
        run(place, 0)
    assert compare(JOB, root / "whole", place) in ([], ["metrics.csv"])


def test_all_files_of_wandb_are_folders(root: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    shutil.copytree(root / "killed", place, symlinks=True)
    for path in files(place / RUN, of_wandb=True):
        a_folder(path)
    run(place, 0)
    assert compare(JOB, root / "whole", place) == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_all_files_of_wandb(root: Path, tmp_path: Path, damage: str) -> None:
    check(root, tmp_path / "run", damage, of_wandb=True)


def test_wandb_folder__is_a_file(root: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    shutil.copytree(root / "killed", place, symlinks=True)
    shutil.rmtree(place / RUN / "wandb")
    (place / RUN / "wandb").write_text("")
    run(place, 0)
    assert compare(JOB, root / "whole", place) == []

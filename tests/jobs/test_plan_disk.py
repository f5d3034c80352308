"""What `plan=true` says of the disk, against what the run leaves there."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import ssl_swin
from ssl_swin.jobs.plan_disk import DiskUse, Pictures

UNITS = {"B": 1, "kB": 1e3, "MB": 1e6}
TINY = (
    "model.embed_dim=8 model.depths=[1,1,1] model.num_heads=[1,1,2] data.prepare.num_train=80 "
    "data.prepare.num_val=16 batch_size=4 num_workers=0 trainer.accelerator=cpu "
    "trainer.max_epochs=6 trainer.log_every_n_steps=2 trainer.enable_progress_bar=false name=x"
).split()
PRETRAIN = [
    "callbacks.milestones.every_n_epochs=2",
    "callbacks.reconstructions.every_n_steps=20",
    "callbacks.probes.every_n_steps=3",
]
FINETUNE = ["backbone=none", "model=swin_nano", "ema_decay=0.99"]


def read(text: str) -> float:
    """Read a number of bytes as it is printed."""
    number, unit = text.split()
    return float(number) * UNITS[unit]


def size(path: Path) -> int:
    files = [each for each in path.rglob("*") if each.is_file() and not each.is_symlink()]
    return sum(each.stat().st_size for each in files)


def test_disk_use__says_what_there_is() -> None:
    use = DiskUse(1, 2_000_000, [Pictures(3, 1000)], 500, 0, 10_000)
    assert str(use) == (
        "2.01 MB in all: 1 checkpoint of 2 MB, 3 pictures of 1 kB, metrics 500 B, weights and "
        "report 10 kB"
    )
    assert "dashboard 7 kB" in str(use._replace(dashboard_bytes=7000))
    assert use._replace(pictures=[]).total_bytes == 2_010_500
    film = use._replace(pictures=[Pictures(3, 1000, film_bytes=4000)])
    assert film.total_bytes == use.total_bytes + 4000
    assert "3 pictures of 1 kB, a film of 4 kB" in str(film)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "settings", "num_checkpoints", "num_pictures"),
    [
        (ssl_swin.pretrain, [*PRETRAIN, "logger=wandb"], 6, 7),
        (ssl_swin.pretrain, [*PRETRAIN, "logger=csv", "callbacks.last.num_previous=0"], 5, 7),
        (
            ssl_swin.pretrain,
            ["logger=csv", "callbacks.reconstructions=null", "compile=false"],
            3,
            0,
        ),
        (ssl_swin.finetune, [*FINETUNE, "logger=tensorboard"], 4, 0),
    ],
)
def test_plan__disk_is_what_the_run_leaves(
    job: Callable[..., Path],
    settings: list[str],
    num_checkpoints: int,
    num_pictures: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In all to a quarter, a checkpoint to a tenth, the numbers exactly."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    job([*TINY, *settings, "plan=true"])
    text = " ".join(capsys.readouterr().out.split())
    planned = re.search(r"disk (\S+ \wB) in all: (\d+) checkpoints of (\S+ \wB)", text)
    assert planned is not None, text
    folder = job([*TINY, *settings])
    checkpoints = [path.stat().st_size for path in folder.glob("checkpoints/*.ckpt")]
    assert len(checkpoints) == int(planned[2]) == num_checkpoints
    assert read(planned[3]) == pytest.approx(max(checkpoints), rel=0.1)
    drawn = re.search(r"(\d+) pictures of \S+ \wB, a film of (\S+ \wB)", text)
    assert len(list(folder.glob("reconstructions/*.png"))) == num_pictures
    assert (0 if drawn is None else int(drawn[1])) == num_pictures
    if drawn is not None:
        film = (folder / "reconstructions.webp").stat().st_size
        assert read(drawn[2]) == pytest.approx(film, rel=0.5)
    assert read(planned[1]) == pytest.approx(size(folder), rel=0.25)

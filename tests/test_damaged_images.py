"""Images that cannot be read, in runs on two ranks, where only one rank meets them."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from launched import finish, output
from PIL import Image

pytestmark = pytest.mark.slow
TINY = (
    "data=folder",
    "data.root=../photos",
    "model.embed_dim=8",
    "model.depths=[1,1,1]",
    "model.num_heads=[1,1,2]",
    "data.val_ratio=0.1",
    "batch_size=4",
    "num_workers=1",
    "logger=csv",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """40 JPEGs, of which three end after 400 bytes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(40):
        file = io.BytesIO()
        Image.fromarray(draw.integers(0, 255, (96, 96, 3), dtype=np.uint8)).save(file, "jpeg")
        whole = number not in (5, 17, 29)
        (folder / f"{number:02d}.jpg").write_bytes(file.getvalue()[: None if whole else 400])
    return folder


def test_pretrain__damaged_images_are_replaced_and_listed(photos: Path, tmp_path: Path) -> None:
    finish(TINY, tmp_path / "run", num_ranks=2)
    listed = (tmp_path / "run/runs/pretrain/swin_nano_folder/bad_samples.jsonl").read_text()
    names = {json.loads(line)["name"] for line in listed.splitlines()}
    assert names and names <= {"05.jpg", "17.jpg", "29.jpg"}


def test_pretrain__too_many_damaged_images_stop_all_ranks(photos: Path, tmp_path: Path) -> None:
    overrides = (*TINY, "data.max_bad_samples=0", "data.max_bad_ratio=0")
    finish(overrides, tmp_path / "run", num_ranks=2, status=2)
    for rank in (0, 1):
        printed = output(tmp_path / "run", rank)
        assert "could not be read, more than the 0 that data.max_bad_samples" in printed
        assert ".jpg: cannot decode the image" in printed
        assert 'File "' not in printed

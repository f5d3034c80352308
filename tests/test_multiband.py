"""Images of five bands, of 16 bits or of floats, from files to a backbone in timm."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from test_scripts import metrics, start

from ssl_swin.cli import main as ssl_swin_command
from ssl_swin.weights.backbone import load_backbone

NUM_IMAGES = 48
CLASSES = ("bright", "dark")
MODEL = ("model.embed_dim=8", "model.depths=[1,1,1]", "model.num_heads=[1,1,2]")


def five_bands(number: int) -> NDArray[np.float64]:
    """A disc on a slope, (5, 64, 80) in [0, 1]: each band shows them at another brightness."""
    generator = np.random.default_rng(number)
    rows, columns = np.mgrid[:64, :80]
    top, left, radius = generator.uniform((12, 12, 8), (52, 68, 20))
    disc = (rows - top) ** 2 + (columns - left) ** 2 < radius**2
    level = 0.7 if number % 2 == 0 else 0.2
    slope = 0.2 * columns / 80 + 0.02 * generator.random((64, 80))
    return np.stack([np.where(disc, level * (1 - 0.15 * band), slope) for band in range(5)])


def write_tiff(path: Path, bands: NDArray[np.float64]) -> None:
    levels = (bands * 65535).astype(np.uint16)
    tifffile.imwrite(path.with_suffix(".tif"), levels, photometric="minisblack")


def write_npy(path: Path, bands: NDArray[np.float64]) -> None:
    heights = (bands * 3000 - 500).astype(np.float32)  # in metres, say
    np.save(path.with_suffix(".npy"), heights.transpose(1, 2, 0))


KINDS = {
    "uint16": (write_tiff, ["data.mean=[.2,.2,.2,.2,.2]", "data.std=[.2,.2,.2,.2,.2]"]),
    "float32": (write_npy, ["data.mean=[0,0,0,0,0]", "data.std=[500,500,500,500,500]"]),
}


def pack(folder: Path, write: Callable[[Path, NDArray[np.float64]], None]) -> None:
    for number in range(NUM_IMAGES):
        path = folder / "photos" / CLASSES[number % 2] / f"{number:02d}.x"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, five_bands(number))
    command = ["pack", f"{folder}/photos", f"{folder}/shards", "--val-ratio", "0.25"]
    assert ssl_swin_command(command) == 0


@pytest.mark.slow
@pytest.mark.parametrize("dtype", KINDS)
def test_five_bands__from_files_to_timm(dtype: str, tmp_path: Path) -> None:
    write, statistics = KINDS[dtype]
    pack(tmp_path, write)
    data = ("data=shards", f"data.root={tmp_path}/shards", "data.channels=5", *statistics)
    options = (*data, f"data.dtype={dtype}", "batch_size=6", "num_workers=1", "logger=csv")
    start(
        "pretrain",
        *options,
        *MODEL,
        "name=five",
        "trainer.max_epochs=2",
        "trainer.log_every_n_steps=1",
        "callbacks.reconstructions.bands=[4,2,0]",
        cwd=tmp_path,
    )
    run = tmp_path / "runs/pretrain/five"
    losses = [float(row["train/loss"]) for row in metrics(run) if row["train/loss"]]
    assert len(losses) == 12 and np.isfinite(losses).all()
    picture = np.asarray(Image.open(run / "reconstructions/step_0000012.png"))
    assert picture[16:112, :96].std() > 30  # stretched to be seen

    printed = start("linear_probe", f"backbone={run}", *options, cwd=tmp_path)
    assert "chosen on val" in printed

    images = torch.randn(2, 5, 96, 96, generator=torch.Generator().manual_seed(0))
    theirs = timm.create_model(f"local-dir:{run}/backbone", pretrained=True, num_classes=0).eval()
    assert theirs.pretrained_cfg["input_size"][0] == theirs.patch_embed.proj.in_channels == 5
    ours = load_backbone(run).encoder.eval()
    with torch.no_grad():
        timm_map = theirs.forward_features(images).permute(0, 3, 1, 2)
        torch.testing.assert_close(timm_map, ours(images), rtol=0, atol=3e-5)


@pytest.mark.slow
def test_five_bands__bands_that_are_not_there_end_the_run_before_it_starts(tmp_path: Path) -> None:
    write, statistics = KINDS["uint16"]
    pack(tmp_path, write)
    data = ("data=shards", f"data.root={tmp_path}/shards", "data.channels=5", *statistics)
    with pytest.raises(AssertionError, match=r"bands to draw must be one or three from 0 to 4"):
        start(
            "pretrain",
            *data,
            *MODEL,
            "data.dtype=uint16",
            "batch_size=6",
            "callbacks.reconstructions.bands=[5,2,0]",
            "logger=csv",
            cwd=tmp_path,
        )
    assert not list(tmp_path.glob("runs/pretrain/*/checkpoints/*.ckpt"))

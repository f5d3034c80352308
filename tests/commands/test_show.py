import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ssl_swin.cli import main
from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.loading.order import OrderConstants, SampleOrder
from ssl_swin.data.packing.pack import pack
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.index import load_index
from ssl_swin.reporting.figures import GAP_PX, HEADER_PX, MASKED_GREY

SIZE_PX = 96  # of model=swin_nano, whose 6 x 6 units of 16 px are masked by 22
NUM_IMAGES = 12


class Levels(ImageDataset):
    """Image i is of level 10 * i all over."""

    classes: tuple[str, ...] = ()
    fingerprint = "0" * 16

    def __len__(self) -> int:
        return NUM_IMAGES

    def __getitem__(self, index: int) -> EncodedSample:
        file = io.BytesIO()
        Image.new("RGB", (20, 20), (10 * index, 0, 0)).save(file, "PNG")
        return EncodedSample.of_image(file.getvalue(), "png", None, str(index))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "shards"
    pack({"train": Levels()}, root, shard_samples=5, num_workers=0, progress=False)
    return root


def show(shards: Path, out: Path, *options: str) -> NDArray[np.uint8]:
    settings = ["data=shards", f"data.root={shards}", "batch_size=8"]
    assert main(["show", *settings, "--out", str(out), *options]) == 0
    return np.asarray(Image.open(out))


def tiles(picture: NDArray[np.uint8], row: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    top = HEADER_PX + row * (HEADER_PX + SIZE_PX + GAP_PX) + HEADER_PX
    rows = picture[top : top + SIZE_PX]
    return rows[:, :SIZE_PX], rows[:, SIZE_PX + GAP_PX : 2 * SIZE_PX + GAP_PX]


def levels_in_order(shards: Path, epoch: int) -> list[int]:
    source = ShardDataset(load_index(shards), "train")
    constants = OrderConstants(block=64, pool=262144, lanes=1)
    order = SampleOrder(np.array([5, 5, 2]), constants, seed=0, epoch=epoch)
    files = [io.BytesIO(source[i].data) for i in order.indices(np.arange(NUM_IMAGES)).tolist()]
    return [Image.open(file).getpixel((0, 0))[0] for file in files]


@pytest.mark.parametrize("epoch", [0, 3])
def test_show__images_are_the_first_of_the_order(
    shards: Path, tmp_path: Path, epoch: int, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "batch.png"
    picture = show(shards, out, "--images", "5", "--epoch", str(epoch))
    height_px = HEADER_PX + 5 * (HEADER_PX + SIZE_PX + GAP_PX)
    assert picture.shape == (height_px, 2 * (SIZE_PX + GAP_PX), 3)
    views = [tiles(picture, row)[0] for row in range(5)]
    assert [view.mean(axis=(0, 1)).tolist() for view in views] == [
        [level, 0, 0] for level in levels_in_order(shards, epoch)[:5]
    ]
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == (
        f"{out}: 5 images of epoch {epoch}, 3 x 96 x 96; "
        "SimMIM, 22 of 36 mask patches of 16 px masked"
    )


def test_show__masked_units_are_grey(shards: Path, tmp_path: Path) -> None:
    picture = show(shards, tmp_path / "batch.png", "--images", "2")
    masks = []
    for row in range(2):
        view, visible = tiles(picture, row)
        hidden = (visible == MASKED_GREY).all(axis=2)
        units = hidden.reshape(6, 16, 6, 16).swapaxes(1, 2).reshape(36, -1)
        assert (units.all(axis=1) | ~units.any(axis=1)).all()
        assert units.all(axis=1).sum() == 22
        assert (visible[~hidden] == view[~hidden]).all()
        masks.append(hidden)
    assert (masks[0] != masks[1]).any()


def test_show__no_more_than_a_batch(shards: Path, tmp_path: Path) -> None:
    picture = show(shards, tmp_path / "batch.png", "--images", "100")
    assert picture.shape[0] == HEADER_PX + 8 * (HEADER_PX + SIZE_PX + GAP_PX)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=shads"], "there is no data=shads, did you mean shards?"),
        (["batch_sise=4"], "there is no setting batch_sise, did you mean batch_size?"),
        (["data=shards"], "data.root is not set: give it as data.root=VALUE"),
        (["data=shards", "data.root=absent"], "no data: looked in the folder absent"),
        (["model.window_size=5"], "windows of 5 tokens"),
        (["--images", "0"], "--images must be a whole number of at least 1"),
        (["--epoch", "-1"], "--epoch must be a whole number of at least 0, got '-1'"),
    ],
)
def test_show__mistakes(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", *arguments, "--out", str(tmp_path / "batch.png")]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

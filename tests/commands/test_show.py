import io
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_objects import write_coco
from numpy.typing import NDArray
from PIL import Image

from ssl_swin.cli import main
from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.loading.order import OrderConstants, SampleOrder
from ssl_swin.data.packing.pack import pack
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.index import load_index
from ssl_swin.reporting.drawing import class_colours
from ssl_swin.reporting.figures import GAP_PX, HEADER_PX, MASKED_GREY
from ssl_swin.reporting.objects import MASK_OPACITY
from ssl_swin.tasks.classification import Classification

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


@pytest.fixture
def masked(tmp_path: Path) -> Path:
    """Six images of 40 x 48 px, red on the left and blue on the right, with masks of the same."""
    for number in range(6):
        edge = 8 + 4 * number
        image = np.zeros((40, 48, 3), dtype=np.uint8)
        image[:, :edge, 0] = image[:, edge:, 2] = 200
        mask = np.zeros((40, 48), dtype=np.uint8)
        mask[:, edge:], mask[:, :2] = 1, 255
        for folder, values in (("images", image), ("masks", mask)):
            path = tmp_path / "photos" / folder / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
    return tmp_path / "photos"


AS_THEY_ARE = (  # of whole images
    *("task.crop_px=[40,48]", "augment.short_px=40", "augment.ratio=[1,1]"),
    *("augment.flip_probability=0", "augment.brightness=0", "augment.contrast=null"),
    *("augment.saturation=null", "augment.hue_degrees=null"),
)


def show_segments(photos: Path, out: Path, *settings: str, status: int = 0) -> None:
    data = ["data=masks", f"data.root={photos}", "backbone=none", "model=swin_nano"]
    words = [*data, "task.head_channels=8", *settings]
    assert main(["show", "--images", "4", "--out", str(out), "segment", *words]) == status


def test_show_segment__classes_lie_over_their_pixels(
    masked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "batch.png"
    show_segments(masked, out, "classes=[left,right]", *AS_THEY_ARE)
    picture = np.asarray(Image.open(out)).astype(int)
    assert picture.shape == (2 * HEADER_PX + 4 * (HEADER_PX + 40 + GAP_PX), 2 * (48 + GAP_PX), 3)
    colours = np.array([*class_colours(2), (MASKED_GREY,) * 3])
    for row in range(4):
        top = 2 * HEADER_PX + row * (HEADER_PX + 40 + GAP_PX)
        view, tinted = picture[top : top + 40, :48], picture[top : top + 40, 50:98]
        classes = (view[..., 2] > view[..., 0]).astype(int)
        assert 0 < classes.mean() < 1 and view.max() == 200
        classes[:, :2] = 2
        assert np.abs(tinted - (view + colours[classes]) / 2).max() <= 0.5
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.endswith("4 images of epoch 0, 3 x 40 x 48; segmentation into 2 classes, UPerNet")


def test_show_segment__crops_are_those_of_the_epoch(masked: Path, tmp_path: Path) -> None:
    pictures = []
    for name, *options in (("a", "seed=0"), ("b", "seed=0"), ("c", "seed=1")):
        settings = ["classes=2", "task.crop_px=32", "augment.short_px=40", *options]
        show_segments(masked, tmp_path / f"{name}.png", *settings)
        pictures.append((tmp_path / f"{name}.png").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


def test_show_segment__mistakes(
    masked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for settings, message in (
        ([], "the data does not name the classes of its masks: give classes="),
        (["classes=2", "task.masks.ignore_value=null"], "has the value 255, and what is known"),
        (["classes=2", "batch_sise=4"], "there is no setting batch_sise, did you mean batch_size"),
    ):
        show_segments(masked, tmp_path / "batch.png", *settings, status=2)
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error
    assert main(["show", "linear_probe", "--out", str(tmp_path / "batch.png")]) == 2
    assert "show draws what pretrain, finetune, segment, detect see, got 'linear_probe'" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "batch.png").exists()


def test_show_detect__masks_and_boxes_lie_over_their_objects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_coco(tmp_path / "photos")
    out = tmp_path / "batch.png"
    data = ["data=coco", f"data.root={tmp_path / 'photos'}", "backbone=none", "model=swin_nano"]
    views = ["augment.short_px=[64]", "augment.crop_probability=0", "task.head_channels=8"]
    assert main(["show", "--images", "8", "--out", str(out), "detect", *data, *views]) == 0
    picture = np.asarray(Image.open(out)).astype(int)
    for label, pure in ((0, (60, 60, 230)), (1, (230, 60, 60))):
        colour = np.array(class_colours(2)[label])
        tinted = np.array(pure) + MASK_OPACITY * (colour - pure)
        num_tinted = (np.abs(picture - tinted).max(axis=-1) <= 1).sum()
        num_pure = (np.abs(picture - np.array(pure)).max(axis=-1) <= 1).sum()
        assert num_tinted > 7 * 16**2 and num_pure < num_tinted / 100
        assert (picture[-HEADER_PX:] == colour).all(axis=-1).sum() == 100  # of the legend
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.endswith("8 images of epoch 0, 3 x 64 x 96; detection of 2 classes, Mask R-CNN")


def test_show_detect__images_without_boxes_are_below_the_others_in_both_views(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Epochs are passes over six images without boxes, three a step; two with boxes run on."""
    write_coco(tmp_path / "photos")
    settings = ["data=coco", f"data.root={tmp_path / 'photos'}", "backbone=none", "model=swin_nano"]
    settings += ["augment.short_px=[64]", "augment.crop_probability=0", "task.head_channels=8"]
    settings += ["labels.number=2", "batch_size=2"]
    semi = [
        *("semi=soft_teacher", "semi.num_unlabelled=3"),
        *("semi.weak.short_px=[64,64]", "semi.weak.long_px=96", "semi.weak.flip_probability=0"),
        *("semi.strong.translate_ratio=0", "semi.strong.rotate_degrees=0"),
        *("semi.strong.shear_degrees=0", "semi.strong.colours=false"),
        "semi.strong.num_erased=[0,0]",
    ]
    drawn = []
    for epoch, more in ((2, []), (1, semi)):
        out = tmp_path / f"epoch_{epoch}.png"
        words = ["--epoch", str(epoch), "--out", str(out), "detect", *settings, *more]
        assert main(["show", *words]) == 0
        drawn.append(np.asarray(Image.open(out)).astype(int))
    said = capsys.readouterr().out.splitlines()[-1]
    assert (
        "2 images of epoch 1, 3 x 64 x" in said and ", and 3 images without boxes, 3 x 64" in said
    )
    labelled, both = drawn
    height, width = labelled.shape[:2]
    assert np.array_equal(both[:height, :width], labelled)
    views = both[height:]
    rows = views[HEADER_PX:].reshape(3, -1, *views.shape[1:])[:, HEADER_PX:-GAP_PX]
    weak, strong = np.split(rows, 2, axis=2)  # nothing is changed
    assert np.array_equal(weak, strong) and weak[:, :, :-GAP_PX].std() > 20


def test_show_finetune__names_classes(tmp_path: Path) -> None:
    from ssl_swin.commands.show import _titles
    from ssl_swin.data.batch import UNLABELLED, LabeledBatch

    batch = LabeledBatch(torch.zeros(2, 3, 1, 1), torch.tensor([1, UNLABELLED]), ["a", "b"])
    task = Classification.__new__(Classification)
    object.__setattr__(task, "classes", ("cat", "dog"))
    assert _titles(task, batch) == ["a: dog", "b"]

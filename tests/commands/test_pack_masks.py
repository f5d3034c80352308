"""`ssl-swin pack` of masks: what it writes, what it refuses, and how it goes on after that."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_swin.cli import main
from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.index import open_index
from ssl_swin.errors import UserError
from ssl_swin.jobs.dense_classes import dense_classes

ALONE = ("--workers", "0", "--val-ratio", "0", "--shard-samples", "2")


def save(path: Path, array: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if mode == "P":
        image.putpalette([9, 9, 9, 0, 0, 0])
    image.save(path)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four images with masks in a folder of another kind of name."""
    monkeypatch.chdir(tmp_path)
    drawn = np.random.default_rng(0)
    for number in range(4):
        save(Path(f"photos/{number}.png"), drawn.integers(0, 256, (6, 9, 3), dtype=np.uint8))
        save(Path(f"truth/{number}.png"), drawn.integers(0, 2, (6, 9), dtype=np.uint8))
    return tmp_path


def pack(*options: str) -> int:
    return main(["pack", "photos", "shards", "--masks", "truth", *ALONE, *options])


def refusal(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert pack(*options) == 2
    return capsys.readouterr().err


def files() -> dict[str, bytes]:
    found = {}
    for path in sorted(Path("shards").glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                content = archive.extractfile(member)
                assert content is not None
                found[member.name] = content.read()
    return found


def test_pack__masks_to_the_byte_and_classes_in_the_index(place: Path) -> None:
    save(Path("truth/1.png"), np.zeros((6, 9), dtype=np.uint8), "P")
    save(Path("truth/2.png"), np.full((6, 9), 1, dtype=np.uint16))
    assert pack("--classes", "dark, light") == 0
    index = open_index("shards")
    assert index.classes == ("dark", "light") and json.loads(Path("shards/index.json").read_text())
    masks = {data for name, data in files().items() if name.endswith(".mask.png")}
    assert masks == {path.read_bytes() for path in Path("truth").iterdir()}
    dataset = ShardDataset(index, "train")
    assert dataset.labels().tolist() == [-1] * 4 and set(dataset[0].members) == {"image", "mask"}
    assert dense_classes(None, IndexedSplit(dataset, OrderConstants(1, 4, 1)), "masks") == [
        "dark",
        "light",
    ]


def test_pack__names_every_mask_that_does_not_fit(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(Path("truth/1.png"), np.zeros((9, 6), dtype=np.uint8))
    strange = np.zeros((6, 9), dtype=np.uint8)
    strange[2, 3] = 7
    save(Path("truth/2.png"), strange)
    Path("truth/3.png").write_bytes(Path("truth/0.png").read_bytes()[:50])
    error = refusal(capsys, "--classes", "2")
    assert "ssl-swin: 3 images cannot be packed" in error and "Traceback" not in error
    assert "train: the mask of 1.png is 9 x 6 px (height x width), its image 6 x 9" in error
    assert "train: the mask of 2.png has the value 7, and what is known is 0 to 1 and 255" in error
    assert "train: cannot decode the mask of 3.png" in error
    assert not Path("shards").exists()
    for number in (1, 2, 3):
        save(Path(f"truth/{number}.png"), np.ones((6, 9), dtype=np.uint8))
    assert pack("--classes", "2") == 0 and len(files()) == 8


def test_pack__sizes_and_files_are_looked_at_without_classes_too(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(Path("truth/0.png"), np.full((6, 9), 77, dtype=np.uint8))
    assert pack() == 0
    Path("shards").rename("first")
    save(Path("truth/0.png"), np.full((6, 8), 0, dtype=np.uint8))
    assert "the mask of 0.png is 6 x 8 px" in refusal(capsys)
    assert "part" not in refusal(capsys, "--part", "1/1")


def test_pack__what_values_stand_for(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    colours = np.zeros((6, 9, 3), dtype=np.uint8)
    colours[0, 1] = (128, 64, 128)
    for number in range(4):
        save(Path(f"truth/{number}.png"), colours)
    assert "is of colours (0-0-0, 128-64-128)" in refusal(capsys, "--classes", "2")
    told = "--class-of-colour=0-0-0:none"
    assert "has the colour 128-64-128 (row 0, column 1)" in refusal(capsys, "--classes=1", told)
    assert pack("--class-of-colour=0-0-0:none,128-64-128:0", "--classes=road") == 0
    for number in range(4):
        save(Path(f"truth/{number}.png"), np.array([[0, 255, 3]], np.uint8).repeat(3, 1)[[0] * 6])
    Path("shards").rename("first")
    assert "has the value 3" in refusal(capsys, "--class-of=0:0,255:1", "--ignore-value=none")
    assert pack("--class-of=0:0,255:1", "--ignore-value=3") == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--classes", "a,a"], "--classes names 'a' twice"),
        (["--classes", "a,,b"], "has an empty name"),
        (["--classes", "none.txt"], "cannot read --classes none.txt"),
        (["--classes", "2", "--labels", "t.csv"], "--classes names what masks or boxes hold"),
        (["--no-masks"], "--masks and --no-masks exclude each other"),
        (["--class-of", "0"], "must be as 0:0,255:1, got '0'"),
        (["--class-of", "0:none"], "must be as 0:0,255:1"),
        (["--class-of", "0:5", "--classes", "2"], "--class-of names class 5, and there are 2"),
        (["--class-of", "0:0", "--reduce-zero-label"], "--class-of tells .* --reduce-zero-label"),
        (["--class-of-colour", "red:0"], "--class-of-colour names 'red', which is no colour"),
        (["--ignore-value", "-1"], "--ignore-value"),
    ],
)
def test_pack__refuses_options(
    place: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    import re

    assert re.search(words, refusal(capsys, *options)) and not Path("shards").exists()


def test_pack__names_in_a_file_and_none_without_masks(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("names.txt").write_text("dark\nlight\n")
    assert pack("--classes", "names.txt") == 0
    assert open_index("shards").classes == ("dark", "light")
    assert main(["pack", "photos", "others", "--classes", "dark,light"]) == 2
    error = capsys.readouterr().err
    assert "the images of train have none: give the folder of the masks by --masks DIR" in error


def test_classes_of__refuses_those_of_images_and_none(place: Path) -> None:
    for number in range(4):
        for folder in ("photos", "truth"):
            target = Path(f"{folder}/{'ab'[number % 2]}/{number}.png")
            target.parent.mkdir(exist_ok=True)
            Path(f"{folder}/{number}.png").rename(target)
    assert pack() == 0
    dataset = ShardDataset(open_index("shards"), "train")
    with pytest.raises(UserError, match=r"names \(a, b\) are those of its images: give the ones"):
        dense_classes(None, IndexedSplit(dataset, OrderConstants(1, 4, 1)), "masks")
    assert main(["pack", "photos", "others", "--masks", "truth", "--no-labels", *ALONE]) == 0
    dataset = ShardDataset(open_index("others"), "train")
    with pytest.raises(UserError, match=r"does not name the classes of its masks: give classes="):
        dense_classes(None, IndexedSplit(dataset, OrderConstants(1, 4, 1)), "masks")


def test_stats__writes_the_folder_of_the_masks(place: Path) -> None:
    options = ["--masks", "truth", "--workers", "0", "--write", "conf/data/photos.yaml"]
    assert main(["stats", "photos", *options]) == 0
    assert "\nmasks: truth\n" in Path("conf/data/photos.yaml").read_text()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--classes", "dark,light"), ""),
        ((), " classes=NAMES"),
        (
            ("--class-of", "0:0,1:1", "--ignore-value", "none"),
            " classes=2 task.masks.ignore_value=null 'task.masks.class_of={0:0,1:1}'",
        ),
        (("--val-ratio", "0"), None),
    ],
)
def test_pack__proposes_segmentation_where_images_are_held_out(
    place: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], told: str | None
) -> None:
    words = ["pack", "photos", "shards", "--masks", "truth", "--workers", "0", "--val-ratio", "0.5"]
    assert main([*words, *options]) == 0
    (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith("next:")]
    if told is None:
        assert line == "next: ssl-swin pretrain data=shards data.root=shards batch_size=4"
        return
    command, _, hint = line.partition("  # ")
    assert command == (
        "next: ssl-swin segment backbone=none model=swin_t data=shards data.root=shards"
        f"{told} batch_size=2"
    )
    assert hint.startswith("backbone=RUN takes a pretrained one")
    assert ("NAMES are as [background,nucleus]" in hint) == ("NAMES" in told)

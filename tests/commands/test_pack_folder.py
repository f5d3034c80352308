"""`ssl-swin pack` and `stats` on folders that are not as they should be."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ssl_swin.cli import main
from ssl_swin.data.shards.index import load_index
from ssl_swin.data.shards.index_file import INDEX_NAME


def draw(root: Path, *names: str, values: int = 256) -> Path:
    generator = np.random.default_rng(0)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shape = (8, 8) if "mask" in name else (8, 8, 3)
        Image.fromarray(generator.integers(0, values, shape, dtype=np.uint8)).save(root / name)
    return root


def packed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["pack", *arguments, "--workers", "0", "--val-ratio", "0"]) == 0
    return capsys.readouterr().out.splitlines()


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main([*arguments, "--workers", "0"]) == 2
    return capsys.readouterr().err


def test_pack__says_what_pairs_and_what_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(Path("in"), "images/0.png", "images/1.png", "masks/0.png", "masks/7.png")
    Path("in/images/2.png").write_bytes(b"no image")
    Path("in/scan.dcm").write_bytes(b"\0\1")
    assert packed(capsys, "in", "out") == [
        "masks: 1 of masks/ pair with 1 of images/",
        "without a mask: 2 images have none (images/1.png, images/2.png)",
        "left out: 1 file that belongs to images (masks/7.png): a mask without an image",
        "left out: 1 file that is no image: 1 .dcm (scan.dcm)",
        "train: 2 images in 2 shards",
        "classes: none, since the images lie in in/images itself",
        "left out: 1 unreadable image, listed in out/skipped.txt",
        "next: ssl-swin pretrain data=shards data.root=out batch_size=2",
    ]
    assert Path("out/skipped.txt").read_text().splitlines() == [
        "2.png: UnidentifiedImageError: cannot identify image file <_io.BytesIO>",
        "scan.dcm: no image that can be read",
        "masks/7.png: a mask without an image",
    ]
    assert load_index("out").members == ("mask.png",)


def test_pack__lists_what_is_left_out_beside_good_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(Path("in"), "cats/0.png", "dogs/1.png", "preview.png")
    Path("in/cats/2.heic").write_bytes(b"\0\0\0\x18ftypheic")
    assert packed(capsys, "in", "out") == [
        "left out: 1 file that is no image: 1 .heic (cats/2.heic, read with pip install "
        "pillow-heif)",
        "train: 3 images in 3 shards",
        "classes: none, since preview.png lies beside the sub-folders cats, dogs; to take those "
        "for classes: --leave-out preview.png",
        "what is left out is listed in out/skipped.txt",
        "next: ssl-swin pretrain data=shards data.root=out batch_size=2",
    ]
    options = ("--leave-out", "preview.png", "--leave-out", "*.heic")
    assert packed(capsys, "in", "again", *options) == [
        "train: 2 images in 2 shards",
        "classes: 2, the sub-folders of in",
        "next: ssl-swin pretrain data=shards data.root=again batch_size=2",
    ]


@pytest.mark.parametrize(
    ("option", "sizes"),
    [
        ("--no-labels", {"train": 2, "val": 1}),
        ("--no-splits", {"train": 3}),
        ("--leave-out=extra", {"train": 1, "val": 1}),
    ],
)
def test_pack__ways_on_from_a_mixture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, sizes: dict[str, int]
) -> None:
    draw(tmp_path / "in", "train/a/0.png", "val/a/1.png", "extra/2.png")
    command = ["pack", str(tmp_path / "in"), str(tmp_path / "out")]
    assert "--leave-out extra; or take them" in refused(capsys, *command)
    assert not (tmp_path / "out").exists()
    packed(capsys, *command[1:], option)
    index = load_index(tmp_path / "out")
    assert {split: index.num_samples(split) for split in index.splits} == sizes


def test_pack__masks_as_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(tmp_path / "in", "images/0.png", "masks/0.png")
    lines = packed(capsys, str(tmp_path / "in"), str(tmp_path / "out"), "--no-masks")
    assert lines[:2] == [
        "train: 2 images in 2 shards",
        f"classes: 2, the sub-folders of {tmp_path}/in",
    ]


def test_pack__into_the_folder_of_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(Path("photos"), "a/0.png")
    before = sorted(Path("photos").rglob("*"))
    way = "Choose a folder of its own, such as photos_shards\n"
    for out in ("photos", "photos/", "photos/a/.."):
        assert refused(capsys, "pack", "photos", out) == (
            f"ssl-swin: {Path(out)} is the folder of the images; shards would lie among them. {way}"
        )
    assert refused(capsys, "pack", "photos", "photos/a") == (
        f"ssl-swin: photos/a holds images (0.png); shards would lie among them. {way}"
    )
    assert refused(capsys, "pack", "photos", ".") == (
        f"ssl-swin: . holds photos, and shards of it would lie beside what they are made of. {way}"
    )
    assert sorted(Path().rglob("*")) == [Path("photos"), *before]


def test_index__into_a_folder_of_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(Path("photos"), "0.png", "1.png")
    packed(capsys, "photos", "shards")
    (tmp_path / "shards" / INDEX_NAME).unlink()
    assert refused(capsys, "index", "shards", "--out", "photos") == (
        "ssl-swin: photos holds images (0.png), and an index is no part of them: give "
        "data.index_dir, or --out, a folder of its own\n"
    )
    assert sorted(path.name for path in Path("photos").iterdir()) == ["0.png", "1.png"]
    draw(Path("shards"), "beside.png")
    assert main(["index", "shards", "--out", str(tmp_path / "shards")]) == 0, "its own folder"


def test_stats__of_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(Path("in"), "train/a/0.png", "train/b/0.png", "val/a/1.png", "val/b/1.png", "extra/2.png")
    Path("in/train/a/x.dcm").write_bytes(b"\0\1")
    assert "--leave-out extra" in refused(capsys, "stats", "in")
    command = ["stats", "in", "--leave-out", "extra", "--workers", "0", "--write", "photos.yaml"]
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[:6] == [
        "train: 2 images",
        "val: 2 images",
        "classes: 2, 1 image each (images opened)",
        "opened: 2 images of train",
        "classes from: the sub-folders of in/train",
        "left out: 1 file that is no image: 1 .dcm (train/a/x.dcm)",
    ]
    assert yaml.safe_load(Path("photos.yaml").read_text())["leave_out"] == ["extra"]

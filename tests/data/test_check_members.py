"""`ssl-swin check` of masks and boxes: what is found, and what of it makes a set unsound."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_swin.cli import main
from ssl_swin.data.box_check import useless_boxes, wrong_boxes
from ssl_swin.data.encoded import EncodedSample, Member
from ssl_swin.data.inspection.check import check_shards, classes_of_members
from ssl_swin.data.shards.index import load_index
from ssl_swin.data.shards.indexing import build_index

HEIGHT_PX, WIDTH_PX = 6, 9


def png(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def image(number: int) -> bytes:
    return png(np.full((HEIGHT_PX, WIDTH_PX), number))


def mask(value: int = 0, size_px: tuple[int, int] = (HEIGHT_PX, WIDTH_PX)) -> bytes:
    return png(np.full(size_px, value))


def boxes(*corners: list[float], label: int = 0, **others: object) -> bytes:
    content = {"boxes": corners, "labels": [label] * len(corners), **others}
    return json.dumps(content).encode()


def write_shards(folder: Path, files: dict[str, bytes], classes: str = "dark\nlight\n") -> Path:
    """Write one shard as another program might, with the names of classes beside it."""
    folder.mkdir()
    with tarfile.open(folder / "train-0.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    if classes:
        (folder / "classes.txt").write_text(classes)
    build_index(folder, progress=False)
    return folder


def found(folder: Path, *, decode: bool = True) -> list[tuple[str, str, str]]:
    report = check_shards(
        load_index(folder, check_shards=False), decode=decode, num_workers=0, progress=False
    )
    return [(each.kind, each.member, each.problem) for each in report.findings]


def test_check__masks(tmp_path: Path) -> None:
    files = {
        **{"a.png": image(0), "a.mask.png": mask(1)},
        **{"b.png": image(1), "b.mask.png": mask(1, (9, 6))},
        **{"c.png": image(2), "c.mask.png": mask(2)},
        **{"d.png": image(3), "d.mask.png": mask()[:40]},
        **{"e.png": image(4)},
        **{"f.png": image(5), "f.mask.png": mask(255)},
    }
    folder = write_shards(tmp_path / "shards", files)
    known = "what is known is 0 to 1 and 255, left out"
    in_order = found(folder)
    assert [kind for kind, *_ in in_order] == ["mask", "mask", "mask", "missing"]
    size, value, damaged, missing = (problem for *_, problem in in_order)
    assert size == "the mask of train-0.tar:1 is 9 x 6 px (height x width), its image 6 x 9"
    assert value == f"the mask of train-0.tar:2 has the value 2, and {known}"
    assert damaged.startswith("cannot decode the mask of train-0.tar:3: ")
    assert missing == "train-0.tar:4 has no mask, and others have one"
    assert found(folder, decode=False) == [("missing", "e.png", missing)]


def test_check__boxes(tmp_path: Path) -> None:
    files = {
        **{"a.png": image(0), "a.boxes.json": boxes([0, 0, 9, 6], [-1, 0, 10, 7], label=1)},
        **{"b.png": image(1), "b.boxes.json": boxes([0, 0, 2, 2], label=7)},
        **{"c.png": image(2), "c.boxes.json": boxes([5, 5, 1, 6])},
        **{"d.png": image(3), "d.boxes.json": boxes([0, 0, 2, 0.5], [5, 5, 12, 6], [1, 1, 1, 9])},
        **{"e.png": image(4)},
        **{"f.png": image(5), "f.boxes.json": boxes()},
        **{"g.png": image(6), "g.boxes.json": boxes([0, 0, 2, 2], masks=[{"size": [9, 6]}])},
    }
    (unknown, form, useless, missing, other_size) = found(write_shards(tmp_path / "shards", files))
    assert unknown == (
        *("boxes", "b.png"),
        "the boxes of train-0.tar:1 have the class 7, and there are 2, from 0",
    )
    assert form[:2] == ("boxes", "c.png") and "box 0 ends before it begins" in form[2]
    assert useless == (
        *("useless", "d.png"),
        "of the boxes of train-0.tar:3 number 0 (0, 0, 2, 0.5) has a side below 1 px, and 1 more; "
        "number 1 (5, 5, 12, 6) leaves the image of 9 x 6 px, and 1 more",
    )
    assert missing == (
        *("missing", "e.png"),
        "train-0.tar:4 has no list of boxes, and others have one",
    )
    assert other_size[:2] == ("boxes", "g.png") and "a mask is no" in other_size[2]


def test_boxes__limits_by_hand() -> None:
    sample = EncodedSample.of_image(b"", "png", None, "a")

    def of(*corners: list[float]) -> EncodedSample:
        return sample.with_member("boxes", Member(boxes(*corners, label=3), "json"))

    assert useless_boxes(of([0, 0, 1, 1], [-1, -1, 10, 7]), (6, 9)) == ""
    assert "leaves" in useless_boxes(of([0, 0, 10.1, 1]), (6, 9))
    assert "leaves" in useless_boxes(of([0, -1.1, 9, 1]), (6, 9))
    assert "below 1 px" in useless_boxes(of([0, 0, 0.9, 1]), (6, 9))
    assert wrong_boxes(of([0, 0, 1, 1]), (6, 9), None) == wrong_boxes(of(), (6, 9), 1) == ""
    assert wrong_boxes(of([0, 0, 1, 1]), (6, 9), 4) == ""
    assert "have the class 3, and there are 3" in wrong_boxes(of([0, 0, 1, 1]), (6, 9), 3)


def test_classes_of_members__are_not_those_of_images(tmp_path: Path) -> None:
    labelled = {"a.png": image(0), "a.cls": b"0", "a.mask.png": mask(200)}
    of_images = load_index(write_shards(tmp_path / "labelled", labelled))
    assert classes_of_members(of_images) is None and found(tmp_path / "labelled") == []
    of_masks = load_index(
        write_shards(tmp_path / "masks", {"a.png": image(0), "a.seg.png": mask()})
    )
    assert classes_of_members(of_masks) == 2 and found(tmp_path / "masks") == []
    alone = load_index(write_shards(tmp_path / "alone", {"a.png": image(0)}))
    assert classes_of_members(alone) is None


@pytest.mark.parametrize(
    ("value", "options", "status"),
    [
        (2, [], 1),
        (2, ["--fast"], 0),
        (2, ["--classes", "a,b,c"], 0),
        (2, ["--reduce-zero-label"], 0),
        (2, ["--ignore-value", "2"], 0),
        (2, ["--class-of", "0:0,2:1"], 0),
        (255, ["--ignore-value", "none"], 1),
    ],
)
def test_check__what_values_stand_for(
    tmp_path: Path, value: int, options: list[str], status: int
) -> None:
    files = {"a.png": image(0), "a.mask.png": mask(value)}
    folder = write_shards(tmp_path / "shards", files)
    assert main(["check", str(folder), "--workers", "0", *options]) == status


def test_check__says_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"a.png": image(0), "a.mask.png": mask(2), "b.png": image(1)}
    folder = write_shards(tmp_path / "shards", files)
    assert main(["check", str(folder), "--workers", "0"]) == 1
    out = capsys.readouterr().out
    assert "mask: images with a mask of another size or a value of no class" in out
    assert "  if values stand for something else: --classes, --ignore-value" in out
    assert "missing: images without a mask or boxes" in out

import io
import json
from pathlib import Path

import numpy as np
import pytest
from drawn_objects import CLASSES, WRITERS
from PIL import Image

from ssl_swin.cli import main
from ssl_swin.commands.annotation_lines import annotation_lines
from ssl_swin.data.encoded import EncodedSample, Member
from ssl_swin.data.inspection.annotation_counts import AnnotationCounts, size_name
from ssl_swin.data.mask_classes import MaskClasses
from ssl_swin.launch.config_files import compose_job

NO_MASKS = MaskClasses()


def png(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def counted(*members: dict[str, bytes], as_colours: bool = False) -> AnnotationCounts:
    counts = AnnotationCounts()
    for number, files in enumerate(members):
        sample = EncodedSample.of_image(b"", "png", None, f"image {number}")
        for name, data in files.items():
            sample = sample.with_member(name, Member(data, "json" if name == "boxes" else "png"))
        counts.count(sample, (200, 200), as_colours=as_colours)
    return counts


def boxes(corners: list[list[float]], labels: list[int], **others: object) -> dict[str, bytes]:
    return {"boxes": json.dumps({"boxes": corners, "labels": labels, **others}).encode()}


def test_masks__pixels_and_images_by_hand() -> None:
    first, second = np.array([[0, 0, 1, 255]]), np.array([[0, 7, 7, 7]])
    counts = counted({"mask": png(first)}, {"mask": png(second)}, {}, {"mask": b"junk"})
    assert counts.masks.pixels == {0: 3, 7: 3, 1: 1, 255: 1}
    assert counts.masks.images == {0: 2, 7: 1, 1: 1, 255: 1}
    assert annotation_lines(counts, NO_MASKS, ("sky", "sea", "land")) == [
        "values of 2 masks:",
        "  0 sky: 37.5 % of the pixels, in 2 images",
        "  7 (no class): 37.5 % of the pixels, in 1 image",
        "  1 sea: 12.5 % of the pixels, in 1 image",
        "  255 (left out): 12.5 % of the pixels, in 1 image",
        "  no pixel of: land",
        f"1 mask or list of boxes cannot be read: {counts.unreadable[0]}",
    ]
    assert annotation_lines(counts, NO_MASKS, ())[1:3] == [
        "  0: 37.5 % of the pixels, in 2 images",
        "  7: 37.5 % of the pixels, in 1 image",
    ]


def test_masks__of_other_values_and_colours() -> None:
    counts = counted({"mask": png(np.array([[0, 1, 2, 2]]))})
    adapted = MaskClasses(reduce_zero_label=True)
    assert annotation_lines(counts, adapted, ("sky", "sea"))[1:] == [
        "  2 sea: 50 % of the pixels, in 1 image",
        "  0 (left out): 25 % of the pixels, in 1 image",
        "  1 sky: 25 % of the pixels, in 1 image",
    ]
    told = MaskClasses(class_of={0: 1, 2: 0}, ignore_value=1)
    assert annotation_lines(counts, told, ())[1:] == [
        "  2, class 0: 50 % of the pixels, in 1 image",
        "  0, class 1: 25 % of the pixels, in 1 image",
        "  1 (left out): 25 % of the pixels, in 1 image",
    ]
    colours = counted({"mask": png(np.array([[[1, 2, 3], [0, 0, 0]]]))}, as_colours=True)
    told = MaskClasses(class_of_colour={"1-2-3": 0, "0-0-0": None})
    assert sorted(annotation_lines(colours, told, ("sky",))[1:]) == [
        "  colour 0-0-0 (left out): 50 % of the pixels, in 1 image",
        "  colour 1-2-3 sky: 50 % of the pixels, in 1 image",
    ]
    assert "  colour 1-2-3: 50 % of the pixels" in "".join(annotation_lines(colours, NO_MASKS, ()))


def test_boxes__by_hand() -> None:
    sides = [[0, 0, 31, 32], [0, 0, 32, 32], [0, 0, 96, 96], [5, 5, 6, 6]]
    counts = counted(
        boxes(sides, [0, 0, 1, 0], crowd=[False, False, False, True]),
        boxes([], []),
        boxes([[0, 0, 99, 99]], [0], areas=[100], masks=[{"size": [200, 200], "counts": [40000]}]),
        boxes([[0, 0, 1]], [0]),
    )
    assert annotation_lines(counts, NO_MASKS, ("tree", "bush", "rock")) == [
        "boxes: 4 in 2 of 3 images, 0 to 3 an image, median 1",
        "with a mask: 1",
        "around crowds: 1 more, which training leaves out",
        "sizes: 2 small, 1 medium, 1 large (below 32 x 32 px, below 96 x 96 px, above)",
        "  0 tree: 3 boxes, in 2 images",
        "  1 bush: 1 box, in 1 image",
        "  no box of: rock",
        "1 mask or list of boxes cannot be read: " + counts.unreadable[0],
    ]
    assert [size_name(area) for area in (1023.9, 1024, 9215, 9216)] == [
        *("small", "medium", "medium", "large"),
    ]


def test_many_classes__the_first_and_last_are_shown() -> None:
    rows = np.repeat(np.arange(60), np.arange(60, 0, -1))[None]
    lines = annotation_lines(counted({"mask": png(rows)}), NO_MASKS, ())
    assert len(lines) == 1 + 20 + 1 + 10 and lines[21] == "  ... and 30 between"
    assert lines[1].startswith("  0: ") and lines[-1].startswith("  59: ")


def test_stats__tells_of_masks_in_folders_and_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, values in (("images", 9), ("masks", 1)):
        Path("photos", folder).mkdir(parents=True)
        for number in range(3):
            content = png(np.full((4, 5), values + number))
            Path("photos", folder, f"{number}.png").write_bytes(content)
    options = ["--workers", "0", "--reduce-zero-label", "--classes", "sky,sea,land"]
    assert main(["stats", "photos", *options]) == 0
    of_folder = capsys.readouterr().out
    assert "\nvalues of 3 masks:\n" in of_folder and "  3 land: 33.3 % of the pixels" in of_folder
    assert main(["pack", "photos", "shards", "--val-ratio", "0", *options]) == 0
    capsys.readouterr()
    assert main(["stats", "shards", "--workers", "0", "--reduce-zero-label"]) == 0
    of_shards = capsys.readouterr().out
    assert of_shards[of_shards.index("values of") :] == of_folder[of_folder.index("values of") :]
    assert "images each" not in of_shards


@pytest.mark.parametrize("kind", ["coco", "voc", "yolo"])
def test_stats__tells_of_boxes_and_writes_what_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    WRITERS[kind](tmp_path / "photos")
    options = ["--workers", "0", f"--{kind}", "photos", "--write", "conf/data/mine.yaml"]
    assert main(["stats", "photos", *options]) == 0
    out = capsys.readouterr().out
    assert "boxes: 14 in 7 of 8 images, 0 to 2 an image, median 2\n" in out
    assert ("with a mask: 14\n" in out) == (kind == "coco")
    assert "sizes: 14 small, 0 medium, 0 large" in out
    assert all(f"{name}: 7 boxes, in 7 images" in out for name in CLASSES)
    written = Path("conf/data/mine.yaml").read_text()
    assert f"defaults: [{kind}, _self_]\nroot: photos\n" in written
    assert f"--{kind} photos" in written.splitlines()[0]
    assert (
        "wrote conf/data/mine.yaml; next: ssl-swin detect backbone=none model=swin_t data=mine "
        "batch_size=6  # backbone=RUN takes a pretrained one\n"
    ) in out


def test_stats__writes_what_segments_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(8):
        for folder, shape in (("photos", (6, 9, 3)), ("truth", (6, 9))):
            path = tmp_path / folder / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.full(shape, number % 2, dtype=np.uint8)).save(path)
    options = ["--masks", "truth", "--leave-out", "7.png", "--workers", "0"]
    more = ["--classes", "dark,light", "--write", "conf/data/mine.yaml"]
    assert main(["stats", "photos", *options, *more]) == 0
    assert (
        "next: ssl-swin segment backbone=none model=swin_t data=mine 'classes=[dark,light]' "
        "batch_size=6  # backbone=RUN takes a pretrained one\n"
    ) in capsys.readouterr().out
    first, second, *_ = Path("conf/data/mine.yaml").read_text().splitlines()
    assert "--leave-out 7.png --masks" in first and "--classes dark,light" in first
    assert second == "defaults: [masks, _self_]"
    cfg = compose_job("segment", ["data=mine", "backbone=none", "model=swin_nano"])
    assert cfg.data.leave_out == ["7.png"] and cfg.data.masks.endswith("truth")

"""`ssl-swin pack --panoptic`: ids of segments become classes."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssl_swin.cli import main
from ssl_swin.data.decoding import decode_mask
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.index import open_index

SKY, CAT, DOG = 7, 256 * 3 + 1, 65536 * 9 + 2  # ids of segments, in one, two and three bytes
IDS = np.array([[0, SKY, SKY], [CAT, DOG, 5]])


def coloured(ids: np.ndarray) -> Image.Image:
    return Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype("u1"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two images of 2 x 3 px; in the second the same ids are of other categories."""
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "panoptic"):
        Path(folder).mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(f"photos/{name}.jpg")
        coloured(IDS).save(f"panoptic/{name}.png")
    write()
    return tmp_path


def content() -> dict[str, Any]:
    listed = {"a": {SKY: 200, CAT: 17, DOG: 18, 5: 17}, "b": {SKY: 18, CAT: 18, DOG: 200, 5: 17}}
    categories = [{"id": 17, "name": "cat"}, {"id": 200, "name": "sky"}, {"id": 18, "name": "dog"}]
    return {
        "categories": categories,
        "annotations": [
            {
                "file_name": f"{name}.png",
                "segments_info": [{"id": n, "category_id": of} for n, of in segments.items()],
            }
            for name, segments in listed.items()
        ],
    }


def write(**changes: Any) -> None:
    Path("panoptic.json").write_text(json.dumps(content() | changes))


def pack(*options: str) -> int:
    words = ["pack", "photos", "out", "--masks", "panoptic", "--workers", "0", "--val-ratio", "0"]
    return main([*words, "--panoptic", "panoptic.json", *options])


def test_pack__ids_become_classes_by_the_list(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pack() == 0
    assert "classes: 3, the categories of panoptic.json" in capsys.readouterr().out
    index = open_index("out")
    assert index.classes == ("cat", "sky", "dog")
    dataset = ShardDataset(index, "train")
    masks = {decode_mask(dataset[n]).numpy().tobytes() for n in range(2)}
    expected = ([[255, 1, 1], [0, 2, 0]], [[255, 2, 2], [2, 1, 0]])
    assert masks == {np.array(classes, np.uint8).tobytes() for classes in expected}


def test_pack__lists_of_several_files(place: Path) -> None:
    first, second = content()["annotations"]
    write(annotations=[second])
    Path("more.json").write_text(json.dumps(content() | {"annotations": [first]}))
    assert pack("--panoptic", "more.json") == 0
    assert open_index("out").num_samples("train") == 2


def test_pack__a_list_that_changed_is_not_continued(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ssl_swin.data.sources.opening import open_data
    from ssl_swin.data.sources.panoptic import PanopticDataset, read_panoptic

    source = open_data("photos").splits["train"]
    before = PanopticDataset(source, read_panoptic([Path("panoptic.json")])).fingerprint
    write(info={"year": 2018})
    after = PanopticDataset(source, read_panoptic([Path("panoptic.json")])).fingerprint
    assert before != after != source.fingerprint


def with_first_segments(number: int) -> dict[str, Any]:
    annotations = content()["annotations"]
    for annotation in annotations:
        del annotation["segments_info"][number:]
    return {"annotations": annotations}


ANNOTATIONS = content()["annotations"]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"annotations": ANNOTATIONS[:1]}, "panoptic.json does not list the mask of b.jpg"),
    (
        {
            "annotations": [
                {**each, "segments_info": each["segments_info"][:2]} for each in ANNOTATIONS
            ]
        },
        "has the segment 5, and panoptic.json lists 2 others of it",
    ),
    (
        {"annotations": [{**each, "segments_info": []} for each in ANNOTATIONS]},
        "has the segment 5, and panoptic.json lists 0 others of it",
    ),
    ({"annotations": []}, "it lists no category or no mask"),
    ({"categories": [{"id": 17, "name": "cat"}]}, "is no list of panoptic masks"),
    ({"annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}]}, "is no list of panoptic masks"),
    ({"categories": 3}, "is no list of panoptic masks"),
    ({"categories": [{"id": 17, "name": "cat"}] * 2}, "17 is in it twice"),
    ({"annotations": [ANNOTATIONS[0], *ANNOTATIONS]}, "a is in it twice"),
    (
        {
            "annotations": [
                {"file_name": "a.png", "segments_info": [{"id": 5, "category_id": 17}] * 2}
            ]
        },
        "5 is in it twice",
    ),
    (
        {
            "annotations": [
                {"file_name": "a.png", "segments_info": [{"id": math.inf, "category_id": 17}]}
            ]
        },
        "is no list of panoptic masks",
    ),
    (
        {"categories": [{"id": n, "name": str(n)} for n in range(255)]},
        "has 255 categories, and masks of 8 bits tell 255 at most",
    ),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_pack__refuses_lists(
    place: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], message: str
) -> None:
    write(**changes)
    assert pack() == 2
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


def test_pack__refuses_what_contradicts(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in (
        (("--classes", "a,b"), "--panoptic and --classes exclude each other"),
        (("--class-of", "0:0"), "--panoptic and --class-of exclude each other"),
        (("--coco", "photos"), "--panoptic and --coco exclude each other"),
        (("--panoptic", "gone.json"), "cannot read --panoptic gone.json"),
        (("--panoptic", "panoptic.json"), "panoptic.json lists the mask a a second time"),
    ):
        assert pack(*options) == 2
        assert message in capsys.readouterr().err
    assert not Path("out").exists()

"""The classes of a head that are kept."""

import hashlib
from pathlib import Path

import pytest
import torch
from saved_backbones import SAME_WINDOWS

from ssl_swin.cli import main
from ssl_swin.errors import UserError
from ssl_swin.weights.backbone import load_backbone
from ssl_swin.weights.formats.head_classes import choose_classes, imagenet_1k_in_22k
from ssl_swin.weights.formats.importing import import_weights

# Of the published file's 1000 lines, without an end of line.
PUBLISHED_SHA256 = "4fff66d6f337db6dd0b41d1b6c863e617f9400d37892df630eecfcfa50131aab"


def head(num_classes: int, width: int = 2) -> dict[str, torch.Tensor]:
    numbers = torch.arange(float(num_classes))
    return {"head.fc.weight": numbers[:, None].repeat(1, width), "head.fc.bias": numbers}


def test_map__is_the_published_one() -> None:
    rows = imagenet_1k_in_22k()
    assert (len(rows), len(set(rows))) == (1000, 1000)
    assert rows[:5] == (359, 368, 460, 475, 486)
    assert (rows[849], rows[850], rows[851], rows[999]) == (11137, 5564, 11168, 21817)
    assert hashlib.sha256("\n".join(map(str, rows)).encode()).hexdigest() == PUBLISHED_SHA256


def test_choose_classes__of_imagenet_22k_for_1k() -> None:
    chosen, notes = choose_classes(head(21841), 1000, None)
    assert chosen["head.fc.bias"].tolist() == list(imagenet_1k_in_22k())
    assert chosen["head.fc.weight"][850].tolist() == [5564, 5564]
    assert notes == (
        "the head keeps 1000 of its 21841 classes, by the published map of ImageNet-22k to 1k",
    )


@pytest.mark.parametrize(("size", "wanted"), [(1000, 1000), (21841, 21841), (7, None), (7, 9)])
def test_choose_classes__keeps_any_other_head(size: int, wanted: int | None) -> None:
    chosen, notes = choose_classes(head(size), wanted, None)
    assert (len(chosen["head.fc.bias"]), notes) == (size, ())
    assert choose_classes({}, wanted, None) == ({}, ())


def test_choose_classes__by_a_list() -> None:
    chosen, notes = choose_classes(head(7), 3, [6, 0, 2])
    assert chosen["head.fc.bias"].tolist() == [6, 0, 2]
    assert notes == ("the head keeps 3 of its 7 classes, by the list that was given",)
    with pytest.raises(UserError, match=r"names class 7 of the head, and it has 7 classes, 0 to 6"):
        choose_classes(head(7), 1, [7])
    with pytest.raises(UserError, match="names class 0 of the head, and it has no classification"):
        choose_classes({}, 1, [0])
    with pytest.raises(UserError, match=r"names 2 classes of the head: give num_classes=2 .*got 3"):
        choose_classes(head(7), 3, [0, 1])


@pytest.fixture
def file(tiny_encoder, tmp_path: Path) -> Path:
    state = tiny_encoder(**SAME_WINDOWS).model.state_dict()
    torch.save({"model": state | head(7, 64)}, tmp_path / "seven.pth")
    return tmp_path / "seven.pth"


def test_import__keeps_classes_of_a_list(file: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "rows.txt").write_text("6\n0\n2\n")
    options = ["--img-size-px", "128", "--head-classes", str(tmp_path / "rows.txt")]
    assert main(["import", str(file), str(tmp_path / "out"), *options]) == 0
    assert "note: the head keeps 3 of its 7 classes" in capsys.readouterr().out
    load_backbone(tmp_path / "out")
    imported, _ = import_weights(file, img_size_px=128, num_classes=3, head_classes=[6, 0, 2])
    assert imported.classifier is not None
    assert imported.classifier.head.bias.tolist() == [6, 0, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must list rows of the head, one number from 0 a line, got 'nothing'"),
        (b"1\ncat\n", "must list rows of the head, one number from 0 a line, got 'cat'"),
        (b"-1\n", "one number from 0 a line, got '-1'"),
        (b"\xff\xfe", "cannot be read as text"),
        (None, "cannot be read as text"),
    ],
)
def test_import__refuses_a_list(
    file: Path, tmp_path: Path, capsys, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "rows.txt").write_bytes(content)
    options = ["--img-size-px", "128", "--head-classes", str(tmp_path / "rows.txt")]
    assert main(["import", str(file), str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

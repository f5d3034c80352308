"""Fine-tuning starts from the backbone's own head where it knows all classes."""

import json
from pathlib import Path

import pytest
import torch
from timm.data.imagenet_info import ImageNetInfo

from ssl_swin.tasks.classification import Classification, Classifier
from ssl_swin.weights.backbone import load_backbone, save_backbone, save_classifier
from ssl_swin.weights.formats.head_classes import imagenet_1k_in_22k
from ssl_swin.weights.kept_head import KeptHead, keep_head, read_head

MOMENTS = {"mean": [0.5] * 3, "std": [0.25] * 3, "card": ""}
SYNSETS: list[str] = ImageNetInfo("imagenet-1k").label_names()
WORDS: list[str] = ImageNetInfo("imagenet-1k").label_descriptions()


def head(num_classes: int, names: list[str] | None = None) -> KeptHead:
    numbers = torch.arange(float(num_classes))
    return KeptHead(numbers[:, None].repeat(1, 64), numbers, tuple(names or ()))


@pytest.mark.parametrize(
    ("kept", "classes", "rows", "told"),
    [
        (head(3, ["a", "b", "c"]), ["a", "b", "c"], [0, 1, 2], "its class names"),
        (head(3, ["a", "b", "c"]), ["c", "a"], [2, 0], "its class names"),
        (head(1000), SYNSETS[::-1], [*range(1000)][::-1], "the order of ImageNet-1k"),
        (head(1000, [*map(str, range(1000))]), SYNSETS[5:7], [5, 6], "the order of ImageNet-1k"),
        (head(1000), WORDS[5:7], [5, 6], "the order of ImageNet-1k"),
        (head(21841), SYNSETS, [*imagenet_1k_in_22k()], "the order of ImageNet-22k"),
        (head(1000, [*map(str, range(1000))]), ["3", "1"], [3, 1], "its class names"),
    ],
    ids=["same", "some, in another order", "1k", "some of 1k", "words", "22k", "numbers"],
)
def test_rows_of__classes_that_are_known(kept, classes, rows, told) -> None:
    assert kept.rows_of(classes) == (rows, told)


@pytest.mark.parametrize(
    ("kept", "classes"),
    [
        (head(3, ["a", "b", "c"]), ["a", "d"]),
        (head(3), ["a", "b", "c"]),
        (head(3, ["a", "b", "a"]), ["a", "b"]),
        (head(3, ["a", "b", "c"]), ["a", "a"]),
        (head(1000, [f"x{number}" for number in range(1000)]), SYNSETS),
        (head(999), SYNSETS[:999]),
        (head(1000), [SYNSETS[0], WORDS[1]]),
        (head(1000), ["crane", "jay"]),
    ],
    ids=["other", "no names", "twice", "data twice", "own names", "999", "mixed", "two cranes"],
)
def test_rows_of__classes_that_are_not(kept, classes) -> None:
    assert kept.rows_of(classes) is None


def task_of(folder: Path, classes: list[str]) -> tuple[Classification, str]:
    encoder = load_backbone(folder).encoder
    task = Classification(encoder, classes)
    return task, keep_head(task, encoder, folder)


def test_keep_head__takes_the_rows_of_the_classes(tmp_path: Path, tiny_encoder) -> None:
    saved = Classifier(tiny_encoder(), num_classes=3)
    save_classifier(tmp_path, saved, classes=("hat", "dress", "shoe"), **MOMENTS)
    task, line = task_of(tmp_path, ["shoe", "hat"])
    assert line == (
        "head: the backbone's own, 2 of its 3 classes by its class names; head=fresh starts a new "
        "one"
    )
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(task.predict(images), saved(images)[:, [2, 0]])
    task, line = task_of(tmp_path, ["shoe", "sock"])
    assert line == "head: a new one, since the backbone's, of 3 classes, has others"
    assert task.head.weight.std() < 0.03 and not task.head.bias.any()


def test_keep_head__without_one_says_nothing(tmp_path: Path, tiny_encoder) -> None:
    save_backbone(tmp_path, tiny_encoder(), **MOMENTS)
    assert task_of(tmp_path, ["a", "b"])[1] == ""
    assert read_head(tmp_path) is None


def test_read_head__names_that_do_not_fit_are_none(tmp_path: Path, tiny_encoder) -> None:
    save_classifier(tmp_path, Classifier(tiny_encoder(), num_classes=3), classes="abc", **MOMENTS)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"label_names": ["a", "b"]}))
    kept = read_head(tmp_path)
    assert kept is not None and (len(kept.bias), kept.names) == (3, ())

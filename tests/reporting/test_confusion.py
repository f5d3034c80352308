"""Confusion matrices, their tables and pictures."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_swin.errors import UserError
from ssl_swin.reporting.confusion import class_accuracy, confusion_matrix, save_confusion
from ssl_swin.reporting.confusion_figure import draw_confusion
from ssl_swin.reporting.drawing import FAINT, heat, ink_on

LABELS = torch.tensor([0, 0, 0, 1, 1, 2])
PREDICTED = torch.tensor([0, 1, 1, 1, 0, 0])
BY_HAND = [[1, 2, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
CLASSES = ["cat", "dog", "eel", "none"]


def test_confusion_matrix__by_hand() -> None:
    assert confusion_matrix(PREDICTED, LABELS, 4).tolist() == BY_HAND


def test_confusion_matrix__of_scores() -> None:
    scores = torch.nn.functional.one_hot(PREDICTED, 4).float() + 0.1
    assert confusion_matrix(scores, LABELS, 4).tolist() == BY_HAND


def test_confusion_matrix__against_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted, labels = torch.randint(7, (2, 500), generator=generator)
    slow = np.zeros((7, 7), dtype=int)
    for true, guess in zip(labels, predicted, strict=True):
        slow[true, guess] += 1
    assert np.array_equal(confusion_matrix(predicted, labels, 7), slow)


@pytest.mark.parametrize(
    ("predicted", "labels", "message"),
    [
        ([0, 1], [0], "2 predictions do not go with 1 labels"),
        ([0, 4], [0, 0], r"class 4 is not in \[0, 3\]"),
        ([0, 1], [0, -1], "class -1 is not in"),
    ],
)
def test_confusion_matrix__errors(predicted: list[int], labels: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        confusion_matrix(torch.tensor(predicted), torch.tensor(labels), 4)


def test_class_accuracy__by_hand() -> None:
    accuracy = class_accuracy(np.array(BY_HAND))
    np.testing.assert_allclose(accuracy, [100 / 3, 50, 0, np.nan])


def test_save_confusion__tables_by_hand(tmp_path: Path) -> None:
    picture, pairs, per_class = save_confusion(tmp_path / "new", np.array(BY_HAND), CLASSES)
    assert Image.open(picture).format == "PNG"
    assert list(csv.reader(pairs.open())) == [
        ["true", "predicted", "images"],
        ["cat", "dog", "2"],
        ["cat", "cat", "1"],
        ["dog", "cat", "1"],
        ["dog", "dog", "1"],
        ["eel", "cat", "1"],
    ]
    assert list(csv.reader(per_class.open())) == [
        ["class", "images", "right", "accuracy_percent", "most_often_taken_for", "times"],
        ["cat", "3", "1", "33.33", "dog", "2"],
        ["dog", "2", "1", "50.00", "cat", "1"],
        ["eel", "1", "0", "0.00", "cat", "1"],
        ["none", "0", "0", "", "", "0"],
    ]


def test_save_confusion__other_number_of_classes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a matrix of \(4, 4\) does not go with 3 classes"):
        save_confusion(tmp_path, np.array(BY_HAND), CLASSES[:3])


def cell_colours(picture: Image.Image, num_cells: int) -> np.ndarray:
    """Finds the framed square at the left, and gives the colour of each cell's corner."""
    pixels = np.asarray(picture).astype(int)
    framed = (pixels == FAINT).all(axis=2)
    top = int(framed.sum(axis=1).argmax()) + 1
    left = int(framed[top - 1].argmax()) + 1
    side = int(framed[top - 1, left:].argmin()) - 1
    cell = side // num_cells
    at = cell * np.arange(num_cells) + 1
    return pixels[top + at[:, None], left + at]


@pytest.mark.parametrize("num_classes", [2, 10, 60, 150])
def test_draw_confusion__colours_are_the_roots_of_the_shares(num_classes: int) -> None:
    generator = np.random.default_rng(0)
    matrix = generator.integers(0, 5, (num_classes, num_classes)) + 20 * np.eye(
        num_classes, dtype=int
    )
    names = [f"class {index}" for index in range(num_classes)]
    picture = draw_confusion(matrix, names, class_accuracy(matrix))
    shares = matrix / matrix.sum(axis=1, keepdims=True)
    assert np.array_equal(cell_colours(picture, num_classes), heat(np.sqrt(shares)))


def test_draw_confusion__a_thousand_classes_share_cells_of_five() -> None:
    matrix = np.zeros((1000, 1000), dtype=int)
    matrix[np.arange(1000), np.arange(1000)] = 3
    matrix[:5, 500:505] = 1  # five in a row of eight
    names = [str(index) for index in range(1000)]
    colours = cell_colours(draw_confusion(matrix, names, class_accuracy(matrix)), 200)
    expected = np.eye(200)
    expected[0, 0], expected[0, 100] = 3 / 8, 5 / 8
    assert np.array_equal(colours, heat(np.sqrt(expected)))


def test_draw_confusion__nothing_wrong_and_nothing_there() -> None:
    for matrix in (np.diag([3, 4]), np.zeros((2, 2), dtype=int)):
        picture = draw_confusion(matrix, ["a", "b"], class_accuracy(matrix))
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        assert np.array_equal(cell_colours(picture, 2), heat(shares))


def test_heat__gets_darker_from_white_and_text_stays_readable() -> None:
    levels = np.linspace(0, 1, 101)
    brightness = heat(levels) @ (0.299, 0.587, 0.114)
    assert heat(levels)[0].tolist() == [255, 255, 255]
    assert (np.diff(brightness) < 0).all()
    for level, ground in zip(levels, brightness, strict=True):
        assert abs(np.dot(ink_on(level), (0.299, 0.587, 0.114)) - ground) > 90
